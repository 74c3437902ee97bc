package lanetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/router" //nolint:depguard // only tests import this package
)

func testOrder(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t,
		router.Item{Key: "third", Sent: at(3)}, router.Item{Key: "first", Sent: at(1)},
		router.Item{Key: "fourth", Sent: at(4)}, router.Item{Key: "second", Sent: at(2)})
	l.arrivals(t, 4)
	l.Resume()
	if diff := cmp.Diff([]string{"first", "second", "third", "fourth"}, l.takeAll(t, 4)); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
	q.left(t, 0)
}

func testEqualTimes(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	for i, key := range []string{"a", "b", "c", "d"} {
		q.publish(t, router.Item{Key: key, Sent: at(1)})
		if i%2 == 0 {
			l.arrivals(t, i+1)
		}
	}
	l.arrivals(t, 4)
	l.Resume()
	if diff := cmp.Diff(l.keys(), l.takeAll(t, 4)); diff != "" {
		t.Errorf("handed out (-arrived +got):\n%s", diff)
	}
}

func testOneAtATime(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a", Thread: "1"}, router.Item{Key: "b", Thread: "2"})
	l.arrivals(t, 2)
	l.Resume()
	first, _ := l.take(t)
	l.takesNothing(t)
	if !l.Running() {
		t.Error("Running() is false while a message is with the Router")
	}
	first.Ack()
	second, item := l.take(t)
	if item.Key != "b" {
		t.Errorf("second is %q, want b", item.Key)
	}
	second.Ack()
	q.left(t, 0)
	if l.Running() {
		t.Error("Running() is true while nothing is with the Router")
	}
}

func testHold(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	for i, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		q.publish(t, router.Item{Key: key, Thread: key, Sent: at(i)})
	}
	l.arrivals(t, 5)
	l.Resume()
	l.takeOne(t, 5)
	l.takeOne(t, 6)
	l.takeOne(t, 7)
	l.takeAll(t, 5)
	q.left(t, 0)
}

// takeOne takes a message and looks whether, with it, five are held.
func (l *lane) takeOne(t *testing.T, arrivals int) {
	t.Helper()
	m, _ := l.take(t)
	l.arrivals(t, arrivals)
	l.takesNothing(t)
	if got := len(l.keys()); got != arrivals {
		t.Errorf("%d messages arrived, want %d", got, arrivals)
	}
	if got := l.Pause(); got != 5 {
		t.Errorf("%d messages held, want 5", got)
	}
	l.Resume()
	m.Ack()
}

func testNack(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a"})
	l.Resume()
	m, _ := l.take(t)
	m.Nack()
	again, item := l.take(t)
	if item.Key != "a" || q.Left(t) != 1 {
		t.Errorf("%q came, %d left, want a and 1", item.Key, q.Left(t))
	}
	receipts := l.receipts("a")
	if len(receipts) != 2 || !is(receipts[0].Nacked()) || is(receipts[0].Acked()) {
		t.Errorf("%d deliveries, want two, the first nacked", len(receipts))
	}
	again.Ack()
	q.left(t, 0)
}

func testRedeliveryOfWaiting(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a", Sent: at(1)})
	l.arrivals(t, 1)
	q.publish(t, router.Item{Key: "a", Sent: at(1), Again: true})
	l.arrivals(t, 2)
	l.Resume()
	m, _ := l.take(t)
	l.replaced(t, "a")
	m.Ack()
	done(t, "the ack of the latest delivery", l.receipts("a")[1].Acked())
	l.takesNothing(t)
	q.left(t, 0)
}

func testRedeliveryOfRunning(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a", Sent: at(1)})
	l.Resume()
	m, _ := l.take(t)
	q.publish(t, router.Item{Key: "a", Sent: at(2)})
	l.arrivals(t, 2)
	if err := context.Cause(m.Context()); err != nil {
		t.Errorf("canceled with %v by its own redelivery", err)
	}
	l.replaced(t, "a")
	m.Ack()
	done(t, "the ack of the latest delivery", l.receipts("a")[1].Acked())
	l.takesNothing(t)
	q.left(t, 0)
}

// replaced looks whether the second of two deliveries is the one that counts.
func (l *lane) replaced(t *testing.T, key string) {
	t.Helper()
	receipts, drops := l.receipts(key), l.drops()
	if len(receipts) != 2 || len(drops) != 1 || drops[0] != receipts[0] {
		t.Fatalf("%d deliveries, %d dropped, want two, the first dropped", len(receipts), len(drops))
	}
	if is(receipts[1].Acked()) || is(receipts[1].Nacked()) {
		t.Error("the latest delivery was settled before the message")
	}
}

