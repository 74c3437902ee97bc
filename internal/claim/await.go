package claim

import (
	"context"
	"errors"
	"time"
)

// Await takes a row as soon as it is free, and waits while somebody has it. What
// several wait for goes to any of them. The error is the table's, or the cause of
// ctx.
func (c *Claims) Await(ctx context.Context, key string) (*Lease, error) {
	again := time.NewTicker(c.renewal() / 20)
	defer again.Stop()
	for {
		l, err := c.Acquire(ctx, key)
		if _, held := errors.AsType[*HeldError](err); !held {
			return l, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
