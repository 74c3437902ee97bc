package handlers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// TestRedelivery delivers an answered command again. It is never carried out
// twice.
func TestRedelivery(t *testing.T) {
	w := newWorld(t)
	ctx := handlers.WithCorrelation(t.Context(), "trace-1")
	m := w.message("t", "c-1", "page one")
	if w.h.Known(ctx, m) {
		t.Error("known before it came")
	}
	first, err := w.h.Handle(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"commandId": "c-1", "sessionId": "session-1", "correlation_id": "trace-1"}
	if d := cmp.Diff(want, first.Attributes); d != "" {
		t.Error("attributes:", d)
	}
	again := func(m protocol.InputMessage) protocol.Answer {
		t.Helper()
		a, err := w.h.Handle(handlers.WithCorrelation(t.Context(), "trace-2"), m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if d := cmp.Diff(first, again(m)); d != "" {
		t.Error("the answer was not published, and delivered again it is another:", d)
	}
	if err := w.h.Answered(ctx, m); err != nil {
		t.Fatal(err)
	}
	w.nextWorker()
	if d := cmp.Diff(protocol.Answer{}, again(m)); d != "" {
		t.Error("answered under this message id, and published again:", d)
	}
	resent := under(m, "m-other")
	if d := cmp.Diff(first, again(resent)); d != "" {
		t.Error("sent again, the answer is another:", d)
	}
	if err := w.h.Answered(ctx, resent); err != nil {
		t.Fatal(err)
	}
	for _, m := range []protocol.InputMessage{m, resent} {
		if d := cmp.Diff(protocol.Answer{}, again(m)); d != "" {
			t.Errorf("%s was published again: %s", m.Delivery.MessageID, d)
		}
	}
	if !w.h.Known(ctx, m) || w.agent.ran() != 1 {
		t.Errorf("the agent ran %d times", w.agent.ran())
	}
}

// TestCommandIDReused: another content under a known id is refused once, and
// changes nothing about the command that has the id.
func TestCommandIDReused(t *testing.T) {
	w := newWorld(t)
	m := w.message("t", "c-1", "page one")
	first := w.do(m)
	steps := []struct {
		name              string
		thread, text, url string
		want              protocol.ErrorCode // empty: nothing is published
	}{
		{"another instruction", "t", "page two", w.url, protocol.CommandIDReused},
		{"the same again", "t", "page two", w.url, ""},
		{"another thread", "u", "page one", w.url, protocol.CommandIDReused},
		{"another repository", "t", "page one", w.url + "/", protocol.CommandIDReused},
		{"the first of them again", "t", "page two", w.url, ""},
	}
	for _, tt := range steps {
		other := under(w.message(tt.thread, "c-1", tt.text), "m-"+tt.name)
		other.RepoURL = tt.url
		if tt.want == "" {
			if a, err := w.h.Handle(t.Context(), other); err != nil || a.Body != nil {
				t.Errorf("%s: got %s, %v, want nothing", tt.name, a.Body, err)
			}
			continue
		}
		if out := w.do(other); out.ErrorCode != tt.want || out.Success || out.CommandID != "c-1" || out.CommitID != "" || out.Summary != "" {
			t.Errorf("%s: answer %+v, want %s", tt.name, out, tt.want)
		}
	}
	a, err := w.h.Handle(t.Context(), under(m, "m-again"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, output(t, a)); d != "" {
		t.Error("answer of the first content:", d)
	}
	if w.agent.ran() != 1 || w.live() != "one" {
		t.Errorf("the agent ran %d times, live page %q", w.agent.ran(), w.live())
	}
}

// TestRedrive: who moves a message out of the dead-letter queue wants it run.
func TestRedrive(t *testing.T) {
	w := newWorld(t)
	w.h.MaxAttempts = 1
	w.agent.play["page one"] = half(&agent.Error{Code: agent.CodeModelOverloaded, Message: "Busy.", Transient: true})
	m := w.message("t", "c-1", "page one")
	if out := w.do(m); out.ErrorCode != protocol.ModelOverloaded || out.Attempt != 1 {
		t.Fatalf("answer %+v", out)
	}
	delete(w.agent.play, "page one")
	if a, err := w.h.Handle(t.Context(), m); err != nil || a.Body != nil {
		t.Errorf("delivered again, not moved: %s, %v", a.Body, err)
	}
	out := w.succeed(under(m, "m-redriven"))
	if out.Attempt != 2 || out.Error != "" || out.Agent.Turns != 2 || w.live() != "one" || w.agent.ran() != 2 {
		t.Errorf("answer %+v, live page %q", out, w.live())
	}
	if e := w.entry(); e.Has(journal.DeadLettered) || e.Tries != 0 || !e.Has(journal.Answered) {
		t.Errorf("entry %+v", e)
	}
}

// TestUnansweredDeadLetterIsNotRunAgain: its answer was not published, so this
// is no redrive.
func TestUnansweredDeadLetterIsNotRunAgain(t *testing.T) {
	w := newWorld(t)
	w.h.MaxAttempts = 1
	w.agent.play["do it"] = half(&agent.Error{Code: agent.CodeModelOverloaded, Message: "Busy.", Transient: true})
	m := w.message("t", "c-1", "do it")
	first, err := w.h.Fail(t.Context(), m, w.refuse(m))
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.h.Handle(t.Context(), under(m, "m-other"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, again); d != "" || w.agent.ran() != 1 {
		t.Errorf("the agent ran %d times, answers differ: %s", w.agent.ran(), d)
	}
}

// TestLostLeaseLeavesNoTrace: once the project may be another's, nothing is
// journalled, pushed or deployed.
func TestLostLeaseLeavesNoTrace(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose func(w *world)
		at   string
	}{
		{"the lease ends while the agent works", func(w *world) { w.h.Lease.Abandon() }, "agent"},
		{"the lease ends before the push", func(w *world) { w.h.Lease.Abandon() }, "push"},
		{"somebody took the project unnoticed", func(w *world) { w.stolen() }, "commit"},
		{"the worker was frozen before the push", func(w *world) { w.frozen.Store(int64(time.Hour)) }, "push"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put = func(ctx context.Context, _ string) error { // a deploy is begun, and comes to nothing
				if w.frozen.Load() == 0 {
					<-ctx.Done()
				}
				return errors.Join(errors.New("no upload"), context.Cause(ctx))
			}
			w.agent.play["do it"] = func(ctx context.Context, r agent.Request) (agent.Result, error) {
				if tt.at == "agent" {
					tt.lose(w)
					<-ctx.Done()
					return agent.Result{}, errors.Join(write(r, "page.html", "late"), context.Cause(ctx))
				}
				return agent.Result{}, write(r, "page.html", "late")
			}
			w.step = func(name string) {
				if name == tt.at && name != "agent" {
					tt.lose(w)
				}
			}
			m := w.message("t", "c-1", "do it")
			a, err := w.h.Handle(t.Context(), m)
			if !handlers.HandedBack(err) || a.Body != nil {
				t.Errorf("got %s, %v, want the lost lease", a.Body, err)
			}
			if e := w.entry(); e.Has(journal.Pushed) || e.Has(journal.Finished) || e.Tries != 0 || e.Wip != "" || e.Runs != 1 {
				t.Errorf("entry %+v", e)
			}
			if w.log("thread-t") != nil || w.live() != "" {
				t.Errorf("pushed %v, live page %q", w.log("thread-t"), w.live())
			}
			if _, err := w.h.Fail(t.Context(), m, &handlers.StepError{Code: protocol.Internal}); err == nil {
				t.Error("the answer of a failure was journalled")
			}
			if err := w.h.Answered(t.Context(), m); err == nil {
				t.Error("an answer was recorded as published")
			}
		})
	}
}

// TestFrozenWorkerServesNoPage: it wakes in the middle of a deploy, when the
// project may have been another's for long.
func TestFrozenWorkerServesNoPage(t *testing.T) {
	w := newWorld(t)
	w.put = func(_ context.Context, key string) error {
		if key == "style.css" {
			w.frozen.Store(int64(time.Hour))
		}
		return nil
	}
	if a, err := w.h.Handle(t.Context(), w.message("t", "c-1", "page late")); !handlers.HandedBack(err) || a.Body != nil {
		t.Errorf("got %s, %v, want the lost lease", a.Body, err)
	}
	if w.live() != "" {
		t.Errorf("live page %q", w.live())
	}
}
