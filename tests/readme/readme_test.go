// Package readme holds the documents to what is there: it runs the commands of the README,
// and looks that links, anchors, commands and tables of all documents lead somewhere.
package readme

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommands runs each command of the README in the repository. `make test`
// alone is left out: this test is a part of it.
func TestCommands(t *testing.T) {
	commands := readCommands(t)
	want := []string{"make demo", `bin/webordinary demo "Make the header green"`, "make test"}
	if d := cmp.Diff(want, commands); d != "" {
		t.Fatalf("commands of the README (-want +got):\n%s", d)
	}
	for _, args := range [][]string{
		{"make", "demo"},
		{"bin/webordinary", "demo", "--dir", t.TempDir(), "Make the header green"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = "../.."
		cmd.Env = withoutCredentials(os.Environ())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		for _, part := range []string{"workspace", "agent", "commit", `"success": true`, "site ", "branch ", "log "} {
			if !strings.Contains(string(out), part) {
				t.Errorf("%v does not show %q:\n%s", args, part, out)
			}
		}
	}
}

// readCommands returns the lines of the README's sh blocks.
func readCommands(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	return commands
}

// withoutCredentials makes the demo use the agent of those who have none.
func withoutCredentials(environ []string) []string {
	var env []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "ANTHROPIC_") && !strings.HasPrefix(kv, "AGENT") {
			env = append(env, kv)
		}
	}
	return env
}
