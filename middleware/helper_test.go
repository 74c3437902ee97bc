package middleware_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

var (
	errDown = errors.New("the database is down")
	errStop = errors.New("the service stops")
)

// failing is a handler that always fails.
func failing(err error) message.HandlerFunc {
	return func(*message.Message) ([]*message.Message, error) { return nil, err }
}

// newMessage makes a message with a payload and pairs of metadata.
func newMessage(t testing.TB, payload string, metadata ...string) *message.Message {
	t.Helper()
	msg := message.NewMessageWithContext(t.Context(), "uuid-1", []byte(payload))
	for i := 0; i < len(metadata); i += 2 {
		msg.Metadata.Set(metadata[i], metadata[i+1])
	}
	return msg
}

// cancelled is a context that ended with a cause.
func cancelled(t testing.TB, cause error) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	return ctx
}

// topics is a Publisher that remembers.
type topics struct {
	mu       sync.Mutex
	messages map[string][]*message.Message
	err      error // what Publish returns instead
}

func (p *topics) Publish(topic string, messages ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if p.messages == nil {
		p.messages = map[string][]*message.Message{}
	}
	p.messages[topic] = append(p.messages[topic], messages...)
	return nil
}

func (*topics) Close() error { return nil }

func (p *topics) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, messages := range p.messages {
		n += len(messages)
	}
	return n
}

// chain puts middleware around a handler, outermost first.
func chain(h message.HandlerFunc, middlewares ...message.HandlerMiddleware) message.HandlerFunc {
	for i := len(middlewares) - 1; i >= 0; i-- {
		h = middlewares[i](h)
	}
	return h
}
