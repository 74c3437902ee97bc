package router

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// sweep looks for projects whose owners are dead, until the worker leaves. Busy
// workers look too: what they cannot take they count.
func (r *Router) sweep(ctx context.Context) {
	for {
		// Workers that began together do not go on looking together.
		interval := time.Duration((0.75 + rand.Float64()/2) * float64(r.config.SweepInterval)) //nolint:gosec // no secret
		pause := time.NewTimer(interval)
		select {
		case <-pause.C:
		case <-r.stopping:
			pause.Stop()
			return
		case <-ctx.Done():
			pause.Stop()
			return
		}
		r.sweepOnce(ctx)
	}
}

// sweepOnce takes what it can, and tells how many projects are left without an
// owner: more workers are needed.
func (r *Router) sweepOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.config.SweepInterval)
	defer cancel()
	keys, err := r.config.Claims.Orphans(ctx)
	if err != nil {
		r.config.Log.WarnContext(ctx, "no look for dead owners", slog.Any("error", err))
		return
	}
	left := 0
	for _, key := range keys {
		if handlers.IsBucket(key) { // a dead worker's turn; the next deploy repairs what it left
			r.freeBucket(ctx, key)
			continue
		}
		pair, err := protocol.ParseKey(key)
		if err == nil {
			err = r.config.Names.Check(pair)
		}
		if err != nil {
			r.config.Log.WarnContext(ctx, "claim row with a key that no project has", slog.String("project_key", key))
			continue
		}
		taken, err := r.claim.Adopt(ctx, pair)
		switch {
		case err != nil:
			r.config.Log.WarnContext(ctx, "dead owner's project not taken", slog.String("project_key", key), slog.Any("error", err))
			left++
		case !taken:
			left++
		}
	}
	r.metrics.Write(ctx, nil, metric.Value{Name: metric.Sweeps, Value: 1}, metric.Value{Name: metric.Orphans, Value: float64(left)})
}

func (r *Router) freeBucket(ctx context.Context, key string) {
	l, err := r.config.Claims.Acquire(ctx, key)
	if err == nil {
		err = l.Release(ctx)
	}
	if err != nil {
		r.config.Log.InfoContext(ctx, "dead worker's turn not ended", slog.String("bucket_key", key), slog.Any("error", err))
	}
}