func testInterruption(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	l.Resume()
	q.publish(t, router.Item{Key: "a", Thread: "1"})
	m, _ := l.take(t)
	q.publish(t, router.Item{Key: "b", Thread: "1"})
	done(t, "the end of the job", m.Context().Done())
	var cause *handlers.InterruptError
	if !errors.As(context.Cause(m.Context()), &cause) || cause.By != "b" {
		t.Errorf("canceled with %v, want an InterruptError by b", context.Cause(m.Context()))
	}
	l.takesNothing(t)
	if receipt := l.receipts("a")[0]; is(receipt.Acked()) || is(receipt.Nacked()) {
		t.Error("the canceled message was settled by the lane")
	}
	m.Ack()
	if diff := cmp.Diff([]string{"b"}, l.takeAll(t, 1)); diff != "" {
		t.Errorf("then (-want +got):\n%s", diff)
	}
	q.left(t, 0)
}

func testOtherThread(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	l.Resume()
	q.publish(t, router.Item{Key: "a", Thread: "1"})
	m, _ := l.take(t)
	q.publish(t, router.Item{Key: "b", Thread: "2"})
	l.arrivals(t, 2)
	if err := m.Context().Err(); err != nil {
		t.Errorf("canceled by another thread: %v", err)
	}
	m.Ack()
	if diff := cmp.Diff([]string{"b"}, l.takeAll(t, 1)); diff != "" {
		t.Errorf("then (-want +got):\n%s", diff)
	}
	q.left(t, 0)
}

func testInterruptOnly(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	l.Resume()
	q.publish(t, router.Item{Key: "a", Thread: "1"})
	m, _ := l.take(t)
	q.publish(t, router.Item{Interrupts: true, Only: true})
	done(t, "the end of the job", m.Context().Done())
	q.left(t, 1)
	m.Ack()
	l.takesNothing(t)
	q.left(t, 0)
}

func testClose(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a", Thread: "1"}, router.Item{Key: "b", Thread: "2"}, router.Item{Key: "c", Thread: "3"})
	l.arrivals(t, 3)
	l.Resume()
	m, _ := l.take(t)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.Close() //nolint:errcheck // it cannot fail
	}()
	done(t, "b is handed back", l.receipts("b")[0].Nacked())
	done(t, "c is handed back", l.receipts("c")[0].Nacked())
	l.takesNothing(t)
	if is(closed) || m.Context().Err() != nil {
		t.Errorf("closed: %t, running job: %v, want neither ended", is(closed), m.Context().Err())
	}
	m.Ack()
	done(t, "the end of Close", closed)
	if _, ok := <-l.out; ok {
		t.Error("the closed lane hands out a message")
	}
	q.left(t, 2) // the ack reached the queue, though all was closed at once
	next := q.start(t.Context(), t, router.LaneConfig{})
	next.arrivals(t, 2)
	next.Resume()
	if diff := cmp.Diff([]string{"b", "c"}, next.takeAll(t, 2)); diff != "" {
		t.Errorf("the next lane (-want +got):\n%s", diff)
	}
	q.left(t, 0)
}

func testContext(t *testing.T, q *queue) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := q.start(ctx, t, router.LaneConfig{})
	q.publish(t, router.Item{Key: "a", Thread: "1"}, router.Item{Key: "b", Thread: "2"})
	l.arrivals(t, 2)
	l.Resume()
	m, _ := l.take(t)
	cancel()
	done(t, "b is handed back", l.receipts("b")[0].Nacked())
	if err := m.Context().Err(); err != nil {
		t.Errorf("the running job ended with the subscription: %v", err)
	}
	l.takesNothing(t)
	m.Ack()
	done(t, "the end of the lane", l.out)
	q.left(t, 1)
}

func testPause(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{})
	if is(l.Arrived()) {
		t.Error("Arrived() is readable on an empty lane")
	}
	q.publish(t, router.Item{Key: "a"})
	done(t, "Arrived()", l.Arrived())
	l.takesNothing(t)
	if n := l.Pause(); n != 1 {
		t.Errorf("Pause() = %d, want 1", n)
	}
	l.Resume()
	l.takeAll(t, 1)
	q.left(t, 0)
}

func testIdle(t *testing.T, q *queue) {
	t.Helper()
	l := q.start(t.Context(), t, router.LaneConfig{Idle: 50 * time.Millisecond})
	l.Resume()
	q.publish(t, router.Item{Key: "a"})
	m, _ := l.take(t)
	l.takesNothing(t)
	if is(l.Idle()) {
		t.Error("Idle() is readable while a message runs")
	}
	m.Ack()
	done(t, "Idle()", l.Idle())
	q.left(t, 0)
}
