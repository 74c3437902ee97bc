package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// half is an agent that writes a page and fails then.
func half(err error) agentFunc {
	return func(_ context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{Turns: 1, CostUSD: 0.25}, errors.Join(write(r, "page.html", "half"), err)
	}
}

// TestErrorsAreNotSwallowed: the replaced system answered success whatever had
// happened. What goes wrong for good is the answer, and the work is kept.
func TestErrorsAreNotSwallowed(t *testing.T) {
	t.Parallel()
	page := func(path, text string) agentFunc {
		return func(_ context.Context, r agent.Request) (agent.Result, error) {
			return agent.Result{}, write(r, path, text)
		}
	}
	tests := []struct {
		name  string
		agent agentFunc
		want  protocol.ErrorCode
		says  string // in the answer
		log   []string
	}{
		{
			"the agent fails", half(&agent.Error{Code: agent.CodeTurnLimit, Message: "Too many turns."}),
			protocol.AgentTurnLimit, "Too many turns.",
			[]string{"WIP: do it"},
		},
		{
			"the agent refuses", func(context.Context, agent.Request) (agent.Result, error) {
				return agent.Result{}, &agent.Error{Code: agent.CodeRefused, Message: "I will not."}
			},
			protocol.AgentRefused, "I will not.", nil,
		},
		{"the build fails", page("page.html", "BREAK"), protocol.BuildFailed, "page.html", []string{"do it"}},
		{
			"the site must not be deployed", page("build.cjs", "const fs = require('fs'); fs.mkdirSync('dist', {recursive: true});"+
				"fs.writeFileSync('dist/index.html', 'x'); fs.writeFileSync('dist/.env', 'SECRET=1')"),
			protocol.DeployRefused, ".env",
			[]string{"do it"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.agent.play["do it"] = tt.agent
			out := w.do(w.message("t", "c-1", "do it"))
			if out.Success || out.ErrorCode != tt.want || !strings.Contains(out.Error, tt.says) || out.DeploySuccess || out.Interrupted {
				t.Errorf("answer %+v, want %s that says %q", out, tt.want, tt.says)
			}
			if d := cmp.Diff(tt.log, w.log("thread-t")); d != "" {
				t.Errorf("commits (-want +got):\n%s", d)
			}
			if len(tt.log) > 0 && (out.CommitID != w.head("thread-t") || len(out.FilesChanged) != 1) {
				t.Errorf("answer does not name the work: %+v", out)
			}
			if w.live() != "" {
				t.Errorf("live page %q", w.live())
			}
			if e := w.entry(); !e.Has(journal.Answered) || e.Has(journal.DeadLettered) || e.Runs != 0 {
				t.Errorf("entry %+v", e)
			}
			w.agent.play["mend"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
				return agent.Result{}, errors.Join(write(r, "page.html", "mended"), write(r, "build.cjs", site()["build.cjs"]))
			}
			if out := w.succeed(w.message("t", "c-2", "mend")); w.live() != "mended" {
				t.Errorf("live page %q after the answer %+v", w.live(), out)
			}
		})
	}
}

// TestConflictIsAnswered: somebody changes the same line while the agent works.
func TestConflictIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.succeed(w.message("t", "c-1", "page one"))
	w.agent.play["late"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		w.git.Commit(t, repoName, "thread-t", "theirs", map[string]string{"page.html": "theirs\n"}) //nolint:contextcheck // it is somebody else, elsewhere
		return agent.Result{}, write(r, "page.html", "ours")
	}
	out := w.do(w.message("t", "c-2", "late"))
	if out.Success || out.ErrorCode != protocol.MergeConflict || out.Branch != "thread-t-conflict-c-2" || !strings.Contains(out.Error, "page.html") {
		t.Errorf("answer %+v", out)
	}
	if w.page(out.Branch) != "ours" || w.page("thread-t") != "theirs" || out.CommitID != w.head(out.Branch) {
		t.Error("want ours on a branch of its own, and theirs on the thread's")
	}
	w.succeed(w.message("t", "c-3", "look"))
	if w.live() != "theirs" {
		t.Errorf("live page %q, want that of the thread", w.live())
	}
}

