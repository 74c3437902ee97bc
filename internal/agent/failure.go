package agent

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

// Why a run was given up by us.
var (
	errTimeout = errors.New("took too long")
	errStalled = errors.New("silent for too long")
)

// throttledError ends a run whose model's service wants a pause so long that the
// worker, not the CLI, should wait.
type throttledError struct {
	status int
	delay  time.Duration
}

// Error implements error.
func (e *throttledError) Error() string {
	return fmt.Sprintf("status %d, next try in %s", e.status, e.delay)
}

// outcome is a run that did not succeed.
type outcome struct {
	err     error // of the process; nil if it exited with 0
	stream  *stream
	stderr  string
	timeout time.Duration
	idle    time.Duration
	// asked is the pause that the service asked for last; zero if it did not.
	asked  time.Duration
	tokens int64 // used in this run; zero if nobody counts
	// noTokens is set if a call was refused because the tokens were used up.
	noTokens bool
}

// failure says what went wrong, first by why we ended the run, then by its last
// word, then by how it exited.
func (o outcome) failure() *Error {
	var (
		t    *throttledError
		over *process.LimitError
	)
	switch {
	case errors.As(o.err, &over):
		return tookTooMuch(over)
	case errors.Is(o.err, process.ErrNotFound):
		return missing(o.err)
	case errors.Is(o.err, errTimeout):
		return tookTooLong(o.timeout)
	case errors.Is(o.err, errStalled):
		return &Error{Code: CodeStalled, Message: fmt.Sprintf("The model sent nothing for %s, so the run was ended. Please send the instruction again.", o.idle)}
	case o.noTokens:
		return usedUp(CodeCostLimit, "tokens it may spend", o.err)
	case errors.As(o.err, &t):
		return o.overloaded(t.delay)
	case o.stream.last != nil && !o.stream.succeeded():
		return o.byResult(o.stream.last)
	}
	return o.byExit()
}

func missing(err error) *Error {
	return &Error{Code: CodeMissing, Transient: true, Err: err, Message: "The agent's program is not installed here. The operator has to set it right."}
}

func tookTooLong(timeout time.Duration) *Error {
	return &Error{Code: CodeTimeout, Message: fmt.Sprintf("The agent was not done after %s, so it was ended. What it had changed is kept. Please ask for less at once.", timeout)}
}

func tookTooMuch(over *process.LimitError) *Error {
	return &Error{Code: CodeFailed, Err: over, Message: "The agent was ended, with all that it had started: " + over.Error() + ". What it had changed is kept."}
}

// byResult goes by the CLI's last word.
func (o outcome) byResult(r *result) *Error {
	said := o.said(r)
	switch o.stream.lastKind {
	case "error_max_turns":
		return usedUp(CodeTurnLimit, "number of turns it may take", said)
	case "error_max_budget_usd":
		return usedUp(CodeCostLimit, "money it may spend", said)
	}
	switch {
	case r.StopReason == "refusal":
		return &Error{Code: CodeRefused, Message: "The model refused to carry this instruction out. Please put it differently.", Err: said}
	case r.TerminalReason == "prompt_too_long", r.APIErrorStatus == http.StatusRequestEntityTooLarge:
		return &Error{Code: CodePromptTooLong, Message: "The conversation has become too long for the model. Please send a shorter instruction, or start a new thread.", Err: said}
	case r.APIErrorStatus == http.StatusPaymentRequired, strings.Contains(strings.ToLower(r.Text), "credit balance"):
		return &Error{Code: CodeModelCredit, Transient: true, RetryAfter: o.asked, Message: "The account for the model has no credit left. The operator has to top it up.", Err: said}
	case r.APIErrorStatus != 0:
		return o.byStatus(r.APIErrorStatus, said)
	case r.TerminalReason == "api_error" && o.stream.word != "max_output_tokens" && o.stream.word != "invalid_request":
		// Cut connections and answers that are no answers: nothing the
		// instruction did.
		e := o.overloaded(0)
		e.Err = said
		return e
	}
	return &Error{Code: CodeFailed, Message: "The agent ended with an error: " + said.Error(), Err: said}
}

// byStatus goes by what the model's service answered.
func (o outcome) byStatus(status int, said error) *Error {
	var e *Error
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e = &Error{Code: CodeModelAuth, Transient: true, RetryAfter: o.asked, Message: "The model's service does not accept the worker's credentials. The operator has to set them right."}
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= http.StatusInternalServerError,
		status == http.StatusFailedDependency: // Bedrock's, for a model that failed
		e = o.overloaded(0)
	default:
		e = &Error{Code: CodeFailed, Message: "The model's service did not accept the request: " + said.Error()}
	}
	e.Err = said
	return e
}

func (o outcome) overloaded(delay time.Duration) *Error {
	return &Error{
		Code: CodeModelOverloaded, Transient: true, RetryAfter: max(delay, o.asked), Err: o.err,
		Message: "The model's service is overloaded or cannot be reached at the moment. Please send the instruction again later.",
	}
}

// said is the CLI's own description.
func (o outcome) said(r *result) error {
	text := r.Text
	if text == "" {
		text = strings.Join(r.Errors, "; ")
	}
	if text == "" {
		text = o.stream.lastKind
	}
	return errors.New(clip(strings.TrimSpace(text), 2000))
}

// byExit goes by how a run ended that had no last word.
func (o outcome) byExit() *Error {
	var x *process.ExitError
	errors.As(o.err, &x)
	e := &Error{Code: CodeFailed, Err: o.err}
	switch {
	case x == nil && o.err == nil:
		e.Message = "The agent ended without saying how."
	case x == nil:
		e.Message = "The agent could not be run."
	case x.Result.Signal == syscall.SIGKILL:
		e.Message = "The agent was killed, perhaps because memory ran out."
	case x.Result.Signal != 0:
		e.Message = "The agent was ended by a signal (" + x.Result.Signal.String() + ")."
	default:
		e.Message = fmt.Sprintf("The agent ended with exit code %d.", x.Result.ExitCode)
	}
	if text := strings.TrimSpace(tail(o.stderr, 2000)); text != "" {
		e.Message += " Its last words: " + text
	}
	return e
}
