package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

// TestInterrupted interrupts a command in each step that takes long. Its tree is
// gone soon, its work is on the branch, its answer says so, and the newer
// command goes on in the same conversation.
func TestInterrupted(t *testing.T) {
	const gone, always = time.Second, 3 * time.Second // where TERM is heeded; in any case
	tests := []struct {
		name   string
		script []Turn // of the interrupted command; each leaves the file "reached" when it is there
		mend   string // what the newer command does besides its own work
		within time.Duration
	}{
		{"while the agent thinks", []Turn{Bash("touch reached"), Say("never").Behind(NewGate())}, "", gone},
		{"while its Bash tool runs", []Turn{Bash("touch reached; sleep 301")}, "", gone},
		{"while its tool ignores TERM", []Turn{Bash(`(trap '' TERM; setsid nohup sleep 302 & touch reached; while :; do sleep 1; done)`)}, "", always},
		{
			"during npm install",
			[]Turn{Bash(`sed -i 's|"scripts": {|"scripts": { "preinstall": "touch reached \&\& sleep 303",|' package.json`), Say("Edited.")},
			`sed -i 's|"preinstall": "[^"]*",||' package.json`, gone,
		},
		{
			"during the build",
			[]Turn{Bash(`sed -i 's|"astro build"|"touch reached \&\& sleep 304"|' package.json`), Say("Edited.")},
			`sed -i 's|"touch reached.*304"|"astro build"|' package.json`, gone,
		},
	}
	w := newWorld(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := strconv.Itoa(i)
			old, next := "old-"+id, "next-"+id
			w.model.Play(old, tt.script...)
			w.model.Play(next, Bash("rm -f reached; "+tt.mend), footer("mark-"+id), Say("Done."))
			p := w.start(t)
			p.send(w.message("t-"+id, "c-old-"+id, old))
			w.await(t, "reached")
			tree := w.processes(t)
			if len(tree) == 0 {
				t.Fatal("no process works in the checkout")
			}
			sent := time.Now()
			p.send(w.message("t-"+id, "c-next-"+id, next))
			w.awaitEnd(t, tree)
			ended := time.Now()
			if took := ended.Sub(sent); took > tt.within {
				t.Errorf("the tree was gone after %v, promised within %v", took, tt.within)
			} else {
				t.Logf("tree of %d processes gone after %v", len(tree), took)
			}
			w.awaitRequest(t, next)
			t.Logf("the newer command's first request of the model %v later", time.Since(ended))
			first, second := p.answer(), p.answer()
			p.finish()
			if first.CommandID != "c-old-"+id || first.Success || !first.Interrupted || first.ErrorCode != protocol.Interrupted {
				t.Errorf("interrupted command's answer %+v", first)
			}
			if !second.Success || second.Interrupted || second.CommandID != "c-next-"+id {
				t.Errorf("newer command's answer %+v", second)
			}
			if d := cmp.Diff([]string{next, "WIP: " + old}, w.log(t, "thread-t-"+id)); d != "" {
				t.Error("commits:", d)
			}
			if !w.sawConversation(next, "interrupted") || !w.sawConversation(next, old) {
				t.Error("the newer command was not told what was cut off, in the same conversation")
			}
			if !strings.Contains(w.page(), "mark-"+id) {
				t.Error("the newer command's work is not live")
			}
		})
	}
}

// await waits for a file in the checkout.
func (w *world) await(t *testing.T, name string) {
	t.Helper()
	end := time.After(patience)
	for {
		if _, err := os.Stat(filepath.Join(w.dir, "workspace", "amelia-scott", "site", name)); err == nil {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-end:
			t.Fatalf("%s did not appear in the checkout", name)
		}
	}
}

// awaitRequest waits until the model is asked about an instruction.
func (w *world) awaitRequest(t *testing.T, instruction string) {
	t.Helper()
	end := time.After(patience)
	for !w.sawConversation(instruction, "interrupted") {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-end:
			t.Fatalf("the model is not asked about %q", instruction)
		}
	}
}

// processes returns those that work in the checkout.
func (w *world) processes(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(w.dir, "workspace") + "/"
	return slices.DeleteFunc(dirs, func(dir string) bool {
		cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
		return err != nil || !strings.HasPrefix(cwd+"/", inside)
	})
}

