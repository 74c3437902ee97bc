package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

const (
	defaultPatience = 90 * time.Second
	firstDelay      = 100 * time.Millisecond
	maxDelay        = 5 * time.Second
	answerTime      = 20 * time.Second // until a request is given up that brings no answer
	slowestUpload   = 128 << 10        // bytes a second
)

// errSlow is the error of a request that was given up.
var errSlow = errors.New("no answer in time")

// newRetryer knows what is worth another try. How long, a call decides; the SDK's
// budget of retries is left out, as 32 uploads use it up at the first hiccup.
func newRetryer() aws.RetryerV2 {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) { return backoff(attempt), nil })
		// First those that others would take for something else.
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(special)}, o.Retryables...)
	})
}

func special(err error) aws.Ternary {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return aws.FalseTernary
	// Two writers at once, and neither can tell yet who was first.
	case isCode(err, "ConditionalRequestConflict", "OperationAborted", "InternalError"), errors.Is(err, errSlow):
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// backoff is how long to wait after a try, the first being 1: twice as long each
// time, and a quarter more or less, so that 32 uploads do not come back at once.
func backoff(try int) time.Duration {
	d := min(firstDelay<<min(max(try, 1)-1, 10), maxDelay)
	return d*3/4 + rand.N(d/2) //nolint:gosec // nobody gains by guessing it
}

// call is one call of a bucket, over all its tries.
type call struct {
	aws.RetryerV2
	alive  func() bool   // the caller still wants it, and there is patience left
	answer time.Duration // a try is given up after that
	tries  int
}

func (b *Bucket) begin(ctx context.Context, answer time.Duration) *call {
	until := time.Now().Add(b.patience)
	return &call{
		RetryerV2: b.retryer, answer: answer,
		alive: func() bool { return ctx.Err() == nil && time.Now().Before(until) },
	}
}

// option makes a request part of the call.
func (c *call) option(o *s3.Options) {
	o.Retryer = c
	o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
		return s.Finalize.Insert(c, "Retry", middleware.After)
	})
}

// MaxAttempts implements aws.Retryer: there is no limit but patience.
func (*call) MaxAttempts() int { return 0 }

// IsErrorRetryable implements aws.Retryer.
func (c *call) IsErrorRetryable(err error) bool {
	return c.alive() && c.RetryerV2.IsErrorRetryable(err)
}

// ID implements middleware.FinalizeMiddleware.
func (*call) ID() string { return "Try" }

// HandleFinalize counts and bounds a try.
func (c *call) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	c.tries++
	try, cancel := context.WithTimeout(ctx, c.answer)
	defer cancel()
	out, metadata, err := next.HandleFinalize(try, in)
	if err != nil && try.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (%s): %w", errSlow, c.answer, err)
	}
	return out, metadata, err
}
