package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// StepError is why a command was not carried out, in the words of the answer.
type StepError struct {
	Code   protocol.ErrorCode
	Reason string // a person reads it
	// Permanent is set if running the command again would fail the same way.
	Permanent bool
	// RetryAfter is how long to wait at least before running again; zero if
	// nothing is known.
	RetryAfter time.Duration
	Err        error // what caused it; nil if Reason says all
}

// Error implements error.
func (f *StepError) Error() string {
	if f.Err == nil || f.Reason != "" {
		return fmt.Sprintf("%s: %s", f.Code, f.Reason)
	}
	return fmt.Sprintf("%s: %v", f.Code, f.Err)
}

// Unwrap returns the cause.
func (f *StepError) Unwrap() error { return f.Err }

// ErrShutdown is the cause with which a job is cancelled when the worker has to
// leave: its work is saved and its message handed back.
var ErrShutdown = errors.New("the worker is shutting down")

// HandedBack reports whether an error means that the message is to be handed
// back as it is: neither tried again here nor given up.
func HandedBack(err error) bool {
	return errors.Is(err, ErrShutdown) || errors.Is(err, claim.ErrLeaseLost)
}

// failureOf puts an error of a step into the words of the answer. What the user,
// the agent or the repository caused is Permanent: it is the result.
func failureOf(err error) *StepError {
	var (
		f *StepError
		i *protocol.InvalidError
		w *workspace.Error
		a *agent.Error
		b *build.Error
		d *deploy.Error
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &i):
		return &StepError{Code: i.Code, Reason: i.Reason, Permanent: true, Err: err}
	case errors.As(err, &a):
		return &StepError{Code: protocol.ErrorCode(a.Code), Reason: a.Message, Permanent: !a.Transient, RetryAfter: a.RetryAfter, Err: err}
	case errors.As(err, &b):
		return &StepError{Code: protocol.ErrorCode(b.Code), Reason: b.Message, Permanent: true, Err: err}
	case errors.As(err, &d):
		code := protocol.ErrorCode(d.Code)
		return &StepError{Code: code, Reason: d.Error(), Permanent: code == protocol.DeployRefused, Err: err}
	case errors.As(err, &w):
		code := protocol.ErrorCode(w.Code)
		permanent := code == protocol.RepoMissing || code == protocol.RepoNotAllowed || code == protocol.FileTooLarge
		return &StepError{Code: code, Reason: w.Error(), Permanent: permanent, Err: err}
	}
	return &StepError{Code: protocol.Internal, Reason: "the worker failed in a way that is not the instruction's fault; it was tried again", Err: err}
}

// cutShort returns the cause if the step failed because its context ended, else
// nil.
func cutShort(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
