package middleware

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The metadata of a message in a dead-letter topic.
const (
	PoisonReason   = "poison_reason"   // the error, in one line, at most 1 KB
	PoisonTopic    = "poison_topic"    // where the message came from
	PoisonHandler  = "poison_handler"  // the name of the handler
	PoisonAttempts = "poison_attempts" // how often the handler ran
	PoisonTime     = "poison_time"     // when it was given up, RFC 3339 in UTC
)

// ErrNoDeadLetterTopic is returned when a message should be poisoned and there
// is nowhere to put it; the message is nacked.
var ErrNoDeadLetterTopic = errors.New("no dead-letter topic for this message")

// PoisonQueue gives up a message whose handler failed for good: it publishes the
// message to a dead-letter topic and reports success, so that the Router
// acknowledges it. It stands outside Retry: whatever error comes out of Retry is
// permanent or exhausted. A HandBack error, or one under a message context that
// has ended, passes through: the Router nacks, and the message comes back.
//
// The message in the dead-letter topic has the payload and metadata it had, and
// the Poison metadata. A stack trace is never among them.
//
// If the message cannot be published there, the error passes through and the
// Router nacks: a message is never dropped.
type PoisonQueue struct {
	// Topic chooses the dead-letter topic; empty means there is none. nil
	// means "poison".
	Topic func(*message.Message) string
	// Publisher publishes to it. Without one, every message to be poisoned is
	// nacked.
	Publisher message.Publisher
	// Then turns the failure into messages that the Router publishes, such as
	// an answer that tells of it. It runs after the message was published to
	// the dead-letter topic; if it fails, the message is nacked and will be
	// poisoned again. nil means nothing is produced.
	Then func(msg *message.Message, err error) ([]*message.Message, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Middleware implements message.HandlerMiddleware.
func (p PoisonQueue) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if err == nil || handedBack(msg, err) {
			return produced, err
		}
		if perr := p.publish(msg, err); perr != nil {
			return nil, errors.Join(err, perr)
		}
		if rec := recordOf(msg.Context()); rec != nil {
			rec.poisoned = err
		}
		if p.Then == nil {
			return nil, nil
		}
		produced, terr := p.Then(msg, err)
		if terr != nil {
			return nil, errors.Join(err, fmt.Errorf("after dead-lettering: %w", terr))
		}
		return produced, nil
	}
}

func (p PoisonQueue) publish(msg *message.Message, err error) error {
	topic := "poison"
	if p.Topic != nil {
		topic = p.Topic(msg)
	}
	if topic == "" || p.Publisher == nil {
		return ErrNoDeadLetterTopic
	}
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	ctx := msg.Context()
	attempts := 1
	if rec := recordOf(ctx); rec != nil && rec.attempts > 0 {
		attempts = rec.attempts
	}
	dead := msg.CopyWithContext()
	for key, value := range map[string]string{
		PoisonReason:   printable(err.Error(), 1024),
		PoisonTopic:    message.SubscribeTopicFromCtx(ctx),
		PoisonHandler:  message.HandlerNameFromCtx(ctx),
		PoisonAttempts: strconv.Itoa(attempts),
		PoisonTime:     now().UTC().Format(time.RFC3339),
	} {
		if value != "" { // queues refuse empty attributes
			dead.Metadata.Set(key, value)
		}
	}
	if err := p.Publisher.Publish(topic, dead); err != nil {
		return fmt.Errorf("publish to dead-letter topic %s: %w", topic, err)
	}
	return nil
}