// TestTransientFailuresAreCounted: a failure that may pass is no answer until it
// was met as often as is allowed, by whatever worker.
func TestTransientFailuresAreCounted(t *testing.T) {
	w := newWorld(t)
	overloaded := &agent.Error{Code: agent.CodeModelOverloaded, Message: "The model is busy.", Transient: true, RetryAfter: time.Minute}
	w.agent.play["do it"] = half(overloaded)
	m := w.message("t", "c-1", "do it")
	for try := 1; try <= 3; try++ {
		f := w.refuse(m)
		if f.Code != protocol.ModelOverloaded || f.Permanent != (try == 3) || f.RetryAfter != time.Minute || !errors.Is(f, overloaded) {
			t.Errorf("try %d: failure %+v", try, f)
		}
		if e := w.entry(); e.Tries != try || e.Runs != 0 || e.Has(journal.Agent) || e.Has(journal.Finished) {
			t.Errorf("try %d: entry %+v", try, e)
		}
		if told := len(w.agent.last().Notes) > 0; told != (try > 1) {
			t.Errorf("try %d: told that it began before: %v", try, told)
		}
		if try == 1 {
			w.nextWorker()
		}
	}
	f := w.refuse(m) // as if the worker had died before it gave up
	if f.Code != protocol.ModelOverloaded || f.Reason != "The model is busy." || !f.Permanent || w.agent.ran() != 3 {
		t.Errorf("after the last try: failure %+v, the agent ran %d times", f, w.agent.ran())
	}
	out := w.do(m)
	if out.Success || out.ErrorCode != protocol.ModelOverloaded || out.Error != "The model is busy." || out.Agent.Turns != 3 || out.Agent.CostUSD != 0.75 {
		t.Errorf("answer %+v", out)
	}
	if e := w.entry(); !e.Has(journal.DeadLettered) || !e.Has(journal.Answered) {
		t.Errorf("entry %+v", e)
	}
}

// TestRunsAreToldWhatIsSpent: the limits are a command's, whoever runs it; another
// command begins anew.
func TestRunsAreToldWhatIsSpent(t *testing.T) {
	w := newWorld(t)
	busy := &agent.Error{Code: agent.CodeModelOverloaded, Message: "The model is busy.", Transient: true}
	cost := agent.Result{Turns: 3, CostUSD: 0.5, Tokens: 700}
	w.agent.play["do it"] = func(context.Context, agent.Request) (agent.Result, error) { return cost, busy }
	m := w.message("t", "c-1", "do it")
	_ = w.refuse(m)
	if d := cmp.Diff(agent.Spent{}, w.agent.last().Spent); d != "" {
		t.Error("the first run:", d)
	}
	w.nextWorker()
	_ = w.refuse(m)
	if d := cmp.Diff(agent.Spent{Turns: 3, CostUSD: 0.5, Tokens: 700}, w.agent.last().Spent); d != "" {
		t.Error("the second run:", d)
	}
	w.agent.play["do it"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		return cost, write(r, "page.html", "done")
	}
	out := w.succeed(m)
	if d := cmp.Diff(agent.Spent{Turns: 6, CostUSD: 1, Tokens: 1400}, w.agent.last().Spent); d != "" {
		t.Error("the third run:", d)
	}
	if out.Agent.Turns != 9 || out.Agent.CostUSD != 1.5 || out.Agent.Tokens != 2100 {
		t.Errorf("answer %+v", out.Agent)
	}
	w.succeed(w.message("t", "c-2", "page two"))
	if d := cmp.Diff(agent.Spent{}, w.agent.last().Spent); d != "" {
		t.Error("another command:", d)
	}
}

// TestTransientFailureIsForgotten when the command comes to its end after all.
func TestTransientFailureIsForgotten(t *testing.T) {
	w := newWorld(t)
	busy := half(&agent.Error{Code: agent.CodeModelOverloaded, Message: "The model is busy.", Transient: true})
	w.agent.play["do it"] = busy
	_ = w.refuse(w.message("t", "c-1", "do it"))
	delete(w.agent.play, "do it")
	out := w.succeed(w.message("t", "c-1", "do it"))
	if out.Error != "" || out.ErrorCode != "" || w.live() != "half" || w.agent.ran() != 2 {
		t.Errorf("answer %+v, live page %q", out, w.live())
	}
}

