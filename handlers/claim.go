package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// resendDelay is how long a claim request rests that cannot be met now.
const resendDelay = 5 * time.Second

// Queues is what Claim needs to send.
type Queues interface {
	// Forward puts a command into the input queue of its pair.
	Forward(ctx context.Context, m protocol.InputMessage) error
	// Resend puts a claim request into the unclaimed queue, to be delivered
	// after a delay.
	Resend(ctx context.Context, c protocol.ClaimRequest, delay time.Duration) error
}

// Claim takes projects for this worker. It may be called by several goroutines.
type Claim struct {
	Claims *claim.Claims
	Names  protocol.Names
	Queues Queues
	// Reserve takes a place for one more claim; false if there is none. Each
	// reserved place is given to Open or back to Unreserve.
	Reserve   func() bool
	Unreserve func()
	// Open begins to work on a claimed project. It must not wait for that
	// work. If it fails, the lease is given up.
	Open func(ctx context.Context, p protocol.Pair, l *claim.Lease) error
	// Claimed is told of each project that was taken, how long that took, and
	// whether its owner was dead; nil means nobody is.
	Claimed func(ctx context.Context, p protocol.Pair, took time.Duration, unclean bool)
}

// Handle meets a claim request. Once it returns nil, the work that came with the
// request is in the input queue, and somebody reads that queue or will be asked
// to. An error is a *StepError that is Permanent, or something to try again.
func (h *Claim) Handle(ctx context.Context, c protocol.ClaimRequest) error {
	if err := h.Names.Check(c.Pair()); err != nil {
		return failureOf(err)
	}
	taken, err := h.take(ctx, c.Pair())
	var held *claim.HeldError
	switch {
	case err == nil && taken:
		return h.forward(ctx, c)
	case err == nil: // no room here; another worker has some, or we will
		return h.resend(ctx, c)
	case errors.As(err, &held) && held.Row.Status == claim.Releasing:
		return h.resend(ctx, c)
	case errors.As(err, &held): // somebody lives who reads the queue
		return h.forward(ctx, c)
	}
	return err
}

// Adopt takes a project whose owner is dead, as nobody asks for it. It reports
// false if there is no room, or somebody has it by now.
func (h *Claim) Adopt(ctx context.Context, p protocol.Pair) (bool, error) {
	taken, err := h.take(ctx, p)
	if _, held := errors.AsType[*claim.HeldError](err); held {
		return false, nil
	}
	return taken, err
}

// take claims a project and opens it; false if there is no room.
func (h *Claim) take(ctx context.Context, p protocol.Pair) (bool, error) {
	if !h.Reserve() {
		return false, h.Claims.Free(ctx, p.Key())
	}
	began := time.Now()
	lease, err := h.Claims.Acquire(ctx, p.Key())
	if err != nil {
		h.Unreserve()
		return false, err
	}
	if err := h.Open(ctx, p, lease); err != nil {
		h.Unreserve()
		if lease.Unclean() { // the next owner must know, too
			lease.Abandon()
			return false, err
		}
		return false, errors.Join(err, lease.Release(ctx))
	}
	if h.Claimed != nil {
		h.Claimed(ctx, p, time.Since(began), lease.Unclean())
	}
	return true, nil
}

func (h *Claim) resend(ctx context.Context, c protocol.ClaimRequest) error {
	if err := h.forward(ctx, c); err != nil {
		return err
	}
	c.Work = nil
	return h.Queues.Resend(ctx, c, resendDelay)
}

func (h *Claim) forward(ctx context.Context, c protocol.ClaimRequest) error {
	if c.Work == nil {
		return nil
	}
	return h.Queues.Forward(ctx, *c.Work)
}
