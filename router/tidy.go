package router

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// tidyEvery is how often a project's workspace is tidied, while it is ours.
	tidyEvery = time.Hour
	// tidyTime bounds that.
	tidyTime = 10 * time.Minute
)

var errTidied = errors.New("the workspace is wanted")

// tidy trims a project's workspace in the pauses between its commands. The next one
// does not wait for it: it is cut off, and begins again later.
type tidy struct {
	trim func(context.Context) error
	log  *slog.Logger

	mu      sync.Mutex
	since   time.Time // when it last came to its end
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

// start begins in the background, if it is time.
func (t *tidy) start(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel != nil || !t.since.IsZero() && time.Since(t.since) < tidyEvery {
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	t.cancel = cancel
	t.running.Go(func() {
		ctx, stop := context.WithTimeout(ctx, tidyTime)
		defer stop()
		err := t.trim(ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		if errors.Is(err, errTidied) {
			return // another time
		}
		t.since = time.Now()
		if err != nil {
			t.log.WarnContext(ctx, "workspace not tidied", slog.Any("error", err))
		}
	})
}

// stop cuts it off, and waits until nothing of it is left.
func (t *tidy) stop() {
	t.mu.Lock()
	cancel := t.cancel
	t.cancel = nil
	t.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel(errTidied)
	t.running.Wait()
}
