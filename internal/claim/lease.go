package claim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Lease is a claim that is ours. Its methods may be called from several
// goroutines.
type Lease struct {
	// immutable
	claims *Claims
	fence  int64
	key    string
	taken  freed         // what was there before
	lost   chan struct{} // closed when trust ends
	stop   chan struct{} // closed when renewing shall end
	ended  chan struct{} // closed when renewing has ended

	writing sync.Mutex // one write of the row at a time

	mu      sync.Mutex // guards what follows
	row     Row
	until   time.Time // trusted until then
	isLost  bool
	isEnded bool
}

func newLease(c *Claims, row Row, start time.Time, taken freed) *Lease {
	l := &Lease{
		claims: c, fence: row.Fence, key: row.ProjectKey, taken: taken, row: row, until: start.Add(c.trust()),
		lost: make(chan struct{}), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	go l.renew()
	return l
}

// Key returns the project key, projectId#userId.
func (l *Lease) Key() string { return l.key }

// Fence returns the number of this tenure, under which the journal is written.
func (l *Lease) Fence() int64 { return l.fence }

// Unclean reports whether the owner before did not release the project: it
// crashed, is frozen, or was cut off. What it held may be invisible in the queue
// for a while, and what it left in the checkout is unfinished.
func (l *Lease) Unclean() bool { return l.taken.unclean }

// Moved is when the former owner's row was first seen as it was taken: since
// then, by our clock, that owner renewed nothing. It is zero for a lease that is
// not Unclean, and where nothing is known.
func (l *Lease) Moved() time.Time { return l.taken.moved }

// Unseen is how long what the former owner had received may still be invisible in
// its queue, if a received message is invisible for so long without its owner. It
// is nothing where the project was released.
func (l *Lease) Unseen(visibility time.Duration) time.Duration {
	if l.taken.moved.IsZero() {
		return 0
	}
	return max(visibility+l.claims.renewal()-l.claims.now().Sub(l.taken.moved), 0)
}

// Left is how long the lease will be trusted if no renewal succeeds; nothing or
// less if it is lost.
func (l *Lease) Left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost {
		return 0
	}
	return l.until.Sub(l.claims.now())
}

// Lost is closed when the lease is no longer trusted.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Check returns ErrLeaseLost if the lease is no longer trusted. It is asked
// before each call that cannot be taken back.
func (l *Lease) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost || !l.claims.now().Before(l.until) {
		return ErrLeaseLost
	}
	return nil
}

// Bind returns a context that ends, with the cause ErrLeaseLost, when trust
// ends: no call made under it outlives the trust.
func (l *Lease) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-l.lost:
			cancel(ErrLeaseLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// Releasing says in the row that the owner is about to leave. From here on
// whoever sends work sends a claim request too.
func (l *Lease) Releasing(ctx context.Context) error { return l.set(ctx, Releasing) }

// Resume takes Releasing back.
func (l *Lease) Resume(ctx context.Context) error { return l.set(ctx, Active) }

// Release gives the project up and ends the renewals. The lease is of no use
// afterwards, whatever Release returns.
func (l *Lease) Release(ctx context.Context) error {
	l.end()
	defer l.lose()
	return l.set(ctx, Released)
}

// Abandon ends the renewals and leaves the row as it is. Somebody who sees it
// unmoved for the lease's duration may take it.
func (l *Lease) Abandon() {
	l.end()
	l.lose()
}

func (l *Lease) end() {
	l.mu.Lock()
	if !l.isEnded {
		l.isEnded = true
		close(l.stop)
	}
	l.mu.Unlock()
	<-l.ended
}

func (l *Lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLost {
		l.isLost = true
		close(l.lost)
	}
}

// set writes the row with a status. It fails if we are not the owner.
func (l *Lease) set(ctx context.Context, s Status) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	start := l.claims.now()
	l.mu.Lock()
	seen := l.row
	l.mu.Unlock()

	next := seen
	next.Status, next.LastActivity, next.Expires = s, start, start.Add(rowLife)
	next.Rev++
	if s == Released {
		next.ContainerID = ""
	}
	next, err := l.claims.write(ctx, next, seen)
	switch {
	case errors.Is(err, ErrMoved):
		l.lose()
		return fmt.Errorf("claim %s: %w", l.key, ErrLeaseLost)
	case err != nil:
		return fmt.Errorf("write claim %s: %w", l.key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.row, l.until = next, start.Add(l.claims.trust())
	return nil
}

// renew keeps the row moving until stop, and ends the trust when it could not
// be renewed in time.
func (l *Lease) renew() {
	defer close(l.ended)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-l.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(l.claims.renewal())
	defer tick.Stop()
	for {
		l.mu.Lock()
		left := l.until.Sub(l.claims.now())
		l.mu.Unlock()
		expiry := time.NewTimer(left)
		select {
		case <-l.stop:
			expiry.Stop()
			return
		case <-expiry.C:
			l.lose()
			return
		case <-tick.C:
			expiry.Stop()
			if !l.renewOnce(ctx, left) {
				return
			}
		}
	}
}

// renewOnce renews within what is left of the trust; false if it is lost.
func (l *Lease) renewOnce(ctx context.Context, left time.Duration) bool {
	// One that hangs leaves time for another, on a connection that works.
	ctx, cancel := context.WithTimeout(ctx, min(left, l.claims.renewal()))
	defer cancel()
	l.mu.Lock()
	status := l.row.Status
	l.mu.Unlock()
	err := l.set(ctx, status)
	if err != nil && l.claims.Log != nil && ctx.Err() == nil {
		l.claims.Log.WarnContext(ctx, "lease not renewed", slog.String("project_key", l.key), slog.Any("error", err))
	}
	return !errors.Is(err, ErrLeaseLost)
}
