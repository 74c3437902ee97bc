package handlers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// TestFrozenWorkerBlamesNobody: a build that was ended since the worker was
// frozen has not failed.
func TestFrozenWorkerBlamesNobody(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "build" {
			w.runner.Silence, w.runner.Heartbeat = 3*time.Second, time.Hour
		}
	}
	m := w.message("t", "c-1", "page WAIT")
	if f := w.refuse(m); f.Permanent || f.Code != protocol.Internal {
		t.Errorf("got %+v", f)
	}
	if e := w.entry(); e.Tries != 1 || e.Blamed {
		t.Errorf("entry %+v", e)
	}
}

// TestTakeOver: the next owner finds what a frozen one had done of a command, and
// the command ends in a commit of its own. Nothing of it is answered twice.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]bool{"the same command first": false, "another command first": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			frozen := make(chan struct{})
			w.agent.play["do it"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
				if w.agent.ran() > 1 {
					return agent.Result{Summary: "It was done already."}, nil
				}
				if err := write(r, "page.html", "done"); err != nil {
					return agent.Result{}, err
				}
				close(frozen)
				panic("crash")
			}
			m := w.message("t", "c-1", "do it")
			w.crash(m)
			<-frozen
			if err := w.h.TakeOver(t.Context()); err != nil {
				t.Fatal(err)
			}
			if between {
				other := w.message("u", "c-2", "look")
				other.RepoURL = "" // it came with the first instruction
				w.succeed(other)
			}
			out := w.succeed(m)
			if d := cmp.Diff([]string{"do it", "WIP: unfinished work"}, w.log("thread-t")); d != "" {
				t.Error("commits:", d)
			}
			if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
				t.Error("files:", d)
			}
			if w.live() != "done" || out.CommitID != w.head("thread-t") {
				t.Errorf("live page %q, answer %+v", w.live(), out)
			}
		})
	}
}

// TestTakeOverOfACommittedCommand: its commit was not pushed, and it is not made
// again.
func TestTakeOverOfACommittedCommand(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "build" {
			panic("crash")
		}
	}
	m := w.message("t", "c-1", "page one")
	w.crash(m)
	w.step = nil
	if err := w.h.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := w.succeed(m)
	if d := cmp.Diff([]string{"page one"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
	if w.agent.ran() != 1 || w.live() != "one" || out.CommitID != w.head("thread-t") {
		t.Errorf("the agent ran %d times, live page %q, answer %+v", w.agent.ran(), w.live(), out)
	}
}

// TestTakeOverThenInterrupted: the interruption was decided before the crash; the
// answer tells of the work that was saved.
func TestTakeOverThenInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.agent.play["do it"] = func(work context.Context, r agent.Request) (agent.Result, error) {
		if err := write(r, "page.html", "half"); err != nil {
			return agent.Result{}, err
		}
		cancel(&handlers.InterruptError{By: "c-2"})
		<-work.Done()
		panic("crash")
	}
	m := w.message("t", "c-1", "do it")
	func() {
		defer func() { recover() }() //nolint:errcheck // the crash
		w.h.Handle(ctx, m)           //nolint:errcheck // it panics
	}()
	if err := w.h.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := w.do(m)
	if !out.Interrupted || out.CommitID != w.head("thread-t") {
		t.Errorf("answer %+v", out)
	}
	if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
		t.Error("files:", d)
	}
}

// TestTakenWorkspaceIsALostLease: who finds another's checkout at its path has
// slept through the end of its claim.
func TestTakenWorkspaceIsALostLease(t *testing.T) {
	w := newWorld(t)
	w.agent.play["do it"] = func(ctx context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{}, errors.Join(w.h.TakeOver(ctx), write(r, "page.html", "late"))
	}
	if _, err := w.h.Handle(t.Context(), w.message("t", "c-1", "do it")); !handlers.HandedBack(err) {
		t.Errorf("got %v", err)
	}
	w.h.Lease.Abandon()
	if err := w.h.TakeOver(t.Context()); !errors.Is(err, claim.ErrLeaseLost) {
		t.Errorf("got %v", err)
	}
}
