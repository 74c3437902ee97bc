package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

var errSubscriberClosed = errors.New("the subscriber is closed")

// subscriber is a message.Subscriber; see Queues.Subscriber.
type subscriber struct {
	queues *Queues
	gate   Gate
	unsure func()

	closing chan struct{} // nothing is received or handed out any more
	abandon chan struct{} // what is not settled now never will be
	closed  chan struct{} // nothing is left

	mu      sync.Mutex
	isOver  bool           // closing is closed
	running sync.WaitGroup // subscriptions
}

// Subscribe implements message.Subscriber. The channel gets a message as soon as
// it is received, however many are not settled yet. When the context or the
// subscriber ends, the contexts of its messages end with it, but the messages can
// still be settled: acked or nacked. The channel is closed when the last receive has
// returned and what it brought was taken or given back.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if !s.begin() {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, errSubscriberClosed)
	}
	started := false
	defer func() {
		if !started {
			s.running.Done()
		}
	}()
	url, err := s.queues.url(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	receiving, stop := context.WithCancel(ctx)
	sub := &subscription{
		subscriber: s, topic: topic, url: url, stop: stop,
		log: s.queues.config.Log.With("queue", topic), out: make(chan *message.Message),
	}
	inner, in, err := sub.receiver(receiving)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	started = true
	s.running.Go(func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	go func() {
		defer s.running.Done()
		defer cancel()
		sub.forward(ctx, receiving, in)
		inner.Close() //nolint:errcheck // it cannot fail
		close(sub.out)
		sub.messages.Wait()
	}()
	return sub.out, nil
}

func (s *subscriber) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isOver {
		s.running.Add(1)
	}
	return !s.isOver
}

// Close implements message.Subscriber. It stops receiving, waits for the receive in
// flight and gives back what that brings, and returns when all that was handed out
// is settled, in SQS too. What is not settled after CloseTimeout is left to become
// visible by itself.
func (s *subscriber) Close() error {
	s.mu.Lock()
	first := !s.isOver
	if first {
		s.isOver = true
		close(s.closing)
	}
	s.mu.Unlock()
	if first {
		s.finish()
	}
	<-s.closed
	return nil
}

func (s *subscriber) finish() {
	defer close(s.closed)
	limit := time.AfterFunc(s.queues.config.CloseTimeout, func() { close(s.abandon) })
	defer limit.Stop()
	s.running.Wait()
	s.queues.idleIfClosed()
}
