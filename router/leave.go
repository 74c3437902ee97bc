package router

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// leave gives an idle project up, unless work arrives at the last moment: false.
//
// First no receive begins, and the one under way ends. Then the row says
// releasing: whoever sends from here on asks for a claim too. Whoever sent before,
// and read that somebody works, has put the message into the queue by then, or
// within the lag of his read; one more receive, a look of some seconds, finds it.
// Only then the row says released. A crash at any line leaves a row that does not
// move any more, which is found by the sweep.
func (t *tenure) leave(ctx context.Context) bool {
	t.polls.hold(ctx)
	if t.lane.Pause() > 0 {
		t.stay()
		return false
	}
	if err := t.lease.Releasing(ctx); err != nil {
		t.warn("project not released", err)
		t.rest()
		t.stay()
		return false
	}
	t.polls.look(ctx)
	if t.lane.Pause() > 0 {
		if t.resume(ctx) {
			t.stay()
		}
		return false // or the lease is lost
	}
	t.close(ctx)
	t.announceUnseen(ctx)
	t.release(ctx)
	return true
}

func (t *tenure) stay() {
	t.lane.Resume()
	t.polls.resume()
}

// resume makes the row active again; false if the lease is lost.
func (t *tenure) resume(ctx context.Context) bool {
	for {
		err := t.lease.Resume(ctx)
		switch {
		case err == nil:
			return true
		case errors.Is(err, claim.ErrLeaseLost), t.lease.Check() != nil:
			return false
		}
		t.warn("claim row not written", err)
		t.rest()
	}
}

// rest is a pause before something is tried again.
func (t *tenure) rest() {
	pause := time.NewTimer(time.Second)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-t.r.stopping:
	case <-t.lease.Lost():
	}
}

// announceDelay is the time in which a row becomes released that others are asked to
// take: who gets the request before would send it on, for five seconds.
const announceDelay = time.Second

// shutDown hands back what waits, lets the running job finish for a while, cuts
// it, and announces that there may be work. It does not look: another worker does.
func (t *tenure) shutDown() {
	ctx := t.r.last
	pairs := t.waiting()
	cut := time.AfterFunc(time.Until(t.r.stopped.Add(t.r.config.ShutdownGrace-10*time.Second)), func() {
		t.lane.Cancel(handlers.ErrShutdown)
		t.cutOff(handlers.ErrShutdown)
	})
	defer cut.Stop()
	t.close(ctx)
	if ctx.Err() != nil { // the row stands still: the project is the sweep's
		t.lease.Abandon()
		return
	}
	if err := t.lease.Releasing(ctx); err != nil {
		t.warn("claim row not written", err)
	}
	for _, p := range pairs {
		t.announce(ctx, p, announceDelay)
	}
	t.announceUnseen(ctx)
	t.release(ctx)
}

// waiting are the pairs whose messages the lane holds; ours if there are none. Two
// pairs can share a queue: what is found there is announced under its own name.
func (t *tenure) waiting() []protocol.Pair {
	seen := map[protocol.Pair]bool{}
	var pairs []protocol.Pair
	for _, item := range t.lane.Held() {
		in, _ := item.Value.(received)
		if in.command == nil || seen[in.command.Pair()] || in.command.Pair().Validate() != nil {
			continue
		}
		seen[in.command.Pair()] = true
		pairs = append(pairs, in.command.Pair())
	}
	if len(pairs) == 0 {
		return []protocol.Pair{t.pair}
	}
	return pairs
}

// announceUnseen asks for a claim at a time when all messages are visible again,
// if there may be some that nobody could see.
func (t *tenure) announceUnseen(ctx context.Context) {
	if t.unsure.Load() {
		t.announce(ctx, t.pair, t.r.config.Visibility+10*time.Second)
	}
}

func (t *tenure) announce(ctx context.Context, p protocol.Pair, delay time.Duration) {
	if err := t.r.Resend(ctx, protocol.ClaimRequest{ProjectID: p.ProjectID, UserID: p.UserID}, delay); err != nil {
		t.warn("project not announced", err)
	}
}

// lose ends a tenure whose lease ran out. What it held is somebody else's.
func (t *tenure) lose() {
	t.lane.Cancel(claim.ErrLeaseLost)
	t.r.count(t.r.last, metric.LeaseLosses, 1)
	t.close(t.r.last)
	t.lease.Abandon()
	t.warn("project lost", claim.ErrLeaseLost)
}

// close ends the subscriptions and waits until the Router has dropped them; when
// ctx ends, it waits no longer.
func (t *tenure) close(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.interrupts.close()
		t.lane.Close() //nolint:errcheck // it cannot fail
		<-t.handler.Stopped()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	t.tidy.stop()
	t.tell(handlers.Step{Name: handlers.StepReleased})
}

func (t *tenure) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := t.lease.Release(ctx); err != nil {
		t.warn("project not released", err)
		return
	}
	t.log.Info("project released") //nolint:sloglint // no context belongs to it
}

func (t *tenure) warn(what string, err error) {
	t.log.Warn(what, slog.Any("error", err)) //nolint:sloglint // no message's context belongs to it, and what is one of a few
}
