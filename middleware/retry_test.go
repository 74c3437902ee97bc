package middleware_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/middleware"
)

// always is a Random that draws the same number.
func always(f float64) func() float64 { return func() float64 { return f } }

func TestRetryAttemptsAndPauses(t *testing.T) {
	const ms = time.Millisecond
	nearlyOne := always(1 - 1e-12)
	tests := []struct {
		name   string
		retry  middleware.Retry
		errs   []error // of each attempt; the last one for all further ones
		pauses []time.Duration
		want   error
	}{
		{"success", middleware.Retry{}, []error{nil}, nil, nil},
		{"zero value", middleware.Retry{Random: nearlyOne}, []error{errDown}, []time.Duration{500 * ms, 1000 * ms}, errDown},
		{"mended", middleware.Retry{Random: nearlyOne}, []error{errDown, nil}, []time.Duration{500 * ms}, nil},
		{"full jitter", middleware.Retry{Random: always(0.25)}, []error{errDown}, []time.Duration{125 * ms, 250 * ms}, errDown},
		{"no luck at all", middleware.Retry{Random: always(0)}, []error{errDown}, []time.Duration{0, 0}, errDown},
		{
			"bounded",
			middleware.Retry{Attempts: 5, InitialBackoff: 100 * ms, MaxBackoff: 1500 * ms, Multiplier: 3, Random: nearlyOne},
			[]error{errDown},
			[]time.Duration{100 * ms, 300 * ms, 900 * ms, 1500 * ms},
			errDown,
		},
		{
			"first pause bounded",
			middleware.Retry{Attempts: 2, InitialBackoff: time.Hour, MaxBackoff: time.Minute, Random: nearlyOne},
			[]error{errDown},
			[]time.Duration{time.Minute},
			errDown,
		},
		{"one attempt", middleware.Retry{Attempts: 1}, []error{errDown}, nil, errDown},
		{"no pauses", middleware.Retry{InitialBackoff: -1, Random: nearlyOne}, []error{errDown}, []time.Duration{0, 0}, errDown},
		{"permanent", middleware.Retry{}, []error{middleware.Permanent(errDown)}, nil, errDown},
		{
			"permanent at last",
			middleware.Retry{Random: nearlyOne},
			[]error{errStop, middleware.Permanent(errDown)},
			[]time.Duration{500 * ms},
			errDown,
		},
		{"handed back", middleware.Retry{}, []error{middleware.HandBack(errDown)}, nil, errDown},
		{
			"asked for",
			middleware.Retry{Attempts: 2, MaxBackoff: time.Second},
			[]error{middleware.RetryAfter(errDown, time.Minute)},
			[]time.Duration{time.Minute},
			errDown,
		},
		{
			"asked for less",
			middleware.Retry{Attempts: 2, Random: nearlyOne},
			[]error{middleware.RetryAfter(errDown, ms)},
			[]time.Duration{500 * ms},
			errDown,
		},
		{
			// The handler's own deadline is not the message's.
			"deadline of its own",
			middleware.Retry{Attempts: 2, Random: nearlyOne},
			[]error{context.DeadlineExceeded},
			[]time.Duration{500 * ms},
			context.DeadlineExceeded,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var began []time.Time
				var attempts []int
				h := tt.retry.Middleware(func(msg *message.Message) ([]*message.Message, error) {
					began = append(began, time.Now())
					attempts = append(attempts, middleware.Attempt(msg.Context()))
					return nil, tt.errs[min(len(began), len(tt.errs))-1]
				})
				_, err := h(newMessage(t, ""))
				if !errors.Is(err, tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
				var pauses []time.Duration
				for i, at := range began[1:] {
					pauses = append(pauses, at.Sub(began[i]).Round(time.Microsecond))
				}
				if diff := cmp.Diff(tt.pauses, pauses); diff != "" {
					t.Errorf("pauses (-want +got):\n%s", diff)
				}
				for i, n := range attempts {
					if n != i+1 {
						t.Errorf("attempts %v, want 1, 2, 3...", attempts)
						break
					}
				}
			})
		})
	}
}

func TestRetryKeepsTheLastErrorAsItIs(t *testing.T) {
	_, err := middleware.Retry{Attempts: 2, InitialBackoff: -1}.Middleware(failing(errDown))(newMessage(t, ""))
	if err != errDown { //nolint:errorlint // the very same
		t.Errorf("error %#v, want it unwrapped", err)
	}
}

