package handlers_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

const turnKey = "bucket:edit.amelia.webordinary.com"

// zelda is another user's worker; told is called at each of its steps.
func (w *world) zelda(told func(name string)) *handlers.Instruction {
	w.t.Helper()
	h := *w.h
	h.Pair.UserID = "zelda"
	h.Step = func(s handlers.Step) {
		if told != nil {
			told(s.Name)
		}
	}
	h.Workspaces = w.workspaces()
	h.Buckets = &claim.Claims{Table: w.table, ContainerID: "zelda's"}
	l, err := (&claim.Claims{Table: w.table, ContainerID: "zelda's"}).Acquire(w.t.Context(), h.Pair.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(l.Abandon)
	h.Lease = l
	return &h
}

func (w *world) ofZelda(thread, command, instruction string) protocol.InputMessage {
	m := w.message(thread, command, instruction)
	m.UserID = "zelda"
	return m
}

// takeTurn makes somebody else the owner of the bucket, unnoticed.
func (w *world) takeTurn(ctx context.Context, status claim.Status) error {
	seen, err := w.table.Get(ctx, turnKey)
	if err != nil && !errors.Is(err, claim.ErrNoRow) {
		return err
	}
	next := seen
	next.ProjectKey, next.Status, next.ContainerID = turnKey, status, "thief"
	next.Fence, next.Rev, next.Tenure = seen.Fence+1, seen.Rev+1, "theirs"
	return w.table.Put(ctx, next, seen)
}

func (w *world) isTurnFree() bool {
	row, err := w.table.Get(w.t.Context(), turnKey)
	return err == nil && row.Status == claim.Released
}

// TestOlderCommandIsNotDeployed: it is carried out and pushed, and the answer says
// that a later one's site stays. A user's own id does not protect another's.
func TestOlderCommandIsNotDeployed(t *testing.T) {
	w := newWorld(t)
	older := w.ofZelda("z", "c-1", "page older")
	w.succeed(w.message("t", "c-1", "page newer"))
	a, err := w.zelda(nil).Handle(t.Context(), older)
	if err != nil {
		t.Fatal(err)
	}
	if out := output(t, a); !out.Success || !out.Superseded || out.DeploySuccess || out.CommitID != w.head("thread-z") {
		t.Errorf("answer %+v", out)
	}
	if w.live() != "newer" || w.page("thread-z") != "older" {
		t.Errorf("live page %q, on the branch %q", w.live(), w.page("thread-z"))
	}
}

// TestOlderCommandIsOvertakenWhileItBuilds: it looks again when its turn comes.
func TestOlderCommandIsOvertakenWhileItBuilds(t *testing.T) {
	w := newWorld(t)
	older, newer := w.ofZelda("z", "c-1", "page older"), w.message("t", "c-2", "page newer")
	waits := make(chan struct{})
	zelda := w.zelda(func(name string) {
		if name == "push" { // so it has built
			close(waits)
		}
	})
	answered := make(chan protocol.Answer, 1)
	w.step = func(name string) {
		if name != "deploy" {
			return
		}
		go func() {
			a, err := zelda.Handle(t.Context(), older)
			if err != nil {
				t.Error(err)
			}
			answered <- a
		}()
		<-waits
	}
	w.succeed(newer)
	if out := output(t, <-answered); !out.Success || !out.BuildSuccess || !out.Superseded || out.DeploySuccess {
		t.Errorf("answer %+v", out)
	}
	if w.live() != "newer" || !w.isTurnFree() {
		t.Errorf("live page %q, turn free %v", w.live(), w.isTurnFree())
	}
}

// TestLostTurnIsAFailedDeploy: the project is still ours, and another try waits
// for another turn.
func TestLostTurnIsAFailedDeploy(t *testing.T) {
	w := newWorld(t)
	m := w.message("t", "c-1", "page one")
	w.put = func(ctx context.Context, _ string) error { return w.takeTurn(ctx, claim.Released) }
	if f := w.refuse(m); f.Code != protocol.DeployFailed || f.Permanent || handlers.HandedBack(f) {
		t.Errorf("got %+v", f)
	}
	w.put = nil
	if out := w.succeed(m); !out.DeploySuccess || w.live() != "one" || w.agent.ran() != 1 {
		t.Errorf("answer %+v, live page %q", out, w.live())
	}
}

// TestLostProjectIsNoLostTurn: whoever loses the project while it deploys hands
// the message back.
func TestLostProjectIsNoLostTurn(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "deploy" {
			w.stolen()
		}
	}
	if _, err := w.h.Handle(t.Context(), w.message("t", "c-1", "page one")); !handlers.HandedBack(err) {
		t.Errorf("got %v", err)
	}
	if !w.isTurnFree() {
		t.Error("the turn was not given up")
	}
}