// TestStepsThatFailedAreRunAgain, and only these: what is done stays done.
func TestStepsThatFailedAreRunAgain(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		name string
		step string // before it, the world breaks
		snap func(w *world)
		mend func(w *world)
		want protocol.ErrorCode
		runs []string // the steps of the run that succeeds
	}{
		{
			"the remote does not answer", "push",
			func(w *world) {
				w.git.Fault(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) }))
			},
			func(w *world) { w.git.Fault(nil) },
			protocol.RepoUnreachable,
			[]string{"workspace", "push"},
		},
		{
			"the remote declines", "push",
			func(w *world) { hook(w, "exit 1") }, func(w *world) { hook(w, "exit 0") },
			protocol.PushFailed,
			[]string{"workspace", "push"},
		},
		{
			"the bucket fails", "deploy",
			func(w *world) { w.put = func(context.Context, string) error { return boom } },
			func(w *world) { w.put = nil },
			protocol.DeployFailed,
			[]string{"workspace", "deploy"},
		},
		{
			"the journal fails", "build",
			func(w *world) { w.write = func(journal.Record) error { return boom } },
			func(w *world) { w.write = nil },
			protocol.Internal,
			[]string{"workspace", "build", "deploy", "push"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			m := w.message("t", "c-1", "page one")
			for range 2 {
				w.step = func(name string) {
					if name == tt.step {
						tt.snap(w)
					}
				}
				if f := w.refuse(m); f.Code != tt.want || f.Permanent {
					t.Fatalf("failure %+v, want a transient %s", f, tt.want)
				}
				tt.mend(w)
			}
			w.step = nil
			w.stepped()
			out := w.succeed(m)
			steps := w.stepped()
			slices.Sort(steps)
			slices.Sort(tt.runs)
			if d := cmp.Diff(tt.runs, steps); d != "" {
				t.Errorf("steps of the last run (-want +got):\n%s", d)
			}
			if w.agent.ran() != 1 {
				t.Errorf("the agent ran %d times", w.agent.ran())
			}
			if d := cmp.Diff([]string{"page one"}, w.log("thread-t")); d != "" {
				t.Error("commits:", d)
			}
			if w.live() != "one" || !out.DeploySuccess || !out.BuildSuccess || out.CommitID != w.head("thread-t") || out.Summary != "Did: page one" {
				t.Errorf("answer %+v, live page %q", out, w.live())
			}
		})
	}
}

// hook makes the remote run a script before it takes a push.
func hook(w *world, script string) {
	w.t.Helper()
	dir := filepath.Join(w.git.Bare(repoName), "hooks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pre-receive"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		w.t.Error(err)
	}
}

// TestBuildIsNotDeployedAsAnothers: between two runs of a command another one
// used the checkout, so what lies in dist is not the first one's.
func TestBuildIsNotDeployedAsAnothers(t *testing.T) {
	t.Parallel()
	for _, second := range []string{"page two", "vandalize"} {
		t.Run(second, func(t *testing.T) {
			w := newWorld(t)
			w.agent.play["vandalize"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
				return agent.Result{}, errors.Join(write(r, "dist/index.html", "mine"), &agent.Error{Code: agent.CodeFailed, Message: "no"})
			}
			w.put = func(context.Context, string) error { return errors.New("boom") }
			first := w.message("a", "c-1", "page one")
			_ = w.refuse(first)
			w.put = nil
			other := w.message("b", "c-2", second)
			other.Delivery.Sent = first.Delivery.Sent.Add(-time.Hour)
			w.do(other)
			if out := w.succeed(first); w.live() != "one" || out.CommitID != w.head("thread-a") {
				t.Errorf("live page %q", w.live())
			}
			if w.agent.ran() != 2 {
				t.Errorf("the agent ran %d times", w.agent.ran())
			}
		})
	}
}

