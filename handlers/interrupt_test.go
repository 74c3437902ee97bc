package handlers_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// cut is an agent that writes a page and is then cut off with a cause. It tells
// what the journal knew when its context ended.
func cut(w *world, cancel context.CancelCauseFunc, cause error, e *journal.Entry) agentFunc {
	return func(ctx context.Context, r agent.Request) (agent.Result, error) {
		if err := write(r, "page.html", "half"); err != nil {
			return agent.Result{}, err
		}
		cancel(cause)
		<-ctx.Done()
		var err error
		*e, _, err = w.h.Journal.Load(context.WithoutCancel(ctx), "amelia#scott", "c-1")
		return agent.Result{Turns: 1}, errors.Join(err, context.Cause(ctx))
	}
}

// notes is what was left for the next run in a thread's conversation.
func notes(t *testing.T, r agent.Request) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.Conversations, agent.ConversationID("amelia", "scott", r.ThreadID, 0), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestInterruptionWhileTheAgentWorks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		by   string
		says string
	}{
		{"by a newer command", "c-2", "A newer instruction came in"},
		{"by an INTERRUPT", "", "stopped on request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			var known journal.Entry
			w.agent.play["do it"] = cut(w, cancel, &handlers.InterruptError{By: tt.by}, &known)
			out := w.doWith(ctx, w.message("t", "c-1", "do it"))
			if !known.Interrupted || known.InterruptedBy != tt.by {
				t.Errorf("the agent was killed before the interruption was journalled: %+v", known)
			}
			if out.Success || !out.Interrupted || out.ErrorCode != protocol.Interrupted || !strings.Contains(out.Error, tt.says) || out.BuildSuccess {
				t.Errorf("answer %+v", out)
			}
			if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff([]string{"WIP: do it"}, w.log("thread-t")); d != "" {
				t.Error("commits:", d)
			}
			if out.CommitID != w.head("thread-t") || w.page("thread-t") != "half" || w.live() != "" {
				t.Errorf("the work is not on its branch, or is live as %q", w.live())
			}
			w.succeed(w.message("t", "c-2", "look"))
			if said := notes(t, w.agent.last()); !strings.Contains(said, "interrupted") || !strings.Contains(said, "do it") {
				t.Errorf("the next agent is told %q", said)
			}
		})
	}
}

// TestInterruptionInEachStep is heeded until the first page is uploaded.
func TestInterruptionInEachStep(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		text string   // of the page
		step string   // interrupt as it begins
		put  string   // interrupt at the upload of this file
		wait bool     // the upload then ends with its context
		want bool     // interrupted
		log  []string // subjects, newest first
	}{
		{name: "as the workspace is opened", text: "one", step: "workspace", want: true},
		{name: "as the agent begins", text: "one", step: "agent", want: true},
		{name: "during the build", text: "WAIT", step: "build", want: true, log: []string{"WIP: page WAIT"}},
		{name: "before the pages", text: "one", put: "style.css", wait: true, want: true},
		{name: "with the pages", text: "one", put: "index.html", log: []string{"page one"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := &handlers.InterruptError{By: "c-2"}
			w.step = func(name string) {
				if name == tt.step {
					cancel(cause)
				}
			}
			w.put = func(ctx context.Context, key string) error {
				if key != tt.put {
					return nil
				}
				cancel(cause)
				if tt.wait {
					<-ctx.Done()
				}
				return context.Cause(ctx)
			}
			out := w.doWith(ctx, w.message("t", "c-1", "page "+tt.text))
			if out.Interrupted != tt.want || out.Success == tt.want || out.DeploySuccess == tt.want {
				t.Errorf("answer %+v, want interrupted %v", out, tt.want)
			}
			if tt.want != (w.live() == "") {
				t.Errorf("live page %q", w.live())
			}
			if log := w.log("thread-t"); tt.log != nil && cmp.Diff(tt.log, log) != "" {
				t.Errorf("commits %v, want %v", log, tt.log)
			}
			if len(out.FilesChanged) > 0 && w.page("thread-t") != tt.text {
				t.Error("the work that the answer names is not on its branch")
			}
			w.step, w.put = nil, nil
			if next := w.succeed(w.message("t", "c-2", "page two")); next.Interrupted || w.live() != "two" {
				t.Errorf("next answer %+v, live page %q", next, w.live())
			}
		})
	}
}

// TestInterruptedBuildIsNotAFailedBuild: the replaced system told people that
// their site does not build when a newer instruction had stopped the build.
func TestInterruptedBuildIsNotAFailedBuild(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.step = func(name string) {
		if name == "build" {
			cancel(&handlers.InterruptError{By: "c-2"})
		}
	}
	out := w.doWith(ctx, w.message("t", "c-1", "page WAIT"))
	if out.ErrorCode != protocol.Interrupted || !out.Interrupted || strings.Contains(out.Error, "build") {
		t.Errorf("answer %+v", out)
	}
}

// TestInterruptionThatIsNotJournalledIsNotHeeded: after a crash nobody would
// know of it.
func TestInterruptionThatIsNotJournalledIsNotHeeded(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	refused := make(chan struct{})
	w.agent.play["page one"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		w.write = func(journal.Record) error {
			defer close(refused)
			return errors.New("boom")
		}
		cancel(&handlers.InterruptError{By: "c-2"})
		<-refused
		w.write = nil
		return agent.Result{}, write(r, "page.html", "one")
	}
	if out := w.doWith(ctx, w.message("t", "c-1", "page one")); out.Interrupted || !out.Success || w.live() != "one" {
		t.Errorf("answer %+v", out)
	}
}

