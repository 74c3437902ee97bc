// Package agent carries out an instruction in a checkout, with the Claude Code
// CLI (Claude) or with a program of the operator's (Command).
//
// The CLI is run without its credentials: it talks to a loopback address with a
// token that is worth nothing elsewhere. Its conversation with a thread is
// carried over from run to run as a transcript, which lies in a directory that
// the agent cannot reach and is lent to it for the length of a run.
package agent

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/webordinary/claude-code-container/internal/process"
)

// The codes of an *Error, as the answer to a command carries them.
const (
	CodeFailed          = "agent_failed"
	CodeTimeout         = "agent_timeout"
	CodeStalled         = "agent_stalled"
	CodeTurnLimit       = "agent_turn_limit"
	CodeCostLimit       = "agent_cost_limit"
	CodeRefused         = "agent_refused"
	CodePromptTooLong   = "agent_prompt_too_long"
	CodeMissing         = "agent_missing"
	CodeModelOverloaded = "model_overloaded"
	CodeModelAuth       = "model_auth"
	CodeModelCredit     = "model_credit"
)

const (
	defaultTimeout = 30 * time.Minute
	defaultIdle    = 5 * time.Minute
)

// Request is one instruction to carry out.
type Request struct {
	ProjectID, UserID, ThreadID string
	Instruction                 string
	// Notes are sentences that tell the agent what happened since it was last
	// here. The command agent is not told.
	Notes []string
	// History tells what was done in this thread so far, a line each, newest
	// first. It is asked if there is no conversation to continue; nil means that
	// nobody knows. The command agent is not told.
	History func(ctx context.Context) ([]string, error)
	Spent   Spent // zero for a command's first run
	// Progress is told of each use of a tool; it must not block. Nil means
	// nobody listens. The command agent tells nothing.
	Progress func(Event)

	Pair          string   // whose agent it is, as the workspace names it
	Site          string   // the checkout: where the agent works
	Job           string   // a directory for this job, writable to the agent
	Conversations string   // where conversations lie at rest, out of the agent's reach
	Read          []string // what else it may read
}

// access is what the agent and all that it starts may touch. The one address it may
// connect to is the proxy's.
func (r Request) access(proxy string) *process.Access {
	return &process.Access{Pair: r.Pair, Write: []string{r.Site, r.Job}, Read: r.Read, Proxy: proxy}
}

// Result is what a run came to. With an error it holds what is known.
type Result struct {
	Summary string // the agent's last word
	Turns   int    // of this run
	CostUSD float64
	Tokens  int64 // of input, cache and output; zero if nobody counts
	Model   string
	// Duration is wall time.
	Duration time.Duration
	// Denials are the uses of tools that were not allowed, each as the tool's
	// name and what it was to work on.
	Denials   []string
	SessionID string // of the conversation; empty if there is none
	Resumed   bool   // the conversation existed before
}

// Error is why a run failed. Run returns it for everything but the end of its
// context.
type Error struct {
	Code    string // one of the constants
	Message string // for the person who gave the instruction
	// Transient is set if the same run may succeed later.
	Transient bool
	// RetryAfter is what the model's service asked to wait; zero if it did not.
	RetryAfter time.Duration
	Err        error // the cause, for the log; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Code + ": " + e.Message
	}
	return e.Code + ": " + e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Event is a use of a tool, told while the agent works.
type Event struct {
	Tool   string // Read, Edit, Write, Bash, Grep, Glob
	Detail string // the file, relative to the checkout, or the command's first line
	File   string // that is changed, relative to the checkout; empty if none is
}

// ConversationID returns the id of a thread's conversation. The generation
// begins at 0 and grows by one each time a conversation cannot be continued.
func ConversationID(projectID, userID, threadID string, generation int) string {
	space := uuid.NewSHA1(uuid.NameSpaceDNS, []byte("webordinary.com"))
	return uuid.NewSHA1(space, conversationName(projectID, userID, threadID, generation)).String()
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}
