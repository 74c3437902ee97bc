package matrix

import (
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// pushedMeanwhile has somebody else push to a thread's branch while a command is
// between its commit and its push. It returns the command and its answer.
func (w *world) pushedMeanwhile(worker *platform.Worker, files map[string]string) (*platform.Command, protocol.OutputMessage) {
	w.t.Helper()
	if err := worker.Arm("built", "hold"); err != nil {
		w.t.Fatal(err)
	}
	c := w.Command(w.j, "1", site.Add{})
	w.Send(c)
	w.AwaitFired(worker, "built", patience)
	w.Git.Commit(w.t, w.j.Repo, "thread-1", "somebody else's", files)
	worker.Release("built")
	return c, w.answer(c, 1)
}

// externalPush is merged, and the checkout does not notice before the next command.
func externalPush(t *testing.T) {
	w := newWorld(t, platform.Options{})
	worker := w.StartWorker()
	first := w.Command(w.j, "1", site.Add{})
	w.well(first)
	second, out := w.pushedMeanwhile(worker, map[string]string{"notes.txt": "by hand\n"})
	if !out.Success {
		t.Fatalf("answer %+v", out)
	}
	w.holds("thread-1", first, second)
	if !w.has("thread-1", "notes.txt") {
		t.Error("somebody else's push is lost")
	}
	if w.checkout("notes.txt") != "" || !strings.Contains(w.checkout(site.Content), second.Add.Token) {
		t.Error("the merge touched the checkout")
	}
	third := w.Command(w.j, "1", site.Add{})
	w.well(third)
	w.holds("thread-1", first, second, third)
	if w.checkout("notes.txt") != "by hand\n" {
		t.Error("the next command did not begin with what was pushed")
	}
	// And one between two commands.
	w.Git.Commit(t, w.j.Repo, "thread-1", "somebody else's again", map[string]string{"more.txt": "by hand\n"})
	fourth := w.Command(w.j, "1", site.Add{})
	w.well(fourth)
	w.holds("thread-1", first, second, third, fourth)
	if !w.has("thread-1", "more.txt") || w.checkout("more.txt") == "" {
		t.Error("a push between two commands is lost")
	}
}

func conflict(t *testing.T) {
	w := newWorld(t, platform.Options{})
	worker := w.StartWorker()
	first := w.Command(w.j, "1", site.Add{})
	w.well(first)
	theirs := site.Add{Token: "theirs"}.Apply(w.git("show", "thread-1:"+site.Content) + "\n")
	second, out := w.pushedMeanwhile(worker, map[string]string{site.Content: theirs})
	side := "thread-1-conflict-" + second.ID
	w.failed(out, protocol.MergeConflict, site.Content)
	if out.Branch != side || !strings.Contains(out.Error, side) {
		t.Errorf("answer %+v, want the branch %s", out, side)
	}
	w.holds(side, first, second)
	third := w.Command(w.j, "1", site.Add{})
	if out := w.well(third); out.Branch != "thread-1" {
		t.Errorf("answer %+v", out)
	}
	w.holds("thread-1", first, &platform.Command{Add: site.Add{Token: "theirs"}}, third)
	if !w.shows(third) || w.shows(second) {
		t.Error("the site is not the thread's")
	}
}

// invalidToken is answered and dead-lettered. A worker with a valid one does the
// command when an operator puts it back.
func invalidToken(t *testing.T) {
	w := newWorld(t, platform.Options{})
	worker := w.StartWorker(once)
	worker.Expire()
	c := w.Command(w.j, "1", site.Add{})
	out := w.do(c)
	w.failed(out, protocol.RepoAuth, "")
	if out.Error == "" || out.Attempt != 1 {
		t.Errorf("answer %+v", out)
	}
	d := w.dead()
	if d.CommandID != c.ID || d.Queue != w.Names.DLQ(w.j.Pair) || d.Body != c.Body || d.Attributes["poison_reason"] == "" {
		t.Errorf("dead letter %+v", d)
	}
	worker.Terminate()
	if code := worker.Exit(w.Options.Grace); code != 0 {
		t.Errorf("exited with %d", code)
	}
	w.StartWorker()
	w.redrive(w.j, d)
	if out := w.answer(c, 2); !out.Success || out.Attempt != 2 || out.ErrorCode != "" {
		t.Errorf("with a valid token: %+v", out)
	}
	w.holds("thread-1", c)
}

// repositoryOnce is enough; none at all is not.
func repositoryOnce(t *testing.T) {
	w := newWorld(t, platform.Options{Env: []string{"MAX_CLAIMS=2"}})
	other := w.AddProject("bert", "scott")
	w.StartWorker()
	without := map[string]any{"repoUrl": nil}
	first, second := w.Command(w.j, "1", site.Add{}), edit(t, w.Command(w.j, "2", site.Add{}), without)
	w.well(first)
	w.well(second)
	w.holds("thread-1", first)
	w.holds("thread-2", second)
	w.failed(w.do(edit(t, w.Command(other, "1", site.Add{}), without)), protocol.RepoMissing, "repoUrl")
}
