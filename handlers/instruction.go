// Package handlers is what the worker does with a message, in plain Go: Claim
// takes a project, Instruction carries a command out. Neither knows Watermill;
// the router adapts them.
package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// Agent carries out an instruction in a checkout. It returns an *agent.Error, or
// the cause of its context.
type Agent interface {
	Run(ctx context.Context, r agent.Request) (agent.Result, error)
}

// Step is told when a step of a command begins, and, while the agent works, at each
// use of a tool.
type Step struct {
	Pair      protocol.Pair
	CommandID string
	Name      string // workspace, agent, commit, build, deploy, push, or one of the router's
	Tool      string // that the agent uses; empty when a step begins
	Text      string // one line for a person; empty if it is of no interest to one
	// Files are what the tool changes, or, behind the commit, what that holds;
	// relative to the checkout.
	Files []string
}

// The steps that the router tells.
const (
	StepClaimed  = "claim"   // the project is ours from now on
	StepDone     = "done"    // a run of the command has ended, whatever it brought
	StepReleased = "release" // the project is not ours any more
)

// StepWait is the time from sending a command to its first run.
const StepWait = "queue_wait"

// Instruction carries out the commands of one project and user under one claim.
// It is asked for one command at a time.
type Instruction struct {
	Pair  protocol.Pair
	Lease *claim.Lease

	Journal    *journal.Journal
	Workspaces *workspace.Store
	Agent      Agent
	Builder    *build.Builder
	// Buckets has the claims on buckets, under which workers deploy in turn.
	Buckets *claim.Claims
	// Bucket returns the bucket of that name.
	Bucket func(name string) (deploy.Bucket, error)
	Names  protocol.Names
	Rules  protocol.Rules
	// MaxAttempts bounds the runs of a command that fail transiently; zero
	// means 3.
	MaxAttempts int
	// AssetGrace is how long hashed assets of earlier builds stay; zero
	// means 24 h.
	AssetGrace time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Redact removes secrets from what the answer says; nil means nothing
	// is removed.
	Redact func(string) string
	// Step is told of each step; it must not block. Nil means nobody is.
	Step func(Step)
	// Took is told how long each step took that is over, and whether it failed;
	// and the time a command waited in its queue, as StepWait. Nil means
	// nobody is.
	Took func(ctx context.Context, step string, d time.Duration, failed bool)
	// Concluded is told of each answer that is journalled, before it is
	// published; nil means nobody is.
	Concluded func(ctx context.Context, in protocol.InputMessage, out protocol.OutputMessage)
	Log       *slog.Logger // nil means none
}

const (
	defaultAttempts = 3
	// maxRuns bounds the runs of a command that ended without a word, as a
	// crash ends them.
	maxRuns = 10
	// cleanUp bounds what is done after a job was cut: a commit, a push and
	// a journal write.
	cleanUp = time.Minute
)

// Handle carries a command out and returns its answer. What the user, the agent
// or the repository caused is an answer. An error is a *StepError, which if
// Permanent is to be given to Fail, or else run again; or it is one that
// HandedBack knows.
//
// ctx ends with the cause *InterruptError, ErrShutdown or claim.ErrLeaseLost.
func (h *Instruction) Handle(ctx context.Context, in protocol.InputMessage) (protocol.Answer, error) {
	j, answer, err := h.open(ctx, in)
	if j == nil {
		return answer, err
	}
	if err := h.admit(j); err != nil {
		return protocol.Answer{}, cmp.Or(j.opened(ctx), err)
	}
	return j.handle(ctx)
}

// TakeOver is called before the first command of a tenure that began with an
// unclean takeover: the former owner may be frozen, and its children with it. It
// may be called again.
func (h *Instruction) TakeOver(ctx context.Context) error {
	if err := h.Lease.Check(); err != nil {
		return err
	}
	ctx, unbind := h.Lease.Bind(ctx)
	defer unbind()
	return h.Workspaces.TakeOver(ctx, workspace.TakeOverRequest{
		ProjectID: h.Pair.ProjectID, UserID: h.Pair.UserID, Dir: h.Pair.Dir(), Rescue: agent.Rescue,
	})
}

