package middleware

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// record is what the inner middleware tell the outer ones of one message. One
// goroutine handles a message, so it needs no lock.
type record struct {
	msg           *message.Message
	attempts      int // how often the handler ran; 0 without Retry
	correlationID string
	poisoned      error // why it is in a dead-letter topic
}

type recordKey struct{}

// recordOf returns the record of a message, or one that nobody reads. A record of
// another message, whose context this one inherited, is not its own.
func recordOf(msg *message.Message) *record {
	if r, ok := msg.Context().Value(recordKey{}).(*record); ok && r.msg == msg {
		return r
	}
	return &record{msg: msg}
}

// keepRecord makes sure that a message has a record in its context.
func keepRecord(msg *message.Message) *record {
	r := recordOf(msg)
	msg.SetContext(context.WithValue(msg.Context(), recordKey{}, r))
	return r
}
