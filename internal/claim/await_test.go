package claim_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
)

func TestAwaitTakesWhatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		first := acquire(t, &claim.Claims{Table: table, ContainerID: "a"})
		began := time.Now()
		time.AfterFunc(time.Minute, func() {
			if err := first.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
		l, err := (&claim.Claims{Table: table, ContainerID: "b"}).Await(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Abandon()
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second || l.Unclean() {
			t.Errorf("taken after %v, unclean %v", took, l.Unclean())
		}
	})
}

func TestAwaitTakesWhatADeadOwnerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		acquire(t, &claim.Claims{Table: table, ContainerID: "a"}).Abandon()
		began := time.Now()
		l, err := (&claim.Claims{Table: table, ContainerID: "b"}).Await(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Abandon()
		if took := time.Since(began); took < 45*time.Second || took > 46*time.Second || !l.Unclean() {
			t.Errorf("taken after %v, unclean %v", took, l.Unclean())
		}
	})
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		defer acquire(t, &claim.Claims{Table: table, ContainerID: "a"}).Abandon()
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		time.AfterFunc(time.Minute, func() { cancel(enough) })
		l, err := (&claim.Claims{Table: table, ContainerID: "b"}).Await(ctx, key)
		if l != nil || !errors.Is(err, enough) {
			t.Errorf("got %v and %v", l, err)
		}
	})
}

// A take that is cut off might have succeeded, and would block others.
func TestAwaitFinishesATakeThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Table: &claim.Memory{}}
		ctx, cancel := context.WithCancel(t.Context())
		h.onPut(func(ctx context.Context, _ claim.Row) error {
			cancel()
			return context.Cause(ctx)
		})
		l, err := (&claim.Claims{Table: h, ContainerID: "b"}).Await(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAwaitFailsWithItsTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Table: &claim.Memory{}}
		h.onGet(func() error { return errNetwork })
		if _, err := (&claim.Claims{Table: h, ContainerID: "b"}).Await(t.Context(), key); !errors.Is(err, errNetwork) {
			t.Errorf("got %v", err)
		}
	})
}

// Whoever is beaten to it again and again waits on.
func TestAwaitOutlastsTheFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Table: &claim.Memory{}}
		beaten := 0
		h.onPut(func(ctx context.Context, _ claim.Row) error {
			if beaten++; beaten > 10 {
				return nil
			}
			seen, err := h.Table.Get(ctx, key)
			if err != nil && !errors.Is(err, claim.ErrNoRow) {
				return err
			}
			theirs := seen
			theirs.ProjectKey, theirs.Status, theirs.Tenure = key, claim.Released, "theirs"
			theirs.Fence, theirs.Rev = seen.Fence+1, seen.Rev+1
			return h.Table.Put(ctx, theirs, seen)
		})
		l, err := (&claim.Claims{Table: h, ContainerID: "b"}).Await(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		l.Abandon()
	})
}

func TestOneOfManyWhoAwaitIsTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &claim.Memory{}
		owners := make(chan *claim.Lease)
		const n = 5
		for range n {
			go func() {
				l, err := (&claim.Claims{Table: table, ContainerID: "x"}).Await(t.Context(), key)
				if err != nil {
					t.Error(err)
				}
				owners <- l
			}()
		}
		for i := range n {
			l := <-owners
			pass(time.Minute)
			select {
			case <-owners:
				t.Fatal("two at a time")
			default:
			}
			if err := l.Release(t.Context()); err != nil {
				t.Error(i, err)
			}
		}
	})
}
