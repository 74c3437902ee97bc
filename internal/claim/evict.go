package claim

import (
	"context"
	"crypto/rand"
	"fmt"
)

// Evict takes a project from whoever has it, for somebody who does not want it
// himself. The row must still be the one that was seen, else ErrMoved.
//
// The owner, if it lives, finds the row changed at its next renewal and ends what it
// does. It may trust its lease until then, or until the trust ends. So the row is not
// released: it says Releasing and moves no more, and a worker takes it when it has
// seen that for the lease's duration, as a dead owner's, with all care for what was
// left unfinished.
func Evict(ctx context.Context, t Table, seen Row) (Row, error) {
	next := seen
	next.Status, next.Tenure = Releasing, rand.Text() // another tenure: the owner must not take it for a write of its own
	next.Rev++
	if err := t.Put(ctx, next, seen); err != nil {
		return seen, fmt.Errorf("take %s from its owner: %w", seen.ProjectKey, err)
	}
	return next, nil
}
