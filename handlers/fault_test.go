package handlers

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
)

var (
	errKilled   = errors.New("killed")
	errNoAnswer = errors.New("no answer")
)

// fault is what happens to a worker at one of its calls of the bucket, the
// journal or the claims.
type fault struct {
	of   string // bucket, journal or claims
	at   int    // which call of it, from 1
	what string
}

const (
	killedBefore = "killed before it"
	killedAfter  = "killed after it"
	noAnswer     = "its answer is lost"
	frozen       = "frozen before it is sent"
	late         = "frozen, and what was sent before takes effect at the end"
)

// deployer is a worker as a process: it can be killed or frozen.
type deployer struct {
	w     *turnWorld
	fault fault

	mu    sync.Mutex
	calls map[string]int
	dead  bool
	thaw  time.Time
}

// call makes a call as the fault allows it.
func (d *deployer) call(ctx context.Context, of string, request func(ctx context.Context) error) error {
	d.mu.Lock()
	d.calls[of]++
	what := ""
	if of == d.fault.of && d.calls[of] == d.fault.at {
		what = d.fault.what
	}
	switch what {
	case killedBefore:
		d.dead = true
	case frozen, late:
		d.thaw = time.Now().Add(100 * time.Second)
	}
	dead, pause := d.dead, time.Until(d.thaw)
	d.mu.Unlock()
	if dead {
		return errKilled
	}
	if pause > 0 {
		<-time.After(pause)
	}
	if what == late {
		return request(context.WithoutCancel(ctx))
	}
	err := request(ctx)
	switch what {
	case killedAfter:
		d.mu.Lock()
		d.dead = true
		d.mu.Unlock()
		return errKilled
	case noAnswer:
		return errNoAnswer
	}
	return err
}

func (d *deployer) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// faultyTable, faultyStore and faultyBucket are what a deployer calls.
type (
	faultyTable struct {
		claim.Table
		d *deployer
	}
	faultyStore  struct{ d *deployer }
	faultyBucket struct{ d *deployer }
)

func (t faultyTable) Get(ctx context.Context, key string) (row claim.Row, err error) {
	err = t.d.call(ctx, "claims", func(ctx context.Context) error {
		row, err = t.Table.Get(ctx, key)
		return err
	})
	return row, err
}

func (t faultyTable) Put(ctx context.Context, next, seen claim.Row) error {
	return t.d.call(ctx, "claims", func(ctx context.Context) error { return t.Table.Put(ctx, next, seen) })
}

func (s faultyStore) Get(ctx context.Context, key string) (r journal.Record, err error) {
	err = s.d.call(ctx, "journal", func(ctx context.Context) error {
		r, err = s.d.w.store.Get(ctx, key)
		return err
	})
	return r, err
}

func (s faultyStore) Put(ctx context.Context, r journal.Record, f journal.Fence) error {
	return s.d.call(ctx, "journal", func(ctx context.Context) error {
		err := s.d.w.store.Put(ctx, r, f)
		if err == nil {
			s.d.w.saw(ctx)
		}
		return err
	})
}

func (b faultyBucket) List(ctx context.Context) (objects []deploy.Object, err error) {
	err = b.d.call(ctx, "bucket", func(ctx context.Context) error {
		objects, err = b.d.w.bucket.List(ctx)
		return err
	})
	return objects, err
}

func (b faultyBucket) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (etag string, err error) {
	err = b.d.call(ctx, "bucket", func(ctx context.Context) error {
		etag, err = b.d.w.bucket.Put(ctx, o, body, c)
		return err
	})
	return etag, err
}

func (b faultyBucket) Delete(ctx context.Context, keys ...string) error {
	return b.d.call(ctx, "bucket", func(ctx context.Context) error { return b.d.w.bucket.Delete(ctx, keys...) })
}
