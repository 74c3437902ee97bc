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
	taken  freed              // what was there before
	lost   chan struct{}      // closed when trust ends
	stop   context.CancelFunc // ends renewing
	ended  chan struct{}      // closed when renewing has ended

	writing chan struct{} // holds one token: one write of the row at a time

	mu     sync.Mutex // guards what follows
	row    Row
	until  time.Time   // trusted until then
	expiry *time.Timer // looks at the trust when it should be over
	isLost bool
}

func newLease(c *Claims, row Row, start time.Time, taken freed) *Lease {
	ctx, stop := context.WithCancel(context.Background())
	l := &Lease{
		claims: c, fence: row.Fence, key: row.ProjectKey, taken: taken, row: row, until: start.Add(c.trust()),
		lost: make(chan struct{}), stop: stop, ended: make(chan struct{}),
		writing: make(chan struct{}, 1),
	}
	left := l.until.Sub(c.now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expiry = time.AfterFunc(left, l.expire)
	go l.renew(ctx)
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
	_, left := l.state()
	return left
}

// Lost is closed when the lease is no longer trusted.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Check returns ErrLeaseLost if the lease is no longer trusted. It is asked
// before each call that cannot be taken back.
func (l *Lease) Check() error {
	if l.Left() <= 0 {
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

// Release gives the project up and ends the renewals. The lease is not trusted
// from its start on, and of no use afterwards, whatever Release returns. A lease
// that is lost already is left as it is.
func (l *Lease) Release(ctx context.Context) error {
	l.end()
	l.writing <- struct{}{} // a write of ours may be under way; it ends with the trust
	defer func() { <-l.writing }()
	seen, left := l.state()
	// Once the row says released another may take it, before we see the answer.
	l.lose()
	if left <= 0 {
		return fmt.Errorf("claim %s: %w", l.key, ErrLeaseLost)
	}
	_, err := l.write(ctx, seen, Released)
	return err
}

// Abandon ends the renewals and leaves the row as it is. Somebody who sees it
// unmoved for the lease's duration may take it.
func (l *Lease) Abandon() {
	l.end()
	l.lose()
}

func (l *Lease) end() {
	l.stop()
	<-l.ended
}

func (l *Lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLost {
		l.isLost = true
		l.expiry.Stop()
		close(l.lost)
	}
}

// expire ends the trust when it is over. It is apart from the renewals, which
// may hang.
func (l *Lease) expire() {
	_, left := l.state()
	if left <= 0 {
		l.lose()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLost {
		l.expiry.Reset(left)
	}
}

// state returns the row as it was last written, and what is left of the trust.
func (l *Lease) state() (Row, time.Duration) {
	now := l.claims.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost {
		return l.row, 0
	}
	return l.row, l.until.Sub(now)
}

// set writes the row with a status; an empty one stays what it is. It fails if
// we are not the owner, and where trust ended before the answer came: who looked
// in between was told that the lease is lost, and that is not taken back.
func (l *Lease) set(ctx context.Context, s Status) error {
	select {
	case l.writing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("write claim %s: %w", l.key, context.Cause(ctx))
	}
	defer func() { <-l.writing }()
	seen, left := l.state()
	if left <= 0 {
		l.lose()
		return fmt.Errorf("claim %s: %w", l.key, ErrLeaseLost)
	}
	if s == "" {
		s = seen.Status
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	next, err := l.write(ctx, seen, s)
	if err != nil {
		return err
	}
	if _, left := l.state(); left <= 0 {
		l.lose()
		return fmt.Errorf("claim %s: %w", l.key, ErrLeaseLost)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.row, l.until = next, next.LastActivity.Add(l.claims.trust())
	return nil
}

// write puts the row with a status over the one that was seen. Its last activity
// is when the write began.
func (l *Lease) write(ctx context.Context, seen Row, s Status) (Row, error) {
	start := l.claims.now()
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
		return next, fmt.Errorf("claim %s: %w", l.key, ErrLeaseLost)
	case err != nil:
		return next, fmt.Errorf("write claim %s: %w", l.key, err)
	}
	return next, nil
}

// renew keeps the row moving until ctx ends or the lease is lost. What failed is
// tried again soon.
func (l *Lease) renew(ctx context.Context) {
	defer close(l.ended)
	renewal := l.claims.renewal()
	timer := time.NewTimer(renewal)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.lost:
			return
		case <-timer.C:
		}
		began := time.Now()
		next := renewal
		if err := l.renewOnce(ctx); errors.Is(err, ErrLeaseLost) {
			return
		} else if err != nil {
			next = 0
		}
		timer.Reset(max(next-time.Since(began), renewal/10))
	}
}

func (l *Lease) renewOnce(ctx context.Context) error {
	// One that hangs leaves time for another, on a connection that works.
	once, cancel := context.WithTimeout(ctx, l.claims.renewal())
	defer cancel()
	err := l.set(once, "")
	if err != nil && l.claims.Log != nil && ctx.Err() == nil {
		l.claims.Log.WarnContext(ctx, "lease not renewed", slog.String("project_key", l.key), slog.Any("error", err))
	}
	return err
}