// TestWorkThatIsGoneIsDoneAgain: a commit that was not pushed is lost with the
// worker's disk.
func TestWorkThatIsGoneIsDoneAgain(t *testing.T) {
	w := newWorld(t)
	hook(w, "exit 1")
	m := w.message("t", "c-1", "page one")
	_ = w.refuse(m)
	hook(w, "exit 0")
	w.nextWorker()
	out := w.succeed(m)
	if w.agent.ran() != 2 || out.CommitID != w.head("thread-t") || w.live() != "one" {
		t.Errorf("the agent ran %d times, live page %q, answer %+v", w.agent.ran(), w.live(), out)
	}
	if d := cmp.Diff([]string{"page one"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
}

// crash carries a command out until the agent ends the worker.
func (w *world) crash(m protocol.InputMessage) {
	w.t.Helper()
	defer func() {
		if recover() == nil {
			w.t.Fatal("the worker did not crash")
		}
	}()
	w.h.Handle(w.t.Context(), m) //nolint:errcheck // it panics
}

func TestCrashesAreCounted(t *testing.T) {
	w := newWorld(t)
	w.agent.play["die"] = func(context.Context, agent.Request) (agent.Result, error) { panic("crash") }
	m := w.message("t", "c-1", "die")
	for range 10 {
		w.crash(m)
	}
	if e := w.entry(); e.Runs != 10 || e.Tries != 0 {
		t.Errorf("entry %+v", e)
	}
	out := w.do(m)
	if out.ErrorCode != protocol.Internal || !strings.Contains(out.Error, "crashed 10 times") || w.agent.ran() != 10 {
		t.Errorf("answer %+v, the agent ran %d times", out, w.agent.ran())
	}
}

// TestCrashWithAnotherCommandBetween: the work of the crashed run was saved when
// the other command needed the checkout, and is part of the thread.
func TestCrashWithAnotherCommandBetween(t *testing.T) {
	w := newWorld(t)
	w.agent.play["do it"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		if w.agent.ran() > 1 {
			return agent.Result{Summary: "It was done already."}, nil
		}
		panic(fmt.Sprint("crash ", write(r, "page.html", "done")))
	}
	m := w.message("a", "c-1", "do it")
	w.crash(m)
	w.succeed(w.message("b", "c-2", "look"))
	out := w.succeed(m)
	if out.CommitID != w.head("thread-a") {
		t.Errorf("answer names %s, the thread is at %s", out.CommitID, w.head("thread-a"))
	}
	if w.page("thread-a") != "done" {
		t.Error("the work is not on its branch")
	}
	if d := cmp.Diff([]string{"do it", "WIP: unfinished work"}, w.log("thread-a")); d != "" {
		t.Error("the command has no commit of its own:", d)
	}
	if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
		t.Error(d)
	}
}

// TestCrashAfterTheCommit: the commit was made, and nobody wrote that down.
func TestCrashAfterTheCommit(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "commit" {
			w.write = func(journal.Record) error { panic("crash") }
		}
	}
	m := w.message("t", "c-1", "page one")
	w.crash(m)
	w.step, w.write = nil, nil
	out := w.succeed(m)
	if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"page one"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
	if w.agent.ran() != 1 || w.live() != "one" || out.CommitID != w.head("thread-t") {
		t.Errorf("the agent ran %d times, live page %q, answer %+v", w.agent.ran(), w.live(), out)
	}
}

