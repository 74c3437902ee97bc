// Package claim is the lease on a project: at most one worker at a time works
// in the workspace of a project and user, and everybody can see who.
//
// A claim is a [Row] in a [Table]. A worker takes it by a conditional write,
// renews it on a timer while it holds it, and never deletes it. It trusts its
// [Lease] for Duration from the start of the last successful renewal, less a
// margin in which the running process tree is killed; when trust ends, what runs
// is cancelled with [ErrLeaseLost]. Each owner has a fence one higher than the
// owner before; journal writes carry it.
//
// A row is free when there is none, when it is released, or when its owner is
// dead: the row has not moved for Duration on the clock of whoever wants it. Clocks
// of two machines are never compared. [Claims.Orphans] finds the dead.
package claim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	Rev          int64 // one more with each write by the owner; 0 in a row that is not ours
	// Tenure is drawn anew by each taker. It tells two takers apart that have
	// the same container id.
	Tenure  string
	Expires time.Time
}

// foreign reports whether the row was written by something that does not know
// fence and rev.
func (r Row) foreign() bool { return r.Rev == 0 }

// Table keeps rows. It may be used by several goroutines at once. Reads are
// consistent. It tries nothing again for longer than a few seconds; it honours the
// context. A Put that returned an error other than ErrMoved may or may not have
// happened, and may still happen.
type Table interface {
	// Get returns the row of a key, or ErrNoRow.
	Get(ctx context.Context, key string) (Row, error)
	// Put writes next if the row still has the fence and rev of seen, or, if
	// seen is the zero Row, if there is no row. Where seen has no rev, the row
	// must have none either, and the same last activity. Else ErrMoved.
	Put(ctx context.Context, next, seen Row) error
	// Live returns the rows that name a container. It may lag behind what was
	// written.
	Live(ctx context.Context) ([]Row, error)
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
	// NewTenure draws a Row's Tenure; nil means crypto/rand.
	NewTenure func() string
	Log       *slog.Logger // nil means none

	mu    sync.Mutex
	sight map[string]sighting // by key: rows that somebody has
}

// sighting is when a row was first seen to be as it is.
type sighting struct {
	fence, rev int64
	first      time.Time
}

// foreignLife is when the owner of a row without rev counts as dead, by the
// platform's rule.
const foreignLife = 5 * time.Minute

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

// Acquire takes a free project. It returns a *HeldError if somebody has it. The
// lease renews itself until Release or Abandon.
func (c *Claims) Acquire(ctx context.Context, key string) (*Lease, error) {
	var err error
	for range 3 { // who was faster may have gone again
		var f freed
		if f, err = c.free(ctx, key); err != nil {
			return nil, err
		}
		var l *Lease
		if l, err = c.take(ctx, key, f); !errors.Is(err, ErrMoved) {
			return l, err
		}
	}
	return nil, err
}

// take takes a row that is free; ErrMoved if another was faster.
func (c *Claims) take(ctx context.Context, key string, f freed) (*Lease, error) {
	start := c.now()
	next := Row{
		ProjectKey: key, ContainerID: c.ContainerID, ClaimedAt: start, LastActivity: start,
		Status: Active, Fence: f.row.Fence + 1, Rev: f.row.Rev + 1, Tenure: c.tenure(), Expires: start.Add(rowLife),
	}
	if f.row.Fence == 0 {
		next.Fence = start.Unix()
	}
	next, err := c.write(ctx, next, f.row)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", key, err)
	}
	c.forget(key)
	return newLease(c, next, start, f), nil //nolint:contextcheck // a lease outlives the message that brought it
}

// Free returns nil if Acquire would take the project now, and its error if not.
func (c *Claims) Free(ctx context.Context, key string) error {
	_, err := c.free(ctx, key)
	return err
}

// freed is a row that may be taken.
type freed struct {
	row     Row       // zero if there is none
	unclean bool      // its owner did not release it
	moved   time.Time // when it was first seen as it is; zero if not known
}

