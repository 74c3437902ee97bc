package middleware

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The metadata of a message in a dead-letter topic. Queues refuse empty
// attributes, so one that is not known is not there.
const (
	PoisonReason   = "poison_reason"   // the error in one line, at most 1 KB; never empty
	PoisonTopic    = "poison_topic"    // where the message came from
	PoisonHandler  = "poison_handler"  // the name of the handler
	PoisonAttempts = "poison_attempts" // how often the handler ran, a decimal number
	PoisonTime     = "poison_time"     // when it was given up, RFC 3339 in UTC
)

// ErrNoDeadLetterTopic is returned when a message should be poisoned and there is
// no topic to put it in, or no publisher to do so; the message is nacked.
var ErrNoDeadLetterTopic = errors.New("no dead-letter topic or publisher for this message")

// maxReason is the most bytes of an error in the metadata.
const maxReason = 1024

// PoisonQueue gives up a message whose handler failed for good: it publishes the
// message to a dead-letter topic and reports success, so that the Router
// acknowledges it. It stands outside Retry: whatever error comes out of Retry is
// permanent or exhausted. A HandBack error, or one under a message context that
// has ended, passes through: the Router nacks, and the message comes back.
//
// The message in the dead-letter topic has the UUID, payload and metadata that it
// came with, the Poison metadata, and a correlation id if CorrelationID is
// outside. It never has a stack, and nothing the handler produced is published.
//
// If the message cannot be published there, or Then fails, the error passes
// through, joined with that failure, and the Router nacks: a message is never
// dropped, but may be in the dead-letter topic more than once.
type PoisonQueue struct {
	// Topic chooses the dead-letter topic of a message; an empty one means
	// that there is none. nil means "poison".
	Topic func(*message.Message) string
	// Publisher publishes to it, from several goroutines. Without one, every
	// message to be poisoned is nacked.
	Publisher message.Publisher
	// Then turns the failure into messages that the Router publishes, such as
	// an answer that tells of it. It runs after the message was published to
	// the dead-letter topic. nil means that nothing is produced.
	Then func(msg *message.Message, err error) ([]*message.Message, error)
	// Redact removes secrets from the reason; nil means it stays as it is.
	Redact func(string) string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Middleware implements message.HandlerMiddleware.
func (p PoisonQueue) Middleware(h message.HandlerFunc) message.HandlerFunc {
	p = p.withDefaults()
	return func(msg *message.Message) ([]*message.Message, error) {
		outer := msg.Context()
		defer msg.SetContext(outer)
		dead := msg.CopyWithContext() // as it came: handlers may alter it
		dead.Payload = bytes.Clone(msg.Payload)
		rec := keepRecord(msg)
		produced, err := h(msg)
		if err == nil || handedBack(outer, err) {
			return produced, err
		}
		msg.SetContext(outer) // a middleware further in may have left another
		p.describe(dead, rec, err)
		if perr := p.publish(p.Topic(msg), dead); perr != nil {
			return nil, errors.Join(err, perr)
		}
		rec.poisoned = err
		produced, terr := p.Then(msg, err)
		if terr != nil {
			return nil, errors.Join(err, fmt.Errorf("after dead-lettering: %w", terr))
		}
		return produced, nil
	}
}

func (p PoisonQueue) withDefaults() PoisonQueue {
	if p.Topic == nil {
		p.Topic = func(*message.Message) string { return "poison" }
	}
	if p.Then == nil {
		p.Then = func(*message.Message, error) ([]*message.Message, error) { return nil, nil }
	}
	if p.Redact == nil {
		p.Redact = func(s string) string { return s }
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	return p
}

// describe writes down why and where the message failed.
func (p PoisonQueue) describe(dead *message.Message, rec *record, err error) {
	ctx := dead.Context()
	for key, value := range map[string]string{
		// Sprint survives an Error method that panics.
		PoisonReason:   cmp.Or(printable(p.Redact(fmt.Sprint(err)), maxReason), "an error without a text"),
		PoisonTopic:    printable(message.SubscribeTopicFromCtx(ctx), maxID),
		PoisonHandler:  printable(message.HandlerNameFromCtx(ctx), maxID),
		PoisonAttempts: strconv.Itoa(max(rec.attempts, 1)),
		PoisonTime:     p.Now().UTC().Format(time.RFC3339),
	} {
		delete(dead.Metadata, key) // of an earlier time in a dead-letter topic
		if value != "" {
			dead.Metadata.Set(key, value)
		}
	}
	if id := CorrelationIDFrom(ctx); id != "" {
		correlate(dead, id)
	}
}

func (p PoisonQueue) publish(topic string, dead *message.Message) error {
	if topic == "" || p.Publisher == nil {
		return ErrNoDeadLetterTopic
	}
	if err := p.Publisher.Publish(topic, dead); err != nil {
		return fmt.Errorf("publish to dead-letter topic %s: %w", topic, err)
	}
	return nil
}