// TestCrashAfterTheCommitOfARerun is the same for a command that had been cut off
// before: its own commit may be empty, and is made once.
func TestCrashAfterTheCommitOfARerun(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.agent.play["page one"] = func(ctx context.Context, r agent.Request) (agent.Result, error) {
		cancel(handlers.ErrShutdown)
		<-ctx.Done()
		return agent.Result{}, errors.Join(write(r, "page.html", "one"), context.Cause(ctx))
	}
	m := w.message("t", "c-1", "page one")
	if _, err := w.h.Handle(ctx, m); !handlers.HandedBack(err) {
		t.Fatalf("got %v, want a message handed back", err)
	}
	delete(w.agent.play, "page one")
	w.step = func(name string) {
		if name == "commit" {
			w.write = func(journal.Record) error { panic("crash") }
		}
	}
	w.crash(m)
	w.step, w.write = nil, nil
	out := w.succeed(m)
	if d := cmp.Diff([]string{"page one", "WIP: page one"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
	if w.live() != "one" || out.CommitID != w.head("thread-t") {
		t.Errorf("live page %q, answer %+v", w.live(), out)
	}
}

func TestMessagesThatAreRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(m *protocol.InputMessage)
		want  protocol.ErrorCode
	}{
		{"no instruction", func(m *protocol.InputMessage) { m.Instruction = "" }, protocol.InvalidMessage},
		{"a defect", func(m *protocol.InputMessage) { m.Defect = "threadId is not a string" }, protocol.InvalidMessage},
		{"another host", func(m *protocol.InputMessage) { m.RepoURL = "https://example.com/x.git" }, protocol.RepoNotAllowed},
		{"no repository", func(m *protocol.InputMessage) { m.RepoURL = "" }, protocol.RepoMissing},
		{"another project", func(m *protocol.InputMessage) { m.ProjectID = "bernard" }, protocol.WrongProject},
		{"another user", func(m *protocol.InputMessage) { m.UserID = "sue" }, protocol.WrongProject},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			m := w.message("t", "c-1", "page one")
			tt.spoil(&m)
			if f := w.refuse(m); f.Code != tt.want || !f.Permanent {
				t.Errorf("failure %+v, want a permanent %s", f, tt.want)
			}
			out := w.do(m)
			if out.Success || out.ErrorCode != tt.want || out.Error == "" || out.ProjectID != m.ProjectID || out.UserID != m.UserID {
				t.Errorf("answer %+v, want %s", out, tt.want)
			}
			if w.agent.ran() > 0 || w.live() != "" {
				t.Error("it was worked on")
			}
		})
	}
}

// TestStrangersDoNotTouchOurCommand: a message of another pair in our queue has
// the command id of one of ours.
func TestStrangersDoNotTouchOurCommand(t *testing.T) {
	w := newWorld(t)
	w.succeed(w.message("t", "c-1", "page one"))
	before := w.entry()
	m := w.message("t", "c-1", "page one")
	m.UserID = "sue"
	if out := w.do(m); out.ErrorCode != protocol.WrongProject || out.UserID != "sue" {
		t.Errorf("answer %+v", out)
	}
	if d := cmp.Diff(before, w.entry()); d != "" {
		t.Error("entry of our command:", d)
	}
	if a, err := w.h.Handle(t.Context(), m); err != nil || a.Body != nil {
		t.Errorf("delivered again: %s, %v", a.Body, err)
	}
}

// TestNobodyToAnswer: ids that are no ids name no queue for an answer.
func TestNobodyToAnswer(t *testing.T) {
	w := newWorld(t)
	m := w.message("t", "c-1", "page one")
	m.ProjectID = "../.."
	f := w.refuse(m)
	if a, err := w.h.Fail(t.Context(), m, f); err != nil || a.Body != nil || a.Attributes != nil {
		t.Errorf("answer %s, %v", a.Body, err)
	}
}

func TestFailureError(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		f    handlers.StepError
		want string
	}{
		{handlers.StepError{Code: protocol.Internal, Reason: "why"}, "internal: why"},
		{handlers.StepError{Code: protocol.Internal, Reason: "why", Err: boom}, "internal: why"},
		{handlers.StepError{Code: protocol.Internal, Err: boom}, "internal: boom"},
	}
	for _, tt := range tests {
		if got := tt.f.Error(); got != tt.want || errors.Is(&tt.f, boom) != (tt.f.Err != nil) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestLargeFileIsAnswered: no remote takes such a file.
func TestLargeFileIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.agent.play["film"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{}, errors.Join(write(r, "film.mp4", ""), os.Truncate(filepath.Join(r.Site, "film.mp4"), 101<<20))
	}
	if out := w.do(w.message("t", "c-1", "film")); out.ErrorCode != protocol.FileTooLarge || !strings.Contains(out.Error, "film.mp4") {
		t.Errorf("answer %+v", out)
	}
}
