package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// ErrTooLong comes from publishing what is longer than the queue accepts, even
// without attributes.
var ErrTooLong = errors.New("the message is longer than the queue accepts")

// Publish sends messages, one after the other. The context of each bounds its
// sending, which is tried again for PublishTimeout if it fails in a way that may
// pass; a missing queue or a message that SQS refuses is not. After a lost answer a
// message may be in the queue twice.
//
// Metadata become attributes: empty ones are left out, as are those with a name
// that SQS refuses; refused characters are replaced; of more than ten, and of a
// message that is too long, those of others go first, then all but the command's
// id and times, then these.
func (q *Queues) Publish(topic string, messages ...*message.Message) error {
	return q.PublishAfter(0, topic, messages...)
}

// PublishAfter is Publish of messages that are to be delivered only after a delay,
// of at most 15 minutes.
func (q *Queues) PublishAfter(delay time.Duration, topic string, messages ...*message.Message) error {
	if !q.begin() {
		return fmt.Errorf("publish to %s: %w", topic, ErrClosed)
	}
	defer q.sending.Done()
	for _, m := range messages {
		ctx := m.Context()
		err := q.send(ctx, topic, outgoing{
			body: string(m.Payload), attributes: attributesOf(m), delay: delay,
			patience: patience{total: q.config.PublishTimeout},
		})
		if err != nil {
			return fmt.Errorf("publish to %s: %w", topic, err)
		}
		q.config.Log.DebugContext(ctx, "message sent", "queue", topic, "sent_id", m.UUID)
	}
	return nil
}

func (q *Queues) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.sending.Add(1)
	}
	return !q.closed
}

type outgoing struct {
	body       string
	attributes attributes
	delay      time.Duration
	patience   patience
}

// send sends a message, with as many of its attributes as there is room for.
func (q *Queues) send(ctx context.Context, topic string, o outgoing) error {
	ctx, cancel := context.WithTimeout(ctx, o.patience.total)
	defer cancel()
	url, err := q.url(ctx, topic)
	if err != nil {
		return err
	}
	for _, some := range []attributes{o.attributes, own(o.attributes), essential(o.attributes), nil} {
		err = q.sendTo(ctx, url, o, some)
		if !tooLong(err) {
			break
		}
	}
	switch {
	case missing(err):
		q.forget(topic)
	case tooLong(err):
		return fmt.Errorf("%w: %d bytes and %d of attributes: %w", ErrTooLong, len(o.body), size("", o.attributes), err)
	}
	return err
}

func (q *Queues) sendTo(ctx context.Context, url string, o outgoing, some attributes) error {
	return o.patience.try(ctx, func(ctx context.Context) error {
		_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{
			QueueUrl: &url, MessageBody: &o.body, MessageAttributes: some,
			DelaySeconds: seconds(min(o.delay, maxDelay)),
		})
		return err
	})
}

// tooLong recognises the answer of SQS, which has no code of its own.
func tooLong(err error) bool {
	return err != nil && refused(err) && strings.Contains(err.Error(), "must be shorter than")
}
