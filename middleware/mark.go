package middleware

import (
	"context"
	"errors"
	"time"
)

// mark is what a handler says of an error.
type mark int

const (
	transient mark = iota // unmarked errors, too
	permanent
	handBack
)

// markedError is an error with a mark; its text is the error's.
type markedError struct {
	error
	mark  mark
	after time.Duration // of a transient one: try again no earlier
}

func (e *markedError) Unwrap() error { return e.error }

// Permanent marks an error that trying again will not mend. It returns nil for
// nil; the text stays as it is, and errors.Is and errors.As see through it.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &markedError{error: err, mark: permanent}
}

// RetryAfter marks a transient error that should not be tried again before d has
// passed. It returns nil for nil; the text stays as it is.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &markedError{error: err, mark: transient, after: d}
}

// HandBack marks an error that is not the message's fault, such as a shutdown or
// a lost lease: the message is nacked as it is, neither tried again nor
// poisoned. It returns nil for nil; the text stays as it is.
func HandBack(err error) error {
	if err == nil {
		return nil
	}
	return &markedError{error: err, mark: handBack}
}

// IsPermanent reports whether the outermost mark of an error is Permanent.
func IsPermanent(err error) bool {
	mark, _ := markOf(err)
	return mark == permanent
}

// markOf returns the outermost mark of an error, and for a transient one how long
// to wait at least.
func markOf(err error) (mark, time.Duration) {
	var m *markedError
	if !errors.As(err, &m) {
		return transient, 0
	}
	return m.mark, m.after
}

// handedBack reports whether a message that failed goes back to its queue. The
// context must be the one the message came with: one that a middleware further in
// has put into the message may have ended on its own.
func handedBack(ctx context.Context, err error) bool {
	mark, _ := markOf(err)
	return mark == handBack || ctx.Err() != nil
}
