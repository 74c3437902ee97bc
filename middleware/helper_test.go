package middleware_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
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
func newMessage(tb testing.TB, payload string, metadata ...string) *message.Message {
	tb.Helper()
	msg := message.NewMessageWithContext(tb.Context(), "uuid-1", []byte(payload))
	for i := 0; i < len(metadata); i += 2 {
		msg.Metadata.Set(metadata[i], metadata[i+1])
	}
	return msg
}

// cancelled is a context that ended with a cause.
func cancelled(tb testing.TB, cause error) context.Context {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(tb.Context())
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
	for _, m := range slices.Backward(middlewares) {
		h = m(h)
	}
	return h
}

// newRouter makes a Router and queues in memory.
func newRouter(tb testing.TB) (*message.Router, *gochannel.GoChannel) {
	tb.Helper()
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		tb.Fatal(err)
	}
	return router, gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
}

// runOnce runs a Router until do returns and what was published is handled.
func runOnce(tb testing.TB, router *message.Router, do func()) {
	tb.Helper()
	ended := make(chan error, 1)
	go func() { ended <- router.Run(tb.Context()) }()
	<-router.Running()
	do()
	if err := router.Close(); err != nil {
		tb.Error(err)
	}
	if err := <-ended; err != nil {
		tb.Error(err)
	}
}
