package lanetest

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/router" //nolint:depguard // only tests import this package
)

// A queue delivers within soon; what does not happen does not happen for a while.
const (
	soon  = 30 * time.Second
	while = 150 * time.Millisecond
)

// eventually waits until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// left waits until n messages are left in the queue.
func (q *queue) left(t *testing.T, n int) {
	t.Helper()
	eventually(t, "what is left in the queue", func() bool { return q.Left(t) == n })
}

// arrivals waits until n deliveries arrived in the lane.
func (l *lane) arrivals(t *testing.T, n int) {
	t.Helper()
	eventually(t, "deliveries", func() bool { return len(l.keys()) >= n })
	l.Running() // the last one was put into its place
}

// take returns the next message that the lane hands out.
func (l *lane) take(t *testing.T) (*message.Message, router.Item) {
	t.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	select {
	case m, ok := <-l.out:
		if !ok {
			t.Fatal("the lane ended, want a message")
		}
		l.taken = append(l.taken, m)
		item, ok := router.ItemOf(m.Context())
		if !ok {
			t.Fatal("a message without an item")
		}
		return m, item
	case <-timeout.C:
		t.Fatal("the lane hands out nothing")
	}
	return nil, router.Item{}
}

// takeAll acknowledges n messages and returns their keys.
func (l *lane) takeAll(t *testing.T, n int) []string {
	t.Helper()
	var keys []string
	for range n {
		m, item := l.take(t)
		keys = append(keys, item.Key)
		m.Ack()
	}
	return keys
}

// takesNothing fails if the lane hands something out, or ends.
func (l *lane) takesNothing(t *testing.T) {
	t.Helper()
	timeout := time.NewTimer(while)
	defer timeout.Stop()
	select {
	case m, ok := <-l.out:
		t.Fatalf("the lane hands out %v (open: %t), want nothing", m, ok)
	case <-timeout.C:
	}
}

// done waits for a channel to be closed or readable.
func done[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	select {
	case <-c:
	case <-timeout.C:
		t.Fatalf("waited too long for: %s", what)
	}
}

// is reports whether a channel is closed or readable.
func is[T any](c <-chan T) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
