package process

import (
	"context"
	"sync"
)

// turns lets the children of one user run one after the other. The zero value is
// ready.
type turns struct {
	mu    sync.Mutex
	taken map[int]chan struct{} // by user; closed when the turn is over
}

// take waits for the user's turn, and returns what ends it. The error is the cause of
// ctx.
func (t *turns) take(ctx context.Context, user int) (end func(), err error) {
	for {
		other := t.try(user)
		if other == nil {
			return func() { t.end(user) }, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// try takes the turn, or returns what is closed when somebody else's is over.
func (t *turns) try(user int) (other <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if taken, ok := t.taken[user]; ok {
		return taken
	}
	if t.taken == nil {
		t.taken = map[int]chan struct{}{}
	}
	t.taken[user] = make(chan struct{})
	return nil
}

func (t *turns) end(user int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.taken[user])
	delete(t.taken, user)
}

// alone waits until no other child of the same user runs here: under WallUsers, to
// begin and to end one ends whatever that user runs. It returns what lets the next
// one begin.
func (r *Runner) alone(ctx context.Context, a *Access) (end func(), err error) {
	if a == nil || r.Wall != WallUsers {
		return func() {}, nil
	}
	return r.turns.take(ctx, UserID(a.Pair))
}
