package claim_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/claim/claimtest"
)

const key = "amelia#scott"

func TestMemory(t *testing.T) {
	claimtest.Run(t, func(*testing.T) claim.Table { return &claim.Memory{} })
}

// faulty is a table that can be cut off, and can lose the answers to writes.
type faulty struct {
	claim.Table
	cut      atomic.Bool
	loseNext atomic.Bool
}

var errNetwork = errors.New("network gone")

func (f *faulty) Put(ctx context.Context, next, seen claim.Row) error {
	if f.cut.Load() {
		return errNetwork
	}
	err := f.Table.Put(ctx, next, seen)
	if f.loseNext.CompareAndSwap(true, false) {
		return errNetwork
	}
	return err
}

// pass lets time pass on synctest's clock; nobody waits.
func pass(d time.Duration) { <-time.After(d) }

func acquire(t *testing.T, c *claim.Claims) *claim.Lease {
	t.Helper()
	l, err := c.Acquire(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAContainerThatOwnsAProjectIsTheOnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		a := &claim.Claims{Table: table, ContainerID: "a"}
		b := &claim.Claims{Table: table, ContainerID: "b"}
		lease := acquire(t, a)
		var held *claim.HeldError
		for _, other := range []*claim.Claims{a, b} {
			if _, err := other.Acquire(t.Context(), key); !errors.As(err, &held) || held.Row.ContainerID != "a" {
				t.Fatalf("second Acquire: %v; want HeldError by a", err)
			}
		}
		if err := lease.Releasing(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Acquire(t.Context(), key); !errors.As(err, &held) || held.Row.Status != claim.Releasing {
			t.Fatalf("Acquire while releasing: %v", err)
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := acquire(t, b)
		if next.Fence() != lease.Fence()+1 {
			t.Fatalf("fences %d, %d: want one more with each owner", lease.Fence(), next.Fence())
		}
		next.Abandon()
	})
}

func TestLeaseIsRenewedWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		start := time.Now()
		pass(time.Hour)
		row, err := table.Get(t.Context(), key)
		if err != nil || time.Since(row.LastActivity) > 10*time.Second || !row.ClaimedAt.Equal(start) {
			t.Fatalf("row after an hour: %+v, %v", row, err)
		}
		if err := lease.Check(); err != nil {
			t.Fatal(err)
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		row, err = table.Get(t.Context(), key)
		if err != nil || row.Status != claim.Released || row.ContainerID != "" {
			t.Fatalf("row after release: %+v, %v", row, err)
		}
	})
}

func TestTrustEndsBeforeTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		ctx, cancel := lease.Bind(t.Context())
		defer cancel()
		pass(25 * time.Second)
		table.cut.Store(true) // the last renewal began at 20 s
		pass(29*time.Second + 999*time.Millisecond)
		if err := lease.Check(); err != nil {
			t.Fatalf("35 s after the last renewal began: %v", err)
		}
		pass(2 * time.Millisecond)
		synctest.Wait()
		if err := lease.Check(); !errors.Is(err, claim.ErrLeaseLost) {
			t.Fatalf("Check after the trust ended: %v", err)
		}
		if cause := context.Cause(ctx); !errors.Is(cause, claim.ErrLeaseLost) {
			t.Fatalf("cause of a bound context: %v", cause)
		}
	})
}

func TestRenewalWhoseAnswerWasLostIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		table.loseNext.Store(true)
		pass(10 * time.Minute)
		if err := lease.Check(); err != nil {
			t.Fatal(err)
		}
		table.loseNext.Store(true)
		if err := lease.Releasing(t.Context()); err != nil {
			t.Fatalf("Releasing with a lost answer: %v", err)
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLeaseTakenByAnotherIsLostAtTheNextRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer lease.Abandon()
		row, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		taken := row
		taken.ContainerID, taken.Fence = "b", row.Fence+1
		if err := table.Put(t.Context(), taken, row); err != nil {
			t.Fatal(err)
		}
		<-lease.Lost()
		if err := lease.Resume(t.Context()); !errors.Is(err, claim.ErrLeaseLost) {
			t.Fatalf("Resume of a lost lease: %v", err)
		}
	})
}

