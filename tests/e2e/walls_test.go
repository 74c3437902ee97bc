package e2e

import (
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
	"github.com/webordinary/claude-code-container/tests/program"
)

// TestWalls has each wall let a whole command through: the CLI and its shell, npm
// and Astro, and git's history. What a wall keeps out, package process tests.
func TestWalls(t *testing.T) {
	for _, wall := range process.Walls() {
		t.Run(string(wall), func(t *testing.T) {
			w := newWorld(t)
			w.model.Play("sign", Bash(`cat /proc/*/environ "$HOME"/../../worker/owner.json ; git log -1 --format='<p>after: %s</p>' >> src/components/Footer.astro && git status --short`), Say("Signed."))
			binary := programs.binary
			if wall == process.WallUsers {
				binary = w.unprivileged(t)
			}
			p := w.startBinary(t, binary, "SANDBOX="+string(wall))
			out := p.do(w.message("t-1", "c-1", "sign"))
			p.finish()
			if !out.Success || out.Summary != "Signed." {
				t.Fatalf("answer %+v", out)
			}
			if !strings.Contains(w.page(), "after: ") {
				t.Error("the agent's git log did not reach the site")
			}
			if log := string(program.Tail(w.dir+"/log.jsonl", 1<<20)); !strings.Contains(log, `"wall":"`+string(wall)+`"`) {
				t.Error("the log does not say which wall there is")
			}
		})
	}
}
