package readme

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/program"
)

// elsewhere are commands that the table of operations.md leaves out: what is no operator's,
// and what only has others below it.
var elsewhere = []string{"demo [instruction]", "run", "dlq"}

// help returns what a command says of itself.
func help(t *testing.T, binary string, words ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append(words, "--help")...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("webordinary %v --help: %v\n%s", words, err, out)
	}
	return string(out)
}

var (
	usageLine = regexp.MustCompile(`(?m)^  webordinary (.*?)(?: \[flags\])?$`)
	flagName  = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[\w-]+)`)
	listed    = regexp.MustCompile(`(?m)^  ([\w-]+) +\S`)
)

// commands walks through the help, and returns the flags of each command that does
// something.
func commands(t *testing.T, binary string, words ...string) map[string][]string {
	t.Helper()
	text := help(t, binary, words...)
	all := map[string][]string{}
	_, below, parent := strings.Cut(text, "Available Commands:\n")
	below, _, _ = strings.Cut(below, "\n\n")
	// The example of a command looks like its usage.
	_, usage, _ := strings.Cut(text, "Usage:\n")
	_, flags, _ := strings.Cut(text, "\nFlags:\n")
	if m := usageLine.FindStringSubmatch(usage); m != nil && m[1] != "[command]" && !strings.HasSuffix(m[1], "[command]") {
		var names []string
		for _, f := range flagName.FindAllStringSubmatch(flags, -1) {
			if f[1] != "--help" {
				names = append(names, f[1])
			}
		}
		slices.Sort(names)
		all[m[1]] = names
	}
	if parent {
		for _, m := range listed.FindAllStringSubmatch(below, -1) {
			if m[1] == "completion" || m[1] == "help" {
				continue
			}
			maps.Copy(all, commands(t, binary, append(slices.Clone(words), m[1])...))
		}
	}
	return all
}

// TestOperationsListsTheCommands compares the table of operations.md with the binary.
func TestOperationsListsTheCommands(t *testing.T) {
	binary := program.Build(t)
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- commands: ")
	table, _, _ = strings.Cut(table, "<!-- end of commands -->")
	documented := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `webordinary ([^`]*)` \\| ([^|]*) \\|").FindAllStringSubmatch(table, -1) {
		flags := regexp.MustCompile(`--[\w-]+`).FindAllString(m[2], -1)
		slices.Sort(flags)
		documented[m[1]] = flags
	}
	got := commands(t, binary)
	for _, usage := range elsewhere {
		delete(got, usage)
	}
	if d := cmp.Diff(got, documented); d != "" {
		t.Errorf("the commands of the binary, and of operations.md (-binary +documented):\n%s", d)
	}
}

// TestExamplesAreUnderstood runs the examples of documents with --help at their end: what
// the program does not know is an error before that.
func TestExamplesAreUnderstood(t *testing.T) {
	binary := program.Build(t)
	n := 0
	for _, file := range []string{"../../docs/operations.md", "../../README.md", "../../CONTRIBUTING.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^webordinary (.*)$`).FindAllStringSubmatch(string(text), -1) {
			n++
			cmd := exec.CommandContext(t.Context(), "sh", "-c", binary+" "+m[1]+" --help")
			cmd.Dir = t.TempDir()
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Usage:") {
				t.Errorf("%s has `webordinary %s`: %v\n%s", file, m[1], err, out)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d examples were found", n)
	}
}
