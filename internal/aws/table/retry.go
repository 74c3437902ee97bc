package table

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/cenkalti/backoff/v5"
)

const (
	// quickTries is how often one call is tried; with the pauses between that
	// is 2 s at most. A lease has no time for more, and tries again by itself.
	quickTries = 6
	// patience is how long the journal tries: an outage of 60 s, plus the
	// longest pause and a try that was under way.
	patience = 80 * time.Second
	// tryTime bounds one try of the journal: on a connection that is dead,
	// nothing else would end it.
	tryTime = 5 * time.Second
	// longestPause is between two tries of the journal.
	longestPause = 5 * time.Second
)

// newRetryer returns the SDK's retryer, which knows throttling, failures of the
// service and of the network, with four changes: it also tries again when
// another write was under way, and when an answer ends in the middle; it does so
// within milliseconds; and it has no quota, which an outage would use up.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = quickTries
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(collided), retry.IsErrorRetryableFunc(broke)}, o.Retryables...)
		o.Backoff = retry.BackoffDelayerFunc(pause)
	})
}

// pause grows from 10 ms after a collision, which is over when the other write
// is, and from 50 ms after all else.
func pause(attempt int, err error) (time.Duration, error) {
	longest := 50 * time.Millisecond << attempt
	if collided(err) == aws.TrueTernary {
		longest = 10 * time.Millisecond * time.Duration(attempt+1)
	}
	longest = min(longest, time.Second)
	return longest/2 + rand.N(longest/2), nil //nolint:gosec // it spreads load and guards nothing
}

// broke reports whether an answer ended in the middle.
func broke(err error) aws.Ternary {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// collided reports whether a write failed because another one of the same item
// was under way: a lease is renewed while the journal checks its fence. A
// transaction that was throttled says so in the same way.
func collided(err error) aws.Ternary {
	if _, ok := errors.AsType[*types.TransactionConflictException](err); ok {
		return aws.TrueTernary
	}
	cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok {
		return aws.UnknownTernary
	}
	again := aws.FalseTernary
	for _, reason := range cancelled.CancellationReasons {
		switch aws.ToString(reason.Code) {
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			again = aws.TrueTernary
		case "", "None":
		default:
			return aws.FalseTernary
		}
	}
	return again
}

// persist tries a call until it has an answer, patience is over or the context
// has ended.
func persist[T any](ctx context.Context, retryer aws.Retryer, call func(context.Context) (T, error)) (T, error) {
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.3, Multiplier: 2, MaxInterval: longestPause,
	}
	return backoff.Retry(ctx, func() (T, error) {
		once, cancel := context.WithTimeout(ctx, tryTime)
		defer cancel()
		got, err := call(once)
		hung := once.Err() != nil && ctx.Err() == nil
		if err != nil && !hung && !retryer.IsErrorRetryable(err) {
			return got, backoff.Permanent(err)
		}
		return got, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(patience))
}
