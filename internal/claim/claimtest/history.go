package claimtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// Kind is what an operation of a history says of a project.
type Kind string

// The kinds of operations.
const (
	Took     Kind = "took"     // Acquire returned a lease
	Trusted  Kind = "trusted"  // the lease was asked, and is trusted
	Wrote    Kind = "wrote"    // a write under the lease's fence was accepted
	Released Kind = "released" // Release succeeded
)

// event is an operation of a worker, with when it began and ended in true time.
type event struct {
	worker     int
	key        string
	kind       Kind
	fence      int64
	begin, end time.Time
}

func (w *worker) record(key string, k Kind, fence int64, begin time.Time) {
	w.world.mu.Lock()
	defer w.world.mu.Unlock()
	w.world.history = append(w.world.history, event{worker: w.id, key: key, kind: k, fence: fence, begin: begin, end: time.Now()})
	if len(w.world.history) == w.world.enough {
		w.world.finish()
	}
}

// holder is what the model knows of a project.
type holder struct {
	fence    int64
	released bool
}

// model says what a lock with fences may answer. Once another took the project
// nothing is done under the older fence: nobody trusts it, no write is accepted.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, o := range history {
				key := o.Input.(event).key
				byKey[key] = append(byKey[key], o)
			}
			var parts [][]porcupine.Operation
			for _, p := range byKey {
				parts = append(parts, p)
			}
			return parts
		},
		Init: func() any { return holder{} },
		Step: func(state, input, _ any) (bool, any) {
			h, e := state.(holder), input.(event)
			switch e.kind {
			case Took:
				return e.fence > h.fence, holder{fence: e.fence}
			case Trusted:
				return e.fence == h.fence && !h.released, h
			case Wrote:
				return e.fence == h.fence, h
			default:
				return e.fence == h.fence && !h.released, holder{fence: h.fence, released: true}
			}
		},
		DescribeOperation: func(input, _ any) string {
			e := input.(event)
			return fmt.Sprintf("worker %d %s under %d", e.worker, e.kind, e.fence)
		},
	}
}

// check fails if the history of a world is not one of a lock. It returns how
// many operations there were of each kind.
func (w *world) check(t *testing.T) map[Kind]int {
	t.Helper()
	counts := map[Kind]int{}
	operations := make([]porcupine.Operation, 0, len(w.history))
	for _, e := range w.history {
		counts[e.kind]++
		operations = append(operations, porcupine.Operation{
			ClientId: e.worker, Input: e, Call: e.begin.Sub(w.start).Nanoseconds(), Return: e.end.Sub(w.start).Nanoseconds(),
		})
	}
	if got := porcupine.CheckOperationsTimeout(model(), operations, 20*time.Second); got != porcupine.Ok {
		t.Errorf("history of %d operations: %s; two workers were trusted at once, or an old one wrote", len(operations), got)
	}
	return counts
}

// live is a worker's life: it takes projects, from requests and from the dead.
func (w *worker) live(ctx context.Context, claims *claim.Claims, keys []string) {
	for w.rest(ctx, w.upTo(8)) {
		w.thawed()
		want := keys[int(w.float()*float64(len(keys)))%len(keys)]
		if w.chance(0.7) {
			if orphans, err := claims.Orphans(ctx); err == nil && len(orphans) > 0 {
				want = orphans[0]
			}
		}
		begin := time.Now()
		once, cancel := context.WithTimeout(ctx, w.world.seconds(20))
		lease, err := claims.Acquire(once, want)
		cancel()
		if err == nil {
			w.record(want, Took, lease.Fence(), begin)
			w.hold(ctx, lease)
		}
	}
}

// hold works under a lease, and then releases it, crashes, or waits until it is
// lost.
func (w *worker) hold(ctx context.Context, lease *claim.Lease) {
	over, crash := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() { w.ask(over, lease) })
	for end := time.Now().Add(w.upTo(240)); time.Now().Before(end) && w.rest(ctx, w.upTo(10)) && lease.Check() == nil; {
		switch f := w.float(); {
		case f < 0.1:
			lease.Releasing(ctx) //nolint:errcheck // Check tells
		case f < 0.2:
			lease.Resume(ctx) //nolint:errcheck // Check tells
		default:
			w.write(ctx, lease)
		}
	}
	switch f := w.float(); {
	case f < 0.5:
		begin := time.Now()
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.world.seconds(20))
		if err := lease.Release(once); err == nil {
			w.record(lease.Key(), Released, lease.Fence(), begin)
		}
		cancel()
	case f < 0.75:
		crash() // its process has gone: nobody asks the lease any more
		asking.Wait()
	default:
		select {
		case <-lease.Lost():
		case <-ctx.Done():
		}
	}
	lease.Abandon()
	w.rest(ctx, w.upTo(2)) // is it still asked?
	crash()
	asking.Wait()
}

// ask asks a lease all the time whether it is trusted, also in the last moment.
func (w *worker) ask(ctx context.Context, lease *claim.Lease) {
	for ctx.Err() == nil {
		begin := time.Now()
		if lease.Check() == nil {
			w.record(lease.Key(), Trusted, lease.Fence(), begin)
		}
		d := w.upTo(25)
		if left := lease.Left(); left > 0 && w.chance(0.7) { // the clock may be faster or slower
			d = min(d, time.Duration(float64(left)/(1+w.drift))-time.Microsecond)
		}
		w.rest(ctx, max(d, w.world.scale/1000))
	}
}

// write is what the journal does: accepted if the row has the fence.
func (w *worker) write(ctx context.Context, lease *claim.Lease) {
	begin := time.Now()
	err := w.away(ctx, false, func(ctx context.Context) error {
		row, err := w.world.table.Get(ctx, lease.Key())
		if err == nil && row.Fence != lease.Fence() {
			err = errors.New("fenced")
		}
		return err
	})
	if err == nil {
		w.record(lease.Key(), Wrote, lease.Fence(), begin)
	}
}

// HistoryConfig says how a history comes about.
type HistoryConfig struct {
	Table  claim.Table
	Seed   uint64
	Second time.Duration // how long a second is: on a real table nobody wants to wait for minutes
	Length time.Duration // in true time, at most
	Enough int           // after how many operations to end; zero means never
}

// History lets workers take, keep, lose and leave projects: their clocks are
// minutes apart and go up to a tenth too fast or too slow, they freeze, crash and
// are cut off, and the way to the table is slow, fails, loses answers and brings
// writes when nobody expects them any more. It fails t if two of them were ever
// trusted at once, and returns how many operations there were.
func History(t *testing.T, c HistoryConfig) map[Kind]int {
	t.Helper()
	const workers = 8
	keys := []string{"a#a", "b#b"}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), c.Length)
	defer cancel()
	w := &world{table: c.Table, scale: c.Second, start: time.Now(), enough: c.Enough, finish: cancel}
	var all sync.WaitGroup
	for i := range workers {
		rng := rand.New(rand.NewPCG(c.Seed, uint64(i)))
		one := &worker{
			world: w, id: i, rng: rng,
			ahead: time.Duration((rng.Float64() - 0.5) * float64(20*time.Minute)),
			drift: []float64{-0.1, 0.1, 0}[i%3],
		}
		claims := &claim.Claims{
			Table: one, ContainerID: fmt.Sprint("c", i%(workers-1)), // two have the same
			Duration: w.seconds(45), Renewal: w.seconds(10), Now: one.now,
		}
		all.Go(func() { one.trouble(ctx) })
		all.Go(func() { one.live(ctx, claims, keys) })
	}
	all.Wait()
	w.landing.Wait()
	return w.check(t)
}
