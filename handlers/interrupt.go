package handlers

import (
	"context"
	"errors"
	"log/slog"

	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// InterruptError is the cause with which the job of an interrupted command is
// cancelled.
type InterruptError struct {
	By string // the id of the newer command; empty for an INTERRUPT
}

// Error implements error.
func (e *InterruptError) Error() string {
	if e.By == "" {
		return "interrupted on request"
	}
	return "interrupted by command " + e.By
}

// interruptible returns the context for the steps. It ends when ctx does, except
// for an interruption, which ends it only if it is heeded: it must be in the
// journal before anything is killed, and it must come before the first page is
// uploaded. stop is called after the steps.
func (j *job) interruptible(ctx context.Context) (work context.Context, stop func()) {
	work, unbind := j.h.Lease.Bind(context.WithoutCancel(ctx))
	work, cancel := context.WithCancelCause(work)
	unwatch := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		var i *InterruptError
		if !errors.As(cause, &i) || j.heed(work, i) {
			cancel(cause)
		}
	})
	return work, func() {
		unwatch()
		cancel(context.Canceled)
		unbind()
	}
}

// heed journals an interruption; false if it comes too late or could not be
// journalled.
func (j *job) heed(ctx context.Context, i *InterruptError) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false
	}
	j.entry.Interrupted, j.entry.InterruptedBy = true, i.By
	if err := j.h.save(ctx, &j.entry); err != nil {
		j.entry.Interrupted, j.entry.InterruptedBy = false, ""
		j.h.log().WarnContext(ctx, "interruption not heeded: it could not be journalled", slog.Any("error", err))
		return false
	}
	j.closed = true
	return true
}

// closeWindow commits to what runs: interruptions come too late from here on. It
// returns false if one came in time.
func (j *job) closeWindow() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	return !j.entry.Interrupted
}

// cutOff saves the partial work of an interrupted command and answers it.
func (j *job) cutOff(ctx context.Context) (protocol.Answer, error) {
	ctx, cancel := j.h.detach(ctx)
	defer cancel()
	if j.ws == nil {
		if err := j.openWorkspace(ctx); err != nil {
			j.h.log().WarnContext(ctx, "interrupted before the workspace was open", slog.Any("error", err))
		}
	}
	if j.ws != nil {
		if err := j.saveWork(ctx); err != nil {
			return protocol.Answer{}, j.failed(ctx, err)
		}
		if err := j.remember(); err != nil {
			j.h.log().WarnContext(ctx, "next instruction will not hear of the interruption", slog.Any("error", err))
		}
	}
	j.out.Interrupted, j.out.ErrorCode = true, protocol.Interrupted
	j.out.Error = "A newer instruction came in before this one was done. What was done so far is kept on the branch."
	if j.entry.InterruptedBy == "" {
		j.out.Error = "This instruction was stopped on request. What was done so far is kept on the branch."
	}
	return j.finish(ctx)
}

// handBack saves the work of a command that another worker will go on with.
func (j *job) handBack(ctx context.Context) {
	ctx, cancel := j.h.detach(ctx)
	defer cancel()
	var err error
	if j.ws != nil {
		err = j.saveWork(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entry.Runs = 0
	if serr := j.h.save(ctx, &j.entry); err == nil {
		err = serr
	}
	if err != nil {
		j.h.log().WarnContext(ctx, "unfinished work not saved; it is still in the checkout", slog.Any("error", err))
	}
}

// saveWork commits what there is as a WIP commit and pushes it. A commit that
// was made but not pushed becomes one. A push that fails is made up for by the
// thread's next one.
func (j *job) saveWork(ctx context.Context) error {
	own := j.entry.Has(journal.Committed) && j.entry.Commit != j.entry.Base
	if own && j.entry.Has(journal.Pushed) {
		return nil
	}
	c, err := j.ws.Commit(ctx, workspace.CommitRequest{Message: wipMessage(j.in), Amend: own && j.entry.Interrupted})
	switch {
	case errors.Is(err, workspace.ErrNoChange) && !own && j.entry.Wip != "":
		if err := j.takeWip(ctx); err != nil {
			return err
		}
	case errors.Is(err, workspace.ErrNoChange):
		if !own {
			return nil
		}
	case err != nil:
		return err
	default:
		j.mu.Lock()
		if j.entry.Interrupted {
			j.entry.Commit = c.SHA
		} else {
			j.entry.Wip = c.SHA
		}
		j.mu.Unlock()
		j.out.CommitID = c.SHA
		j.out.SetFiles(c.Files)
	}
	if _, err := j.ws.Push(ctx, workspace.PushRequest{SHA: j.out.CommitID, CommandID: j.in.CommandID}); err != nil {
		j.h.log().WarnContext(ctx, "unfinished work not pushed", slog.Any("error", err))
	}
	return nil
}

// takeWip answers with what was saved when the command was cut before, if there
// is no more.
func (j *job) takeWip(ctx context.Context) error {
	head := j.ws.Head()
	files, err := j.ws.Files(ctx, j.entry.Base, head)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.entry.Interrupted {
		j.entry.Commit = head
	}
	j.out.CommitID = head
	j.out.SetFiles(files)
	return nil
}
