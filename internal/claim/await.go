package claim

import (
	"context"
	"errors"
	"time"
)

// Await takes a row as soon as it is free, and waits while somebody has it. What
// several wait for goes to any of them. The error is the table's, or the cause of
// ctx. When ctx ends, a take that is under way is brought to its end, and may still
// succeed: if it were cut off it might have, and nobody would give the row up.
func (c *Claims) Await(ctx context.Context, key string) (*Lease, error) {
	again := time.NewTicker(c.renewal() / 20)
	defer again.Stop()
	for ctx.Err() == nil {
		l, err := c.Acquire(context.WithoutCancel(ctx), key)
		if _, held := errors.AsType[*HeldError](err); !held && !errors.Is(err, ErrMoved) {
			return l, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
	return nil, context.Cause(ctx)
}