// TestInterruptionBeforeACrash is decided: the command is not carried out.
func TestInterruptionBeforeACrash(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.agent.play["do it"] = func(ctx context.Context, r agent.Request) (agent.Result, error) {
		cancel(&handlers.InterruptError{By: "c-2"})
		<-ctx.Done()
		panic(write(r, "page.html", "half") == nil)
	}
	m := w.message("t", "c-1", "do it")
	func() {
		defer func() { recover() }() //nolint:errcheck // the crash
		w.h.Handle(ctx, m)           //nolint:errcheck // it panics
	}()
	out := w.do(m)
	if !out.Interrupted || w.agent.ran() != 1 || out.CommitID != w.head("thread-t") || w.page("thread-t") != "half" {
		t.Errorf("answer %+v, the agent ran %d times", out, w.agent.ran())
	}
}

// TestCutOff answers a command that was interrupted while it waited to be tried
// again.
func TestCutOff(t *testing.T) {
	w := newWorld(t)
	w.agent.play["do it"] = half(&agent.Error{Code: agent.CodeModelOverloaded, Message: "Busy.", Transient: true})
	m := w.message("t", "c-1", "do it")
	_ = w.refuse(m)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&handlers.InterruptError{By: "c-2"})
	a, err := w.h.CutOff(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	out := output(t, a)
	if !out.Interrupted || out.ErrorCode != protocol.Interrupted || out.CommitID != w.head("thread-t") || w.agent.ran() != 1 {
		t.Errorf("answer %+v", out)
	}
	if d := cmp.Diff([]string{"WIP: do it"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
	if e := w.entry(); e.InterruptedBy != "c-2" || !e.Has(journal.Finished) {
		t.Errorf("entry %+v", e)
	}
	again, err := w.h.CutOff(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, again); d != "" {
		t.Error("the answer of a finished command is another:", d)
	}
}

// TestCutOffIsNoWayAroundTheRules: a message that would be refused is refused
// also when it is interrupted before that.
func TestCutOffIsNoWayAroundTheRules(t *testing.T) {
	w := newWorld(t)
	w.h.Rules.AllowedRepoHosts = []string{"example.com"}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&handlers.InterruptError{By: "c-2"})
	_, err := w.h.CutOff(ctx, w.message("t", "c-1", "do it"))
	var f *handlers.StepError
	if !errors.As(err, &f) || f.Code != protocol.RepoNotAllowed || !f.Permanent {
		t.Errorf("error %v, want a permanent repo_not_allowed", err)
	}
	if asked := w.git.Requests(); len(asked) > 0 {
		t.Errorf("a repository that is not allowed was asked: %v", asked)
	}
}

// TestShutdown: the work is saved, and another worker goes on with it.
func TestShutdown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		step  string   // shut down as it begins; empty means while the agent works
		lock  bool     // the build has a lock file to add
		saved []string // subjects after the shutdown, newest first
		log   []string // and in the end
		files []string // changed, says the answer
		ran   int      // the agent, in all
	}{
		{
			name: "while the agent works", saved: []string{"WIP: page one"}, log: []string{"page one", "WIP: page one"},
			files: []string{"first.html", "page.html"}, ran: 2,
		},
		{
			name: "while the agent works, and the build adds to the commit", lock: true,
			saved: []string{"WIP: page one"}, log: []string{"page one", "WIP: page one"},
			files: []string{"first.html", "package-lock.json", "page.html"}, ran: 2,
		},
		{name: "during the build", step: "build", saved: []string{"page one"}, log: []string{"page one"}, files: []string{"page.html"}, ran: 1},
		{name: "as the workspace is opened", step: "workspace", log: []string{"page one"}, files: []string{"page.html"}, ran: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.lock {
				w.git.Commit(t, repoName, "main", "no lock file", map[string]string{"package-lock.json": ""})
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			if tt.step == "" {
				w.agent.play["page one"] = func(ctx context.Context, r agent.Request) (agent.Result, error) {
					cancel(handlers.ErrShutdown)
					<-ctx.Done()
					killed := &agent.Error{Code: agent.CodeFailed, Message: "It ended with exit code 143."}
					return agent.Result{}, errors.Join(write(r, "first.html", "half"), killed)
				}
			}
			w.step = func(name string) {
				if name == tt.step {
					cancel(handlers.ErrShutdown)
				}
			}
			m := w.message("t", "c-1", "page one")
			a, err := w.h.Handle(ctx, m)
			if !errors.Is(err, handlers.ErrShutdown) || !handlers.HandedBack(err) || a.Body != nil {
				t.Fatalf("got %s, %v, want a message handed back", a.Body, err)
			}
			if e := w.entry(); e.Runs != 0 || e.Tries != 0 || e.Blamed || e.Has(journal.Finished) {
				t.Errorf("entry %+v", e)
			}
			if d := cmp.Diff(tt.saved, w.log("thread-t")); d != "" {
				t.Errorf("saved (-want +got):\n%s", d)
			}
			delete(w.agent.play, "page one")
			w.step = nil
			w.nextWorker()
			out := w.succeed(m)
			if d := cmp.Diff(tt.log, w.log("thread-t")); d != "" {
				t.Errorf("commits (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.files, out.FilesChanged); d != "" {
				t.Error(d)
			}
			if w.live() != "one" || out.CommitID != w.head("thread-t") || out.Attempt != 1 || w.agent.ran() != tt.ran {
				t.Errorf("live page %q, the agent ran %d times, answer %+v", w.live(), w.agent.ran(), out)
			}
			if tt.ran == 2 && len(w.agent.last().Notes) == 0 {
				t.Error("the agent is not told that it began before")
			}
		})
	}
}