func (w *world) awaitEnd(t *testing.T, tree []string) {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		now := w.processes(t)
		left := slices.DeleteFunc(slices.Clone(tree), func(dir string) bool { return !slices.Contains(now, dir) })
		if len(left) == 0 {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-end:
			t.Fatalf("still there: %v", left)
		}
	}
}

func TestThreeQuickMessages(t *testing.T) {
	w := newWorld(t)
	gate := NewGate()
	w.model.Play("one", Say("Said one.").Behind(gate))
	w.model.Play("two", Say("Said two."))
	w.model.Play("three", Say("Said three."))
	p := w.start(t)
	p.send(w.message("t", "c-1", "one"))
	<-gate.Reached()
	p.send(w.message("t", "c-2", "two"), w.message("t", "c-3", "three"))
	first, second, third := p.answer(), p.answer(), p.answer()
	p.finish()
	if first.CommandID != "c-1" || !first.Interrupted || second.CommandID != "c-2" || third.CommandID != "c-3" || !third.Success {
		t.Errorf("answers %+v\n%+v\n%+v", first, second, third)
	}
	if !second.Success && !second.Interrupted {
		t.Errorf("the second neither ran nor was interrupted: %+v", second)
	}
}

// TestPolicies sends a second message while the agent thinks about the first.
func TestPolicies(t *testing.T) {
	interrupt := map[string]any{"type": "INTERRUPT", "projectId": "amelia", "userId": "scott", "reason": "stop"}
	tests := []struct {
		name, policy string
		second       func(w *world) map[string]any
		interrupted  bool
	}{
		{"another thread waits", "thread", func(w *world) map[string]any { return w.message("b", "c-2", "two") }, false},
		{"any: another thread interrupts", "any", func(w *world) map[string]any { return w.message("b", "c-2", "two") }, true},
		{"never: the same thread waits", "never", func(w *world) map[string]any { return w.message("a", "c-2", "two") }, false},
		{"never: an INTERRUPT is deleted", "never", func(*world) map[string]any { return interrupt }, false},
		{"INTERRUPT in time", "thread", func(*world) map[string]any { return interrupt }, true},
		{"INTERRUPT names another thread", "thread", func(*world) map[string]any {
			return map[string]any{"type": "INTERRUPT", "projectId": "amelia", "userId": "scott", "newThreadId": "b"}
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			gate := NewGate()
			w.model.Play("one", Say("Said one.").Behind(gate))
			w.model.Play("two", Say("Said two."))
			p := w.start(t, "INTERRUPT_POLICY="+tt.policy)
			p.send(w.message("a", "c-1", "one"))
			<-gate.Reached()
			second := tt.second(w)
			p.send(second)
			if !tt.interrupted {
				select {
				case line := <-p.answers:
					t.Fatalf("answered too early: %s", line)
				case <-time.After(500 * time.Millisecond):
				}
				gate.Open()
			}
			if out := p.answer(); out.CommandID != "c-1" || out.Interrupted != tt.interrupted || out.Success == tt.interrupted {
				t.Errorf("first answer %+v, want interrupted %v", out, tt.interrupted)
			}
			if second["commandId"] != nil {
				if out := p.answer(); out.CommandID != "c-2" || !out.Success {
					t.Errorf("second answer %+v", out)
				}
			}
			p.finish()
		})
	}
}

// TestInterruptEarlyAndLate checks that an INTERRUPT stops only what runs.
func TestInterruptEarlyAndLate(t *testing.T) {
	w := newWorld(t)
	w.model.Play("one", Say("Said one."))
	w.model.Play("two", Say("Said two."))
	interrupt := map[string]any{"type": "INTERRUPT", "projectId": "amelia", "userId": "scott"}
	p := w.start(t)
	p.send(interrupt)
	for _, m := range []map[string]any{w.message("a", "c-1", "one"), w.message("a", "c-2", "two")} {
		if out := p.do(m); !out.Success || out.Interrupted {
			t.Errorf("answer %+v", out)
		}
		p.send(interrupt)
	}
	p.finish()
}
