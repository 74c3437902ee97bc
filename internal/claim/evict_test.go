package claim_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// TestEvictTakesAProjectFromALivingOwner, who trusts its lease no longer when another
// has the project.
func TestEvictTakesAProjectFromALivingOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		a := &claim.Claims{Table: table, ContainerID: "a"}
		b := &claim.Claims{Table: table, ContainerID: "b"}
		old := acquire(t, a)
		defer old.Abandon()
		pass(25 * time.Second)
		seen, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		row, err := claim.Evict(t.Context(), table, seen)
		if err != nil || row.Status != claim.Releasing || row.Fence != seen.Fence || !row.LastActivity.Equal(seen.LastActivity) {
			t.Fatalf("%+v, %v", row, err)
		}
		var held *claim.HeldError
		if err := b.Free(t.Context(), key); !errors.As(err, &held) {
			t.Errorf("right after that it is free: %v", err)
		}
		pass(10 * time.Second) // a renewal
		if err := old.Check(); !errors.Is(err, claim.ErrLeaseLost) {
			t.Errorf("the owner has not noticed: %v", err)
		}
		pass(36 * time.Second)
		next := acquire(t, b)
		defer next.Abandon()
		if !next.Unclean() || next.Fence() != seen.Fence+1 {
			t.Errorf("taken over: unclean %v, fence %d after %d", next.Unclean(), next.Fence(), seen.Fence)
		}
	})
}

// TestEvictOutlastsACutOffOwner: it cannot notice, so the project is not free before
// its trust has ended.
func TestEvictOutlastsACutOffOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &faulty{Table: &claim.Memory{}}
		a := &claim.Claims{Table: table, ContainerID: "a"}
		b := &claim.Claims{Table: table.Table, ContainerID: "b"}
		old := acquire(t, a)
		defer old.Abandon()
		table.cut.Store(true)
		seen, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := claim.Evict(t.Context(), table.Table, seen); err != nil {
			t.Fatal(err)
		}
		for b.Free(t.Context(), key) != nil {
			pass(time.Second)
		}
		if err := old.Check(); !errors.Is(err, claim.ErrLeaseLost) {
			t.Errorf("two trust their leases: %v", err)
		}
	})
}

// TestEvictWantsTheRowAsItWasSeen.
func TestEvictWantsTheRowAsItWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		l := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		defer l.Abandon()
		seen, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		pass(11 * time.Second)
		if _, err := claim.Evict(t.Context(), table, seen); !errors.Is(err, claim.ErrMoved) {
			t.Errorf("a row that has moved: %v", err)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}
