package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// patience says how long a call is tried again. The SDK's own retries cannot: their
// attempts share one deadline, and one that hangs takes it all.
type patience struct {
	total time.Duration
	hurry <-chan struct{} // from when on no more than hurriedSettle is left
}

// try makes a call until it succeeds or fails for good; each attempt has a
// deadline of its own. It returns the error of the last attempt.
func (p patience) try(ctx context.Context, call func(context.Context) error) error {
	deadline := time.Now().Add(p.total)
	for attempt := 0; ; attempt++ {
		err := once(ctx, min(callTimeout, time.Until(deadline)), call)
		if err == nil || permanent(err) {
			return err
		}
		pause := time.NewTimer(min(pauseAfter(attempt), time.Until(deadline)))
		select {
		case <-pause.C:
		case <-p.hurry:
			p.hurry = nil
			if soon := time.Now().Add(hurriedSettle); soon.Before(deadline) {
				deadline = soon
			}
		case <-ctx.Done():
		}
		pause.Stop()
		if ctx.Err() != nil || !time.Now().Before(deadline) {
			return err
		}
	}
}

func once(ctx context.Context, timeout time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// pauseAfter grows from 100 ms to 5 s, half of it drawn at random.
func pauseAfter(attempt int) time.Duration {
	pause := min(100*time.Millisecond<<min(attempt, 10), 5*time.Second)
	return pause/2 + rand.N(pause/2) //nolint:gosec // no secret
}

// permanent reports whether a call would fail in the same way again.
func permanent(err error) bool {
	if retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary {
		return false
	}
	var invalid smithy.InvalidParamsError
	var unserializable *smithy.SerializationError
	if errors.As(err, &invalid) || errors.As(err, &unserializable) {
		return true
	}
	if code := codeOf(err); strings.Contains(code, "Throttl") || strings.Contains(code, "OverLimit") {
		return false
	}
	return refused(err)
}

// refused reports whether SQS answered that it did not do what it was asked.
func refused(err error) bool {
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) {
		return false
	}
	status := response.HTTPStatusCode()
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout
}

// unanswered reports whether a request may have had an effect that we were not
// told of.
func unanswered(err error) bool {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	return err != nil && !refused(err)
}

// lost reports whether SQS no longer holds a message back for us: it is visible
// again, or somebody else's, or deleted.
func lost(err error) bool {
	var visible *types.MessageNotInflight
	var stale *types.ReceiptHandleIsInvalid
	return errors.As(err, &visible) || errors.As(err, &stale) || codeOf(err) == "InvalidParameterValue"
}

// missing reports whether an error says that a queue does not exist.
func missing(err error) bool {
	var gone *types.QueueDoesNotExist
	return errors.As(err, &gone) || strings.HasSuffix(codeOf(err), "NonExistentQueue")
}

func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}
