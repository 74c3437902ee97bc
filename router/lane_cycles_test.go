package router_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/router"
)

// TestLaneCycles looks whether lanes leave goroutines or memory behind: each
// cycle runs one message, interrupts it, and closes the lane while others wait.
// What outlives the lanes is what they could leak into: the context of Subscribe
// and the one that Bind ties the jobs to.
func TestLaneCycles(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cycles(ctx, t, 500) // what is allocated once
	goroutines, before := runtime.NumGoroutine(), heap()
	cycles(ctx, t, 10_000)
	settledTo(t, goroutines)
	after := heap()
	if grown := int64(after.HeapObjects) - int64(before.HeapObjects); grown > 2000 {
		t.Errorf("%d objects more on the heap", grown)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 512<<10 {
		t.Errorf("%d bytes more on the heap", grown)
	}
}

func heap() runtime.MemStats {
	runtime.GC()
	runtime.GC() // what the first one's finalizers freed
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s
}

// settledTo waits until there are at most n goroutines.
func settledTo(t *testing.T, n int) {
	t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > n {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), n)
		}
	}
}

func cycles(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for range n {
		cycle(ctx, t)
	}
}

func cycle(ctx context.Context, t *testing.T) {
	t.Helper()
	h := newHand()
	l := router.NewLane(router.LaneConfig{
		Inner: h, Read: read, Quiet: time.Hour, Gather: time.Hour, Hold: 3, Idle: time.Hour,
		Bind: func(job context.Context) (context.Context, context.CancelFunc) {
			job, cancel := context.WithCancel(job)
			stop := context.AfterFunc(ctx, cancel)
			return job, func() { stop(); cancel() }
		},
	})
	out, err := l.Subscribe(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	receipts := []*message.Message{
		handed(ctx, command("a", 1)), handed(ctx, command("b", 2)), handed(ctx, command("b", 2)), handed(ctx, command("c", 3)),
	}
	for _, m := range receipts {
		h.in <- m
	}
	first := <-out // Hold was reached
	first.Ack()
	second := <-out
	l.Cancel(context.Canceled)
	later := handed(ctx, command("d", 4))
	h.in <- later
	<-second.Context().Done()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.Close() //nolint:errcheck // it cannot fail
	}()
	<-receipts[3].Nacked()
	<-later.Nacked()
	second.Ack()
	<-closed
	if _, ok := <-out; ok {
		t.Fatal("the closed lane hands out a message")
	}
	if settled(receipts[0]) != "acked" || settled(receipts[2]) != "acked" {
		t.Fatalf("settled: %q and %q, want both acked", settled(receipts[0]), settled(receipts[2]))
	}
}
