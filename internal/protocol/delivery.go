package protocol

import (
	"context"
	"strconv"
	"time"
)

// The attributes of a message in a queue that are ours. They are there where a
// message was sent on or handed back, and outlive its stay in a dead-letter queue.
const (
	AttrCommandID = "commandId" // what a body without an id of its own was given
	AttrSentAt    = "sentAt"    // when a queue first took it, Unix time in ms
	AttrResent    = "resent"    // "true" if a worker put it back
)

// Delivery is how a message reached us. It is no part of the message's body.
type Delivery struct {
	MessageID string    // the queue's own id
	Sent      time.Time // when a queue first took it
	Receives  int       // 1 at the first
	Resent    bool      // a worker put it back into the queue
	CommandID string    // given with the message where its body has none
}

// WithAttributes returns the delivery with what the message's attributes say.
func (d Delivery) WithAttributes(attributes map[string]string) Delivery {
	d.CommandID = first(attributes[AttrCommandID], d.CommandID)
	d.Resent = attributes[AttrResent] != ""
	if ms, err := strconv.ParseInt(attributes[AttrSentAt], 10, 64); err == nil && ms > 0 && ms <= maxMillis {
		d.Sent = time.UnixMilli(ms).UTC()
	}
	return d
}

// SentAt is the value of AttrSentAt.
func (d Delivery) SentAt() string { return strconv.FormatInt(d.Sent.UnixMilli(), 10) }

type deliveryKey struct{}

// WithDelivery returns a context for a message that says how it was delivered.
// Subscribers set it on what they hand out.
func WithDelivery(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, d)
}

// DeliveryOf returns what the subscriber said of a message.
func DeliveryOf(ctx context.Context) Delivery {
	d, _ := ctx.Value(deliveryKey{}).(Delivery)
	return d
}