// Tidy bounds what the workspace keeps. Nothing else is asked for meanwhile; ctx may
// end at any time.
func (h *Instruction) Tidy(ctx context.Context) error {
	if err := h.Lease.Check(); err != nil {
		return err
	}
	ctx, unbind := h.Lease.Bind(ctx)
	defer unbind()
	return h.Workspaces.Trim(ctx, workspace.TrimRequest{
		ProjectID: h.Pair.ProjectID, UserID: h.Pair.UserID, Dir: h.Pair.Dir(),
		Rest: func(w *workspace.Workspace) error {
			return errors.Join(agent.Trim(w.Conversations(), h.now()), build.Trim(w.Cache(), w.Downloads(), h.now()))
		},
	})
}

// check refuses what breaks a rule.
func (h *Instruction) check(in protocol.InputMessage) error {
	if in.Pair() != h.Pair {
		return &StepError{
			Code: protocol.WrongProject, Permanent: true,
			Reason: fmt.Sprintf("this queue belongs to project %q and user %q", h.Pair.ProjectID, h.Pair.UserID),
		}
	}
	if err := in.Validate(h.Rules); err != nil {
		return failureOf(err)
	}
	return nil
}

// admit refuses what will not be worked on.
func (h *Instruction) admit(j *job) error {
	if err := h.check(j.in); err != nil {
		return err
	}
	switch {
	case j.entry.Runs > maxRuns:
		return &StepError{
			Code: protocol.Internal, Permanent: true,
			Reason: fmt.Sprintf("the worker crashed %d times while carrying this instruction out", maxRuns),
		}
	case j.entry.Tries >= h.attempts():
		return &StepError{Code: j.out.ErrorCode, Reason: j.out.Error, Permanent: true}
	}
	return nil
}

func (h *Instruction) attempts() int {
	if h.MaxAttempts == 0 {
		return defaultAttempts
	}
	return h.MaxAttempts
}

// open asks the journal first. Without a job, the answer is all there is to do. With
// one, the journal does not know of this run yet; see opened.
func (h *Instruction) open(ctx context.Context, in protocol.InputMessage) (*job, protocol.Answer, error) {
	e, found, err := h.Journal.Load(ctx, h.Lease.Key(), h.entryID(in))
	if err != nil {
		return nil, protocol.Answer{}, h.internal(ctx, err)
	}
	digest := in.Digest()
	switch {
	case !found:
		e = journal.Entry{
			ProjectKey: h.Lease.Key(), CommandID: h.entryID(in), ThreadID: in.ThreadID,
			Digest: digest, Sent: in.Delivery.Sent, Attempt: 1,
		}
		if !in.Delivery.Sent.IsZero() {
			h.took(ctx, StepWait, h.now().Sub(in.Delivery.Sent), false)
		}
	case e.Digest != digest:
		return nil, protocol.Answer{}, reused(&e, digest)
	case e.Has(journal.Finished) && slices.Contains(e.Seen, in.Delivery.MessageID):
		return nil, protocol.Answer{}, nil // answered under this message id
	case e.Has(journal.DeadLettered) && e.Has(journal.Answered):
		e.Restart() // somebody took it out of the dead-letter queue
	case e.Has(journal.Finished):
		return nil, protocol.Answer{Body: e.Output, Attributes: e.Attributes}, nil
	}
	j, err := newJob(h, in, e)
	if err != nil {
		return nil, protocol.Answer{}, h.internal(ctx, err)
	}
	j.entry.Runs++
	return j, protocol.Answer{}, nil
}

// reused refuses another content under a known command id, once per content.
func reused(e *journal.Entry, digest string) error {
	if slices.Contains(e.Reused, digest) {
		return nil
	}
	return &StepError{
		Code: protocol.CommandIDReused, Permanent: true,
		Reason: "another instruction was sent with this commandId before; send this one with an id of its own",
	}
}

// entryID is the command's id in the journal. A message of another pair that
// came by our queue cannot touch an entry of ours.
func (h *Instruction) entryID(in protocol.InputMessage) string {
	if in.Pair() == h.Pair {
		return in.CommandID
	}
	return in.Pair().Key() + "\x00" + in.CommandID
}

// Known reports whether a command has been answered already; such a one
// interrupts nothing.
func (h *Instruction) Known(ctx context.Context, in protocol.InputMessage) bool {
	e, found, err := h.Journal.Load(ctx, h.Lease.Key(), h.entryID(in))
	return err == nil && found && e.Has(journal.Finished)
}

