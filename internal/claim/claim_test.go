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
		if err := lease.Releasing(t.Context()); !errors.Is(err, errNetwork) {
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
