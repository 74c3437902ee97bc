package claimtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// world is a table that workers share, what they record, and how bad it is.
type world struct {
	table claim.Table
	scale time.Duration // what a second is: the table may be a real one
	start time.Time

	enough int    // how many events end it
	finish func() // ends it

	mu      sync.Mutex
	history []event
	landing sync.WaitGroup // writes that are still on their way
}

// worker is a container with a clock of its own, which may freeze and be cut off.
type worker struct {
	world *world
	id    int
	ahead time.Duration // of true time
	drift float64       // how much faster the clock goes

	mu     sync.Mutex
	rng    *rand.Rand
	frozen time.Time // until then
	cut    time.Time // until then
}

// seconds is a span of the world's time.
func (w *world) seconds(s float64) time.Duration { return time.Duration(s * float64(w.scale)) }

func (w *worker) float() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Float64()
}

func (w *worker) chance(p float64) bool { return w.float() < p }

// upTo is a span, short ones more often than long ones.
func (w *worker) upTo(s float64) time.Duration {
	f := w.float()
	return w.world.seconds(s * f * f)
}

// thawed waits while the worker is frozen.
func (w *worker) thawed() {
	for {
		w.mu.Lock()
		left := time.Until(w.frozen)
		w.mu.Unlock()
		if left <= 0 {
			return
		}
		<-time.After(left)
	}
}

// now is the worker's clock. A frozen worker does not get to read it.
func (w *worker) now() time.Time {
	w.thawed()
	passed := time.Since(w.world.start)
	return w.world.start.Add(w.ahead + passed + time.Duration(float64(passed)*w.drift))
}

// trouble freezes the worker, or cuts it off, every now and then.
func (w *worker) trouble(ctx context.Context) {
	for w.rest(ctx, w.upTo(120)) {
		until := time.Now().Add(w.upTo(100))
		cut := w.chance(0.5)
		w.mu.Lock()
		if cut {
			w.cut = until
		} else {
			w.frozen = until
		}
		w.mu.Unlock()
	}
}

// rest waits; false if the world is over.
func (w *worker) rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

var errLost = errors.New("no answer")

// travel is the way to the table or back: an error if the caller gives up, or
// nothing gets through.
func (w *worker) travel(ctx context.Context) error {
	w.thawed()
	d := w.upTo(0.5)
	if w.chance(0.1) {
		d = w.upTo(12)
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		w.thawed()
		return context.Cause(ctx)
	}
	w.mu.Lock()
	cut := time.Now().Before(w.cut)
	w.mu.Unlock()
	if cut || w.chance(0.03) {
		return errLost
	}
	return nil
}

// away makes a call of the table; write is true if it may land after its caller
// gave up.
func (w *worker) away(ctx context.Context, write bool, call func(context.Context) error) error {
	if err := w.travel(ctx); err != nil {
		if write && w.chance(0.3) {
			late := w.upTo(90)
			w.world.landing.Go(func() {
				<-time.After(late)
				call(context.WithoutCancel(ctx)) //nolint:errcheck // nobody waits for it
			})
		}
		return err
	}
	err := call(context.WithoutCancel(ctx))
	if lost := w.travel(ctx); lost != nil {
		return lost
	}
	w.thawed()
	return err
}

// Get implements claim.Table.
func (w *worker) Get(ctx context.Context, key string) (row claim.Row, err error) {
	err = w.away(ctx, false, func(ctx context.Context) error {
		var err error
		row, err = w.world.table.Get(ctx, key)
		return err
	})
	return row, err
}

// Put implements claim.Table.
func (w *worker) Put(ctx context.Context, next, seen claim.Row) error {
	return w.away(ctx, true, func(ctx context.Context) error { return w.world.table.Put(ctx, next, seen) })
}

// Live implements claim.Table.
func (w *worker) Live(ctx context.Context) (rows []claim.Row, err error) {
	err = w.away(ctx, false, func(ctx context.Context) error {
		var err error
		rows, err = w.world.table.Live(ctx)
		return err
	})
	return rows, err
}
