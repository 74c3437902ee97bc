package router

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []error
		began := 0
		work := 10 * time.Second
		td := &tidy{log: slog.New(slog.DiscardHandler), trim: func(ctx context.Context) error {
			began++
			var err error
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(work):
			}
			ends = append(ends, err)
			return err
		}}
		td.stop() // there is nothing
		td.start(t.Context())
		td.start(t.Context())
		synctest.Wait()
		td.stop()
		if began != 1 || len(ends) != 1 || !errors.Is(ends[0], errTidied) {
			t.Fatalf("began %d, ended %v; want one that was cut off", began, ends)
		}
		td.start(t.Context()) // it came to no end
		advance(work + time.Second)
		td.stop()
		td.start(t.Context()) // it has, just now
		synctest.Wait()
		if began != 2 || ends[1] != nil {
			t.Fatalf("began %d, ended %v", began, ends)
		}
		advance(tidyEvery)
		td.start(t.Context())
		advance(work + time.Second)
		td.stop()
		if began != 3 || ends[2] != nil {
			t.Fatalf("began %d, ended %v", began, ends)
		}
	})
}

// advance lets time pass in a bubble.
func advance(d time.Duration) { <-time.After(d) }
