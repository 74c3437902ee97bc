package middleware

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Retry runs a handler again in place when it fails transiently, after a pause
// that grows exponentially and is drawn at random between nothing and its full
// length ("full jitter"). The zero value tries three times.
//
// It never tries again after a Permanent or a HandBack error, or when the
// message's context has ended; the error then wraps both the handler's error and
// the cause of the context. When all attempts failed, the last error comes back
// as it is.
type Retry struct {
	// Attempts is how often the handler runs at most; zero means 3.
	Attempts int
	// InitialBackoff bounds the first pause; zero means 500 ms. A negative one
	// means no pause at all.
	InitialBackoff time.Duration
	// MaxBackoff bounds every pause but one asked for by RetryAfter; zero
	// means 30 s.
	MaxBackoff time.Duration
	// Multiplier is how much the bound grows with each pause; zero means 2.
	Multiplier float64
	// Random returns a number in [0,1); nil means math/rand/v2.
	Random func() float64
	// OnRetry is told of each failed attempt that will be tried again, with
	// the number of the attempt and the pause to come; nil means nobody is.
	OnRetry func(msg *message.Message, err error, attempt int, pause time.Duration)
}

type attemptKey struct{}

// Attempt returns the number of the attempt that a handler runs in, from 1 on; 0
// outside Retry.
func Attempt(ctx context.Context) int {
	n, _ := ctx.Value(attemptKey{}).(int)
	return n
}

// Middleware implements message.HandlerMiddleware.
func (r Retry) Middleware(h message.HandlerFunc) message.HandlerFunc {
	r = r.withDefaults()
	return func(msg *message.Message) ([]*message.Message, error) {
		outer := msg.Context()
		defer msg.SetContext(outer)
		for attempt := 1; ; attempt++ {
			msg.SetContext(context.WithValue(outer, attemptKey{}, attempt))
			if rec := recordOf(outer); rec != nil {
				rec.attempts = attempt
			}
			produced, err := h(msg)
			switch {
			case err == nil:
				return produced, nil
			case outer.Err() != nil:
				return nil, withCause(outer, err)
			case IsPermanent(err), handedBack(msg, err), attempt >= r.Attempts:
				return nil, err
			}
			pause := r.pause(attempt, err)
			if r.OnRetry != nil {
				r.OnRetry(msg, err, attempt, pause)
			}
			if !wait(outer, pause) {
				return nil, withCause(outer, err)
			}
		}
	}
}

func (r Retry) withDefaults() Retry {
	if r.Attempts == 0 {
		r.Attempts = 3
	}
	if r.InitialBackoff == 0 {
		r.InitialBackoff = 500 * time.Millisecond
	}
	if r.MaxBackoff == 0 {
		r.MaxBackoff = 30 * time.Second
	}
	if r.Multiplier == 0 {
		r.Multiplier = 2
	}
	if r.Random == nil {
		r.Random = rand.Float64
	}
	return r
}

// pause draws the pause after a failed attempt.
func (r Retry) pause(attempt int, err error) time.Duration {
	bound := float64(max(r.InitialBackoff, 0))
	for range attempt - 1 {
		bound = min(bound*r.Multiplier, float64(r.MaxBackoff))
	}
	pause := time.Duration(r.Random() * min(bound, float64(r.MaxBackoff)))
	var after *retryAfterError
	if errors.As(err, &after) {
		pause = max(pause, after.after)
	}
	return pause
}

// wait returns false if the context ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// withCause keeps the handler's error and says why it was not tried again.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w (not tried again: %w)", err, cause)
	}
	return err
}
