package claim_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// hooked is a table whose calls can be given something to do first.
type hooked struct {
	claim.Table
	mu  sync.Mutex
	put func(ctx context.Context, next claim.Row) error // nil: nothing
	get func() error
}

func (h *hooked) onPut(f func(ctx context.Context, next claim.Row) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put = f
}

func (h *hooked) onGet(f func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.get = f
}

func (h *hooked) Put(ctx context.Context, next, seen claim.Row) error {
	h.mu.Lock()
	put := h.put
	h.mu.Unlock()
	if put != nil {
		if err := put(ctx, next); err != nil {
			return err
		}
	}
	return h.Table.Put(ctx, next, seen)
}

func (h *hooked) Get(ctx context.Context, key string) (claim.Row, error) {
	h.mu.Lock()
	get := h.get
	h.mu.Unlock()
	if get != nil {
		if err := get(); err != nil {
			return claim.Row{}, err
		}
	}
	return h.Table.Get(ctx, key)
}

// clock is real time plus what was added to it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func isLost(l *claim.Lease) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

// From the moment the row says released another may take it.
func TestTrustEndsBeforeTheRowSaysReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &hooked{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		table.onPut(func(_ context.Context, next claim.Row) error {
			if next.Status == claim.Released && (lease.Check() == nil || lease.Left() > 0 || !isLost(lease)) {
				t.Error("trusted while the row is being released")
			}
			return nil
		})
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A worker that was frozen for longer than its trust may find its row as it left
// it. But it has been killing its job since it thawed.
func TestTrustThatEndedDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		table := &claim.Memory{}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a", Now: c.now})
		defer lease.Abandon()
		c.ahead.Store(int64(36 * time.Second)) // the machine slept; timers did not see it
		before, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Resume(t.Context()); !errors.Is(err, claim.ErrLeaseLost) {
			t.Errorf("Resume: %v; want ErrLeaseLost", err)
		}
		pass(11 * time.Second)
		if lease.Check() == nil || !isLost(lease) {
			t.Error("trusted again")
		}
		if err := lease.Release(t.Context()); !errors.Is(err, claim.ErrLeaseLost) {
			t.Errorf("Release: %v; want ErrLeaseLost", err)
		}
		if after, err := table.Get(t.Context(), key); err != nil || after != before {
			t.Errorf("a lost lease wrote its row: %+v, %v", after, err)
		}
	})
}

// The taker may have seen the row the moment the write began to travel back.
func TestTrustIsCountedFromTheStartOfAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &hooked{Table: &claim.Memory{}}
		table.onPut(func(context.Context, claim.Row) error {
			pass(3 * time.Second)
			return nil
		})
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		if left := lease.Left(); left != 32*time.Second {
			t.Errorf("taken 3 s ago: trusted for %v; want 32 s", left)
		}
		pass(13 * time.Second)
		synctest.Wait()
		if left := lease.Left(); left != 32*time.Second {
			t.Errorf("renewal begun 3 s ago: trusted for %v; want 32 s", left)
		}
	})
}

func TestAWriteThatHangsDoesNotKeepTheTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &hooked{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		table.onPut(func(ctx context.Context, _ claim.Row) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		start := time.Now()
		failed := make(chan error)
		go func() { failed <- lease.Releasing(context.WithoutCancel(t.Context())) }()
		<-lease.Lost()
		if took := time.Since(start); took != 35*time.Second {
			t.Errorf("lost after %v; want 35 s", took)
		}
		if err := <-failed; err == nil {
			t.Error("Releasing succeeded")
		}
		lease.Abandon()
	})
}

// The renewal that waits for Releasing must not take it back: nobody would ask
// for a claim.
func TestARenewalKeepsTheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &hooked{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		table.onPut(func(context.Context, claim.Row) error {
			pass(time.Second)
			return nil
		})
		pass(9500 * time.Millisecond)
		if err := lease.Releasing(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		if row, err := table.Get(t.Context(), key); err != nil || row.Status != claim.Releasing {
			t.Fatalf("row %+v, %v; want releasing", row, err)
		}
	})
}

// A renewal whose answer was lost, and then no answer to the question who wrote
// the row: that is not yet a loss.
func TestAnUnreadableRowIsNotALostOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		lossy := &faulty{Table: &claim.Memory{}}
		table := &hooked{Table: lossy}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		table.onGet(func() error { return down })
		lossy.loseNext.Store(true)
		pass(25 * time.Second) // each renewal finds the row moved, by whom it cannot tell
		table.onGet(nil)
		pass(time.Minute)
		if err := lease.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAnOutageShorterThanTheTrustLosesNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		table.cut.Store(true)
		pass(33 * time.Second)
		table.cut.Store(false)
		pass(10 * time.Second)
		if err := lease.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// A project that is taken and released by another while we take it is free.
func TestAFasterTakerThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		slow := &hooked{Table: table}
		var once atomic.Bool
		slow.onPut(func(context.Context, claim.Row) error {
			if once.CompareAndSwap(false, true) {
				return acquire(t, &claim.Claims{Table: table, ContainerID: "fast"}).Release(t.Context()) //nolint:contextcheck // another worker
			}
			return nil
		})
		lease := acquire(t, &claim.Claims{Table: slow, ContainerID: "slow"})
		defer lease.Abandon()
		if lease.Unclean() {
			t.Error("unclean")
		}
	})
}
