// Package claim is the lease on a project: at most one worker at a time works
// in the workspace of a project and user, and everybody can see who.
//
// A claim is a [Row] in a [Table]. A worker takes it by a conditional write,
// renews it on a timer while it holds it, and never deletes it. It trusts its
// [Lease] for Duration from the start of the last successful renewal, less a
// margin in which the running process tree is killed; when trust ends, what runs
// is cancelled with [ErrLeaseLost]. Each owner has a fence one higher than the
// owner before; journal writes carry it.
package claim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Status is what a row says of its owner.
type Status string

// The states of a row. A row of any other state belongs to nobody.
const (
	Active    Status = "active"    // somebody works, and reads the input queue
	Releasing Status = "releasing" // the owner is looking at the queue a last time
	Released  Status = "released"
)

var (
	// ErrNoRow is returned by Table.Get for a key nobody ever claimed.
	ErrNoRow = errors.New("no claim row")
	// ErrMoved is returned by Table.Put when the row is not what the writer
	// had seen.
	ErrMoved = errors.New("the claim row has changed")
	// ErrLeaseLost is the cause of contexts bound to a lease that is no
	// longer trusted.
	ErrLeaseLost = errors.New("the lease on the project is lost")
)

// Row is the claim on one project and user.
type Row struct {
	ProjectKey   string // projectId#userId
	ContainerID  string // empty when released
	ClaimedAt    time.Time
	LastActivity time.Time
	Status       Status
	Fence        int64 // one more with each owner; the first is the Unix time in seconds
	Rev          int64 // one more with each write by the owner
	Expires      time.Time
}

// Table keeps rows. It may be used by several goroutines at once. Reads are
// consistent. It does not retry; it honours the context. A Put that returned an
// error other than ErrMoved may or may not have happened.
type Table interface {
	// Get returns the row of a key, or ErrNoRow.
	Get(ctx context.Context, key string) (Row, error)
	// Put writes next if the row still has the fence and rev of seen, or, if
	// seen is the zero Row, if there is no row. Else ErrMoved.
	Put(ctx context.Context, next, seen Row) error
}

// HeldError says that a project cannot be taken because somebody has it.
type HeldError struct{ Row Row }

// Error implements error.
func (e *HeldError) Error() string {
	return fmt.Sprintf("project %s is %s by container %s", e.Row.ProjectKey, e.Row.Status, e.Row.ContainerID)
}

// Claims takes leases for one container.
type Claims struct {
	Table       Table
	ContainerID string
	// Duration is how long a lease lasts after its last renewal; zero means
	// 45 s. Trust ends two ninths earlier.
	Duration time.Duration
	// Renewal is the time between renewals; zero means 10 s.
	Renewal time.Duration
	// Now is the clock for trust and for the times in rows; nil means
	// time.Now, whose differences are monotonic.
	Now func() time.Time
	Log *slog.Logger // nil means none
}

// rowLife is how long a row is kept after its last write: beyond the four days
// for which queues keep messages.
const rowLife = 7 * 24 * time.Hour

func (c *Claims) duration() time.Duration { return orDefault(c.Duration, 45*time.Second) }
func (c *Claims) renewal() time.Duration  { return orDefault(c.Renewal, 10*time.Second) }
func (c *Claims) trust() time.Duration    { return c.duration() * 7 / 9 }

func (c *Claims) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Acquire takes a free project: one without a row, or whose row is released. It
// returns a *HeldError if somebody has it. The lease renews itself until Release
// or Abandon.
func (c *Claims) Acquire(ctx context.Context, key string) (*Lease, error) {
	seen, err := c.free(ctx, key)
	if err != nil {
		return nil, err
	}
	start := c.now()
	next := Row{
		ProjectKey: key, ContainerID: c.ContainerID, ClaimedAt: start, LastActivity: start,
		Status: Active, Fence: seen.Fence + 1, Rev: seen.Rev + 1, Expires: start.Add(rowLife),
	}
	if seen == (Row{}) {
		next.Fence = start.Unix()
	}
	next, err = c.write(ctx, next, seen)
	switch {
	case errors.Is(err, ErrMoved):
		return nil, c.held(ctx, key)
	case err != nil:
		return nil, fmt.Errorf("claim %s: %w", key, err)
	}
	return newLease(c, next, start), nil //nolint:contextcheck // a lease outlives the message that brought it
}

// Free returns nil if Acquire would take the project now, and its error if not.
func (c *Claims) Free(ctx context.Context, key string) error {
	_, err := c.free(ctx, key)
	return err
}

func (c *Claims) free(ctx context.Context, key string) (Row, error) {
	seen, err := c.Table.Get(ctx, key)
	switch {
	case errors.Is(err, ErrNoRow):
		return Row{}, nil
	case err != nil:
		return Row{}, fmt.Errorf("read claim of %s: %w", key, err)
	case seen.Status == Active || seen.Status == Releasing:
		return Row{}, &HeldError{Row: seen}
	}
	return seen, nil
}

// held reads who was faster.
func (c *Claims) held(ctx context.Context, key string) error {
	row, err := c.Table.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("read claim of %s: %w", key, err)
	}
	return &HeldError{Row: row}
}

// write puts a row of ours over the one we saw, and returns what it wrote. If
// the answer to an earlier write of this tenure was lost, the row is further
// than we saw, but still ours: then it is written over that.
func (c *Claims) write(ctx context.Context, next, seen Row) (Row, error) {
	err := c.Table.Put(ctx, next, seen)
	if !errors.Is(err, ErrMoved) {
		return next, err
	}
	got, gerr := c.Table.Get(ctx, next.ProjectKey)
	if gerr != nil {
		return next, gerr
	}
	if got.ContainerID != c.ContainerID || got.Fence != next.Fence {
		return next, err
	}
	next.Rev = got.Rev + 1
	return next, c.Table.Put(ctx, next, got)
}
