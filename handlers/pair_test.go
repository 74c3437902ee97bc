package handlers_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// TestChildrenAreOfTheWorkspacesPair: the user that the pair makes is another's, and
// agent and build are told.
func TestChildrenAreOfTheWorkspacesPair(t *testing.T) {
	w := newWorld(t)
	users := filepath.Join(w.disk, "~users")
	if err := os.MkdirAll(users, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bernard#sue", filepath.Join(users, strconv.Itoa(process.UserID(w.h.Pair.Key())))); err != nil {
		t.Fatal(err)
	}
	// A keeper that writes down what it is to do, and has done it.
	told := filepath.Join(t.TempDir(), "told")
	w.runner.Wall, w.runner.Setuid = process.WallUsers, []string{
		"sh", "-c",
		`n=$(head -c4 <&3 | od -An -tu4 --endian=big); head -c $n <&3 >>` + told + `; echo '{"ended":true}' >&4`,
	}
	w.do(w.message("t", "c-1", "page one"))
	specs, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	const want = "amelia#scott~1"
	pairs := regexp.MustCompile(`"pair":"([^"]*)"`).FindAllStringSubmatch(string(specs), -1)
	for _, p := range pairs {
		if p[1] != want {
			t.Errorf("a child was started for %s", p[1])
		}
	}
	if !strings.Contains(string(specs), `"program":"`) || len(pairs) < 2 {
		t.Errorf("nothing was built, or not all was kept: %s", specs)
	}
	if got := w.agent.last().Pair; got != want {
		t.Errorf("the agent is of %s", got)
	}
}
