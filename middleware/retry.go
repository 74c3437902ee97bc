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
// that is drawn at random between nothing and a bound that grows exponentially
// ("full jitter"). The zero value tries three times.
//
// It never tries again after a Permanent or a HandBack error, or when the
// message's context has ended, which also ends a pause; the error then wraps both
// the handler's error and the cause of the context. When all attempts failed, the
// last error comes back as it is. Messages produced along with an error are
// dropped.
//
// Each attempt begins with the context that the message came with.
type Retry struct {
	// Attempts is how often the handler runs at most; zero means 3, one or
	// less than zero means that nothing is tried again.
	Attempts int
	// InitialBackoff bounds the first pause; zero means 500 ms. A negative one
	// means that nothing but RetryAfter makes a pause.
	InitialBackoff time.Duration
	// MaxBackoff bounds every pause but one that RetryAfter asks for; zero
	// means 30 s.
	MaxBackoff time.Duration
	// Multiplier is how much the bound grows with each pause; zero means 2.
	Multiplier float64
	// Random returns a number in [0,1), from several goroutines; nil means
	// that of math/rand/v2.
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
		rec := recordOf(msg)
		defer msg.SetContext(outer)
		for attempt := 1; ; attempt++ {
			rec.attempts = attempt
			msg.SetContext(context.WithValue(outer, attemptKey{}, attempt))
			produced, err := h(msg)
			switch {
			case err == nil:
				return produced, nil
			case outer.Err() != nil:
				return nil, withCause(outer, err)
			case IsPermanent(err), handedBack(outer, err), attempt >= r.Attempts:
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
	limit := float64(r.MaxBackoff)
	bound := min(float64(max(r.InitialBackoff, 0)), limit)
	for range attempt - 1 {
		bound = min(bound*r.Multiplier, limit)
	}
	_, after := markOf(err)
	return max(time.Duration(r.Random()*bound), after)
}

// wait returns false if the context has ended, even if the pause has, too.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// withCause keeps the handler's error and says why it was not tried again.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w (not tried again: %w)", err, cause)
	}
	return err
}