// Fail journals the answer of a command that is given up, and returns it. Its
// message is in a dead-letter queue by now. The answer is empty if there is
// nobody to answer.
func (h *Instruction) Fail(ctx context.Context, in protocol.InputMessage, cause error) (protocol.Answer, error) {
	if !in.Answerable() {
		return protocol.Answer{}, nil
	}
	ctx, cancel := h.detach(ctx)
	defer cancel()
	f := failureOf(cause)
	e, found, err := h.Journal.Load(ctx, h.Lease.Key(), h.entryID(in))
	if err != nil {
		return protocol.Answer{}, err
	}
	if !found || e.Digest != in.Digest() { // refused before it had an entry, or the entry is another's
		e = journal.Entry{ProjectKey: h.Lease.Key(), CommandID: h.entryID(in), Digest: in.Digest(), Attempt: 1}
	}
	j, err := newJob(h, in, e)
	if err != nil {
		return protocol.Answer{}, err
	}
	j.out.ErrorCode, j.out.Error = f.Code, f.Reason
	if f.Code == protocol.CommandIDReused { // the entry stays that of the first content
		a, err := j.encode(ctx)
		if err == nil {
			j.conclude(ctx)
		}
		return a, err
	}
	j.entry.Add(journal.DeadLettered)
	return j.finish(ctx)
}

// CutOff answers a command that was interrupted between two runs.
func (h *Instruction) CutOff(ctx context.Context, in protocol.InputMessage) (protocol.Answer, error) {
	clean, cancel := h.detach(ctx)
	defer cancel()
	j, answer, err := h.open(clean, in)
	if j == nil {
		return answer, err
	}
	if err := j.opened(clean); err != nil {
		return protocol.Answer{}, err
	}
	if err := h.check(in); err != nil { // it may not have come to that
		return protocol.Answer{}, err
	}
	var i *InterruptError
	if errors.As(context.Cause(ctx), &i) && !j.heed(clean, i) {
		return protocol.Answer{}, h.internal(ctx, errors.New("the interruption could not be journalled"))
	}
	return j.cutOff(clean)
}

// Answered records that the answer of a command was published. It may fail: then
// a redelivery publishes the same bytes again.
func (h *Instruction) Answered(ctx context.Context, in protocol.InputMessage) error {
	ctx, cancel := h.detach(ctx)
	defer cancel()
	e, found, err := h.Journal.Load(ctx, h.Lease.Key(), h.entryID(in))
	if err != nil || !found {
		return err
	}
	if digest := in.Digest(); e.Digest != digest {
		e.Reused = append(e.Reused, digest)
	} else {
		e.Seen = append(e.Seen, in.Delivery.MessageID)
		e.Add(journal.Answered)
	}
	return h.save(ctx, &e)
}

func (h *Instruction) save(ctx context.Context, e *journal.Entry) error {
	if err := h.Lease.Check(); err != nil {
		return err
	}
	return h.Journal.Save(ctx, e, h.fence())
}

func (h *Instruction) fence() journal.Fence {
	return journal.Fence{ProjectKey: h.Lease.Key(), Number: h.Lease.Fence()}
}

// detach returns a context for what must be done although the job was
// cancelled: it ends with the lease, or after a minute.
func (h *Instruction) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	ctx, unbind := h.Lease.Bind(ctx)
	return ctx, func() { unbind(); cancel() }
}

// internal is a failure of ours; a lost fence or workspace is a lost lease.
func (h *Instruction) internal(ctx context.Context, err error) error {
	if errors.Is(err, journal.ErrFenced) || errors.Is(err, workspace.ErrTaken) || h.Lease.Check() != nil {
		return claim.ErrLeaseLost // the context may not have ended yet
	}
	if cause := cutShort(ctx); cause != nil {
		return cause
	}
	return failureOf(err)
}

func (h *Instruction) now() time.Time {
	if h.Now == nil {
		return time.Now()
	}
	return h.Now()
}

func (h *Instruction) log() *slog.Logger {
	if h.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return h.Log
}

func (h *Instruction) took(ctx context.Context, step string, d time.Duration, failed bool) {
	if h.Took != nil {
		h.Took(ctx, step, max(d, 0), failed) // clocks of two machines differ
	}
}
