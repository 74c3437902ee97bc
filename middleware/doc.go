// Package middleware is message handling for any Watermill service: Retry,
// PoisonQueue, CorrelationID, CloudWatch and Recoverer. Each is a struct whose
// zero value works, with one method, Middleware, that a message.Router takes.
//
// They are made to be used together, in this order, outermost first:
//
//	router.AddMiddleware(
//		middleware.CloudWatch{}.Middleware,
//		middleware.CorrelationID{}.Middleware,
//		middleware.PoisonQueue{Topic: topic, Publisher: publisher}.Middleware,
//		middleware.Retry{}.Middleware,
//		middleware.Recoverer{}.Middleware,
//	)
//
// What a handler's error means is said by the handler, with three wrappers that
// all of them understand: Permanent (trying again is useless), RetryAfter (wait
// at least that long) and HandBack (neither try again nor give up: nack). An
// error without a wrapper is transient. A cancelled message context always means
// HandBack.
//
// The package imports the standard library, watermill and watermill/message.
package middleware

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
)

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// Permanent marks an error that trying again will not mend. It returns nil for
// nil; the text stays as it is, and errors.Is and errors.As see through it.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether an error is marked as Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type retryAfterError struct {
	error
	after time.Duration
}

func (e *retryAfterError) Unwrap() error { return e.error }

// RetryAfter marks a transient error that should not be tried again before d has
// passed. It returns nil for nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, d}
}

type handBackError struct{ error }

func (e *handBackError) Unwrap() error { return e.error }

// HandBack marks an error that is not the message's fault, such as a shutdown:
// the message is nacked as it is, neither tried again nor poisoned. It returns
// nil for nil.
func HandBack(err error) error {
	if err == nil {
		return nil
	}
	return &handBackError{err}
}

// handedBack reports whether a message goes back to its queue: the error says
// so, or the message's context has ended.
func handedBack(msg *message.Message, err error) bool {
	var h *handBackError
	return errors.As(err, &h) || msg.Context().Err() != nil
}

// record is what the inner middleware tell CloudWatch of one message.
type record struct {
	attempts      int
	poisoned      error
	correlationID string
}

type recordKey struct{}

func recordOf(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// printable makes foreign text fit for a log line or a message attribute:
// without control characters, which terminals obey and SQS refuses, in one line
// of at most limit bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case unicode.IsControl(r), r == 0xFFFE, r == 0xFFFF:
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.TrimSpace(s)
}