func (c *Claims) free(ctx context.Context, key string) (freed, error) {
	row, err := c.Table.Get(ctx, key)
	switch {
	case errors.Is(err, ErrNoRow):
		return freed{}, nil
	case err != nil:
		return freed{}, fmt.Errorf("read claim of %s: %w", key, err)
	case row.Status == Released:
		return freed{row: row}, nil
	case row.Status != Active && row.Status != Releasing:
		return freed{row: row, unclean: true}, nil
	case row.foreign():
		if c.now().Sub(row.LastActivity) > foreignLife {
			return freed{row: row, unclean: true}, nil
		}
		return freed{}, &HeldError{Row: row}
	}
	first := c.saw(row)
	if c.now().Sub(first) < c.duration() {
		return freed{}, &HeldError{Row: row}
	}
	return freed{row: row, unclean: true, moved: first}, nil
}

// saw returns when a row was first seen as it is.
func (c *Claims) saw(row Row) time.Time {
	now := c.now() // after the read: a row that moved during it moved before now
	c.mu.Lock()
	defer c.mu.Unlock()
	was, ok := c.sight[row.ProjectKey]
	if ok && was.fence == row.Fence && was.rev == row.Rev {
		return was.first
	}
	if c.sight == nil {
		c.sight = map[string]sighting{}
	}
	c.sight[row.ProjectKey] = sighting{fence: row.Fence, rev: row.Rev, first: now}
	return now
}

func (c *Claims) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sight, key)
}

// Orphans looks at all rows that somebody has and returns the keys of those that
// Acquire would take: their owners are dead. It is to be called every few seconds,
// as only what was seen before can be seen not to move.
func (c *Claims) Orphans(ctx context.Context) ([]string, error) {
	rows, err := c.Table.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for dead owners: %w", err)
	}
	c.prune(rows)
	var orphans []string
	for _, row := range rows {
		if !c.suspect(row) {
			continue
		}
		f, err := c.free(ctx, row.ProjectKey) // the index may lag; a read by key does not
		var held *HeldError
		switch {
		case errors.As(err, &held):
		case err != nil:
			return orphans, err
		case f.unclean:
			orphans = append(orphans, row.ProjectKey)
		}
	}
	return orphans, nil
}

// suspect reports whether a row, as the index has it, looks like a dead owner's.
func (c *Claims) suspect(row Row) bool {
	if row.foreign() {
		return c.now().Sub(row.LastActivity) > foreignLife
	}
	return c.now().Sub(c.saw(row)) >= c.duration()
}

// prune forgets the rows that nobody has any more.
func (c *Claims) prune(live []Row) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	there := make(map[string]bool, len(live))
	for _, row := range live {
		there[row.ProjectKey] = true
	}
	for key, s := range c.sight {
		if !there[key] && now.Sub(s.first) > 2*c.duration() {
			delete(c.sight, key)
		}
	}
}

// write puts a row of ours over the one we saw, and returns what it wrote. If
// the answer to an earlier write of this tenure was lost, the row is further
// than we saw, but still ours: then it is written over that. ErrMoved means that
// it is another's.
func (c *Claims) write(ctx context.Context, next, seen Row) (Row, error) {
	err := c.Table.Put(ctx, next, seen)
	for range 3 { // a write without an answer may still be on its way
		if err == nil {
			return next, nil
		}
		got, gerr := c.Table.Get(ctx, next.ProjectKey)
		switch {
		case errors.Is(gerr, ErrNoRow):
			return next, err
		case gerr != nil && errors.Is(err, ErrMoved):
			return next, fmt.Errorf("read who wrote it: %w", gerr)
		case gerr != nil:
			return next, err
		case got.Tenure == next.Tenure && got.Fence == next.Fence:
			next.Rev, seen = got.Rev+1, got
			err = c.Table.Put(ctx, next, seen)
		case got.is(seen):
			return next, err
		default:
			return next, ErrMoved
		}
	}
	return next, err
}

func (c *Claims) tenure() string {
	if c.NewTenure == nil {
		return rand.Text()
	}
	return c.NewTenure()
}
