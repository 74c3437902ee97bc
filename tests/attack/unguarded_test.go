package attack

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/webordinary/claude-code-container/tests/terminal"
)

// TestUnguarded runs hostile as root, from a terminal, with a secret in its
// environment and no keeper: what is stopped behind every wall and without one
// succeeds here.
func TestUnguarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var only []string
	for _, r := range rows() {
		if r.proof == "TestUnguarded" {
			for _, name := range r.outcomes {
				if !strings.Contains(name, "_environment") { // of the build: the same
					only = append(only, name)
				}
			}
		}
	}
	out, planFile := filepath.Join(w.dir, "outcomes.jsonl"), filepath.Join(w.dir, "plan.json")
	text, err := json.Marshal(map[string]any{"Out": out, "Only": only, "Mark": w.mark})
	w.must(err)
	w.must(os.WriteFile(planFile, text, 0o600))
	_, end := terminal.Open(t)
	cmd := exec.Command(programs.hostile, "agent", planFile) //nolint:noctx // it ends by itself
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GITHUB_TOKEN=" + w.secrets["github"]}
	cmd.ExtraFiles = []*os.File{end}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	w.must(cmd.Run())
	found := w.readOutcomes(out)
	for _, name := range only {
		if o, tried := found[name]; !tried || !o.Succeeded {
			t.Errorf("%s does not succeed without any defence, so nothing is shown: %s", name, o.Detail)
		}
	}
}

// TestProxyLetsThroughWhatIsListed lists what the proxy refuses otherwise.
func TestProxyLetsThroughWhatIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "hostile.git", w.hostileFiles())
	upstream := strings.TrimPrefix(w.model.URL(), "http://")
	p := w.shell("AGENT_ALLOWED_HOSTS=" + strings.Join([]string{upstream, metadata, outside}, ","))
	plan := w.plan(nil)
	only := []string{"proxy_loopback", "proxy_metadata", "proxy_outside"}
	plan["Only"] = only
	if out := p.do(command{w.project("mallory"), "eve", w.front.url("hostile.git"), "t", "c-1", w.attackCommand(plan)}); out.CommitID == "" {
		t.Errorf("answer %+v", out)
	}
	found := w.outcomes()
	for _, name := range only {
		if o, tried := found[name]; !tried || !o.Succeeded {
			t.Errorf("%s does not succeed, so nothing is shown: %s", name, o.Detail)
		}
	}
}