// pages is an agent whose site has these pages.
func pages(names ...string) agentFunc {
	return func(_ context.Context, r agent.Request) (agent.Result, error) {
		script := "const fs = require('fs'); fs.rmSync('dist', {recursive: true, force: true}); fs.mkdirSync('dist');\n"
		for _, name := range names {
			script += "fs.writeFileSync('dist/" + name + "', '" + names[0] + "');\n"
		}
		return agent.Result{}, write(r, "build.cjs", script)
	}
}

// TestFrozenDeployerLooksBeforeEachCall: when it comes back, its context has not
// ended yet.
func TestFrozenDeployerLooksBeforeEachCall(t *testing.T) {
	w := newWorld(t)
	var slept atomic.Int64
	w.h.Buckets = &claim.Claims{
		Table: w.table, ContainerID: "worker",
		Now: func() time.Time { return time.Now().Add(time.Duration(slept.Load())) },
	}
	w.agent.play["two"], w.agent.play["one"] = pages("index.html", "old.html"), pages("index.html")
	w.succeed(w.message("t", "c-1", "two"))
	old := filepath.Join(w.sites, "edit.amelia.webordinary.com", "old.html")
	w.agent.play["one"] = pages("index.html", "new.html")
	w.put = func(context.Context, string) error {
		slept.Add(int64(time.Hour))
		return nil
	}
	if f := w.refuse(w.message("t", "c-2", "one")); f.Code != protocol.DeployFailed || f.Permanent {
		t.Errorf("got %+v", f)
	}
	if _, err := os.Stat(old); err != nil {
		t.Error("a page was deleted out of turn:", err)
	}
}

// TestPanicGivesTheTurnUp: others do not wait for the lease to end, and nothing of
// the command goes on.
func TestPanicGivesTheTurnUp(t *testing.T) {
	w := newWorld(t)
	for _, step := range []string{"deploy", "build"} {
		m := w.message("t", step, "page "+step)
		w.step = func(name string) {
			if name == step {
				panic("crash")
			}
		}
		w.crash(m)
		if !w.isTurnFree() {
			t.Errorf("%s: the turn is not free", step)
		}
	}
	if w.log("thread-t")[0] != "page deploy" {
		t.Error("the push was not waited for")
	}
}

// TestWaitForATurnCanBeInterrupted while another has the bucket.
func TestWaitForATurnCanBeInterrupted(t *testing.T) {
	w := newWorld(t)
	if err := w.takeTurn(t.Context(), claim.Active); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	w.step = func(name string) {
		if name == "push" {
			cancel(&handlers.InterruptError{By: "c-2"})
		}
	}
	if out := w.doWith(ctx, w.message("t", "c-1", "page one")); !out.Interrupted || out.DeploySuccess {
		t.Errorf("answer %+v", out)
	}
	if w.isTurnFree() {
		t.Error("the other's turn was ended")
	}
}

// TestBuildErrorDoesNotWaitForATurn if there is nothing to remember.
func TestBuildErrorDoesNotWaitForATurn(t *testing.T) {
	w := newWorld(t)
	w.succeed(w.message("t", "c-1", "page one"))
	if err := w.takeTurn(t.Context(), claim.Active); err != nil {
		t.Fatal(err)
	}
	if out := w.do(w.message("t", "c-2", "page BREAK")); out.ErrorCode != protocol.BuildFailed {
		t.Errorf("answer %+v", out)
	}
}

// TestRefusedDeployChangesNothing: what was deployed before is still there, and
// later than a command that was sent before it.
func TestRefusedDeployChangesNothing(t *testing.T) {
	w := newWorld(t)
	older := w.ofZelda("z", "c-0", "page older")
	w.succeed(w.message("t", "c-1", "page one"))
	w.agent.play["link"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{}, write(r, "build.cjs", "const fs = require('fs'); fs.mkdirSync('dist', {recursive: true});\n"+
			"fs.writeFileSync('dist/index.html', 'x'); fs.symlinkSync('/etc/passwd', 'dist/p.txt');\n")
	}
	if out := w.do(w.message("t", "c-2", "link")); out.ErrorCode != protocol.DeployRefused {
		t.Fatalf("answer %+v", out)
	}
	a, err := w.zelda(nil).Handle(t.Context(), older)
	if err != nil {
		t.Fatal(err)
	}
	if out := output(t, a); !out.Superseded || w.live() != "one" {
		t.Errorf("answer %+v, live page %q", out, w.live())
	}
}