func TestRetryDropsWhatAFailedAttemptProduced(t *testing.T) {
	produced, err := middleware.Retry{Attempts: 1}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	})(newMessage(t, ""))
	if err == nil || produced != nil {
		t.Errorf("got %d messages and %v, want none and an error", len(produced), err)
	}
}

func TestRetryNeverOutlivesTheContext(t *testing.T) {
	tests := []struct {
		name string
		when time.Duration // after the start; the handler takes 1 s, the pause 2 s
		runs int
	}{
		{"before", 0, 1},
		{"while the handler runs", 500 * time.Millisecond, 1},
		{"while it waits", 2 * time.Second, 1},
		{"just before the pause is over", 3*time.Second - 1, 1},
		{"while the second attempt runs", 3500 * time.Millisecond, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := context.AfterFunc(deadlineIn(t, tt.when), func() { cancel(errStop) })
				defer stop()
				synctest.Wait()
				msg := newMessage(t, "")
				msg.SetContext(ctx)
				runs, began := 0, time.Now()
				retry := middleware.Retry{InitialBackoff: 2 * time.Second, Multiplier: 1, Random: always(1)}
				_, err := retry.Middleware(func(*message.Message) ([]*message.Message, error) {
					runs++
					<-time.After(time.Second)
					return nil, errDown
				})(msg)
				if runs != tt.runs {
					t.Errorf("ran %d times, want %d", runs, tt.runs)
				}
				if !errors.Is(err, errDown) || !errors.Is(err, errStop) {
					t.Errorf("error %v, want both the handler's and the cause", err)
				}
				if late := time.Since(began) - tt.when; late > time.Second {
					t.Errorf("came back %v after the context had ended", late)
				}
			})
		})
	}
}

// At one instant the runtime chooses which comes first; here both have come when
// the wait begins, again and again.
func TestRetryHeedsAContextThatEndsWithThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 64 {
			ctx, cancel := context.WithCancelCause(t.Context())
			msg := newMessage(t, "")
			msg.SetContext(ctx)
			runs := 0
			retry := middleware.Retry{InitialBackoff: -1, OnRetry: func(*message.Message, error, int, time.Duration) { cancel(errStop) }}
			_, err := retry.Middleware(func(*message.Message) ([]*message.Message, error) {
				runs++
				return nil, errDown
			})(msg)
			if runs != 1 || !errors.Is(err, errDown) || !errors.Is(err, errStop) {
				t.Fatalf("ran %d times, error %v; want 1, and both errors", runs, err)
			}
		}
	})
}

// deadlineIn is a context that ends after d.
func deadlineIn(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestRetryDoesNotWrapTheCauseTwice(t *testing.T) {
	msg := newMessage(t, "")
	msg.SetContext(cancelled(t, errStop))
	_, err := middleware.Retry{}.Middleware(failing(errStop))(msg)
	if err == nil || strings.Count(err.Error(), errStop.Error()) != 1 {
		t.Errorf("error %q, want the cause once", err)
	}
}

func TestRetryKeepsSuccessUnderAnEndedContext(t *testing.T) {
	msg := newMessage(t, "")
	msg.SetContext(cancelled(t, errStop))
	produced, err := middleware.Retry{}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, nil
	})(msg)
	if err != nil || len(produced) != 1 {
		t.Errorf("got %d messages and %v, want what the handler did", len(produced), err)
	}
}

func TestRetryTellsOfEachPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type told struct {
			Attempt int
			Pause   time.Duration
		}
		var got []told
		retry := middleware.Retry{Random: always(0.5), OnRetry: func(_ *message.Message, err error, attempt int, pause time.Duration) {
			if !errors.Is(err, errDown) {
				t.Errorf("told of %v", err)
			}
			got = append(got, told{attempt, pause})
		}}
		if _, err := retry.Middleware(failing(errDown))(newMessage(t, "")); err == nil {
			t.Error("no error")
		}
		want := []told{{1, 250 * time.Millisecond}, {2, 500 * time.Millisecond}}
		if !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

func TestRetryRestoresTheContext(t *testing.T) {
	msg := newMessage(t, "")
	before := msg.Context()
	if _, err := (middleware.Retry{InitialBackoff: -1}).Middleware(failing(errDown))(msg); err == nil {
		t.Error("no error")
	}
	if msg.Context() != before {
		t.Error("the context is another one")
	}
	if n := middleware.Attempt(before); n != 0 {
		t.Errorf("attempt %d outside Retry, want 0", n)
	}
}