// Two processes may be given the same container id; the row is only one's.
func TestSameContainerIDTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		var won, held atomic.Int32
		for range 8 {
			go func() {
				l, err := (&claim.Claims{Table: table, ContainerID: "same"}).Acquire(t.Context(), key)
				if err == nil {
					won.Add(1)
					l.Abandon()
				} else if _, ok := errors.AsType[*claim.HeldError](err); ok {
					held.Add(1)
				}
			}()
		}
		synctest.Wait()
		if won.Load() != 1 || held.Load() != 7 {
			t.Fatalf("%d won, %d were told that it is held", won.Load(), held.Load())
		}
	})
}

func TestAcquireWhoseAnswerWasLostIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		table.loseNext.Store(true)
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		pass(time.Minute)
		if err := lease.Check(); err != nil || lease.Unclean() {
			t.Fatalf("unclean %v, %v", lease.Unclean(), err)
		}
		lease.Abandon()
	})
}

// TestADeadOwnersRowBlocksNobody: a project whose owner died is free once the
// row has not moved for the lease's duration on the taker's clock.
func TestADeadOwnersRowBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		dead := acquire(t, &claim.Claims{Table: table, ContainerID: "dead", Now: func() time.Time { return time.Now().Add(7 * time.Hour) }})
		pass(time.Minute)
		dead.Abandon()
		b := &claim.Claims{Table: table, ContainerID: "b", Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }}
		seen := time.Now().Add(-3 * time.Hour)
		if orphans, err := b.Orphans(t.Context()); err != nil || len(orphans) > 0 {
			t.Fatalf("orphans at first sight: %v, %v", orphans, err)
		}
		pass(44 * time.Second)
		if _, err := b.Acquire(t.Context(), key); err == nil {
			t.Fatal("taken before the row stood still for 45 s")
		}
		pass(time.Second)
		if orphans, err := b.Orphans(t.Context()); err != nil || len(orphans) != 1 || orphans[0] != key {
			t.Fatalf("orphans: %v, %v", orphans, err)
		}
		next := acquire(t, b)
		defer next.Abandon()
		if !next.Unclean() || !next.Moved().Equal(seen) || next.Fence() != dead.Fence()+1 {
			t.Fatalf("unclean %v, moved %v, want %v", next.Unclean(), next.Moved(), seen)
		}
	})
}

func TestALivingOwnerIsNoOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		lease := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		b := &claim.Claims{Table: table, ContainerID: "b"}
		for range 100 {
			pass(10 * time.Second)
			if orphans, err := b.Orphans(t.Context()); err != nil || len(orphans) > 0 {
				t.Fatalf("orphans: %v, %v", orphans, err)
			}
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := acquire(t, b)
		defer next.Abandon()
		if next.Unclean() || !next.Moved().IsZero() {
			t.Fatal("a released project was taken over uncleanly")
		}
	})
}

// TestForeignRows: the platform's older containers know neither fence nor rev,
// and any status but active and releasing means that nobody works.
func TestForeignRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		put := func(r claim.Row) {
			t.Helper()
			r.ProjectKey = key
			if err := table.Put(t.Context(), r, claim.Row{}); err != nil {
				t.Fatal(err)
			}
		}
		put(claim.Row{ContainerID: "old", Status: claim.Active, LastActivity: time.Now()})
		b := &claim.Claims{Table: table, ContainerID: "b"}
		pass(5 * time.Minute)
		if err := b.Free(t.Context(), key); err == nil {
			t.Fatal("free although its owner was active five minutes ago")
		}
		pass(time.Millisecond)
		lease := acquire(t, b)
		if row, err := table.Get(t.Context(), key); err != nil || !lease.Unclean() || row.Fence < 946684800 {
			t.Fatalf("unclean %v, row %+v, %v", lease.Unclean(), row, err)
		}
		lease.Abandon()

		table = &claim.Memory{}
		b.Table = table
		put(claim.Row{ContainerID: "old", Status: "stopped", LastActivity: time.Now(), Fence: 7, Rev: 3})
		lease = acquire(t, b)
		if !lease.Unclean() || lease.Fence() != 8 {
			t.Fatalf("unclean %v, fence %d", lease.Unclean(), lease.Fence())
		}
		lease.Abandon()
	})
}

func ExampleClaims() {
	claims := claim.Claims{Table: &claim.Memory{}, ContainerID: "worker-1"}
	ctx := context.Background()
	lease, err := claims.Acquire(ctx, "amelia#scott")
	if err != nil {
		panic(err)
	}
	_, err = claims.Acquire(ctx, "amelia#scott")
	fmt.Println(err)
	if err := lease.Release(ctx); err != nil {
		panic(err)
	}
	// Output: project amelia#scott is active by container worker-1
}
