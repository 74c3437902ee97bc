package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/gitserver"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

// TestKilledAfterEachStep kills the worker with SIGKILL after each mark of the
// journal in turn. A new one resumes after that step: the agent does not run
// again, there is one commit, and one answer, byte for byte.
func TestKilledAfterEachStep(t *testing.T) {
	w := newWorld(t)
	for _, mark := range []string{"opened", "agent", "committed", "built", "deployed", "pushed", "finished", "answered"} {
		t.Run(mark, func(t *testing.T) {
			text := "crash at " + mark
			w.model.Play(text, footer("after-"+mark), Say("Done "+mark+"."))
			m := w.message("t-"+mark, "c-"+mark, text)
			crashed := w.startBinary(t, programs.faulty, "FAULT_AT="+mark)
			crashed.send(m)
			crashed.killed()

			p := w.start(t)
			p.send(m)
			first := p.raw()
			p.finish()
			again := w.start(t)
			again.send(m)
			second := again.raw()
			again.finish()
			if !bytes.Equal(first, second) {
				t.Errorf("the answer changed:\n%s%s", first, second)
			}
			if !bytes.Contains(first, []byte(`"success":true`)) || !bytes.Contains(first, []byte("Done "+mark)) {
				t.Errorf("answer %s", first)
			}
			if n := w.runs(text); n != 1 {
				t.Errorf("the agent ran %d times, want once", n)
			}
			if d := cmp.Diff([]string{text}, w.log(t, "thread-t-"+mark)); d != "" {
				t.Error("commits:", d)
			}
			if !strings.Contains(w.page(), ">after-"+mark+"<") {
				t.Error("the live page lacks the change")
			}
		})
	}
}

// TestKilledWhileTheAgentWorks is the one step that can run twice: in the same
// conversation and tree, and told so.
func TestKilledWhileTheAgentWorks(t *testing.T) {
	w := newWorld(t)
	gate := NewGate()
	w.model.Play("half", footer("half"), Say("Done half.").Behind(gate))
	m := w.message("t-1", "c-1", "half way")
	p := w.start(t)
	p.send(m)
	<-gate.Reached()
	p.kill()
	gate.Open()
	w.model.Play("half", Say("It was done already."))
	p = w.start(t)
	out := p.do(m)
	p.finish()
	if !out.Success || out.Summary != "It was done already." || out.FilesChangedTotal != 1 {
		t.Errorf("answer %+v", out)
	}
	if !w.sawConversation("half", "cut off") {
		t.Error("the agent was not told that it had begun before")
	}
	if d := cmp.Diff([]string{"half way"}, w.log(t, "thread-t-1")); d != "" {
		t.Error("commits:", d)
	}
}

// runs counts how often the agent began with an instruction.
func (w *world) runs(script string) int {
	n := 0
	for _, r := range w.model.Requests() {
		if r.Script == script && r.Turn == 0 {
			n++
		}
	}
	return n
}

// TestSecretsNowhere looks for the git token and the API key in what agent and
// build get to see, and on disk and in logs afterwards.
func TestSecretsNowhere(t *testing.T) {
	w := newWorld(t)
	w.model.Play("secrets",
		Bash(`env; tr '\0' '\n' < /proc/$PPID/environ; cat .git/config ../worker/git/config`),
		Bash(`sed -i 's/"astro build"/"env > build-env.txt \&\& astro build"/' package.json && touch seen && git log -1`),
		Say("Looked."))
	p := w.start(t)
	out := p.do(w.message("t-1", "c-1", "look for secrets"))
	p.finish()
	if !out.Success {
		t.Fatalf("answer %+v", out)
	}
	site := filepath.Join(w.dir, "workspace", "amelia-scott", "site")
	if env, err := os.ReadFile(filepath.Join(site, "build-env.txt")); err != nil || !bytes.Contains(env, []byte("PATH=")) {
		t.Errorf("the build's environment was not seen: %v", err)
	}
	if !w.sawConversation("secrets", "PATH=") {
		t.Error("the agent's environment was not seen")
	}
	secrets := []string{gitserver.Token, apiKey}
	for _, r := range w.model.Requests() {
		if got := r.Header.Get("X-Api-Key"); got != apiKey {
			t.Errorf("a model call with the key %q, want the worker's", got)
		}
		for _, s := range secrets {
			if bytes.Contains(r.Body, []byte(s)) {
				t.Errorf("the agent saw %q", s[:8])
			}
		}
	}
	w.searchFiles(t, secrets)
	for _, s := range secrets {
		if strings.Contains(p.said(), s) {
			t.Errorf("stderr tells %q", s[:8])
		}
	}
}

// searchFiles looks into every file below the worker's directory, but not into
// the packages that npm installed.
func (w *world) searchFiles(t *testing.T, secrets []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "node_modules" || e.Name() == "_cacache") {
			return filepath.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		files++
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds %q", path, s[:8])
			}
		}
		return err
	})
	if err != nil || files < 50 {
		t.Errorf("looked into %d files, %v", files, err)
	}
}

// TestTerminated sends SIGTERM while the agent works: its work is saved and
// pushed, the message is handed back, and the worker exits 0 in time. The next
// one finishes the command, with a commit of its own.
func TestTerminated(t *testing.T) {
	w := newWorld(t)
	gate := NewGate()
	w.model.Play("long", footer("long"), Say("Done long.").Behind(gate))
	m := w.message("t-1", "c-1", "long work")
	p := w.start(t, "SHUTDOWN_GRACE=12s")
	p.send(m)
	<-gate.Reached()
	sent := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-p.ended
	p.ended <- err
	if took := time.Since(sent); err != nil || took > 12*time.Second {
		t.Errorf("ended with %v after %v, promised 0 within 12 s", err, took)
	}
	if d := cmp.Diff([]string{"WIP: long work"}, w.log(t, "thread-t-1")); d != "" {
		t.Error("saved work:", d)
	}
	gate.Open()
	w.model.Play("long", Say("It was done already."))
	p = w.start(t)
	out := p.do(m)
	p.finish()
	if !out.Success || out.FilesChangedTotal != 1 || !strings.Contains(w.page(), ">long<") {
		t.Errorf("answer %+v", out)
	}
	if d := cmp.Diff([]string{"long work", "WIP: long work"}, w.log(t, "thread-t-1")); d != "" {
		t.Error("commits:", d)
	}
}
