// Package cli drives the operator's command line, as people use it: the built binary
// against the emulators, with workers that run the scripted agent.
package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/tests/apicall"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/program"
)

// binary is the program, built as for use.
var binary string

// calls are what the command line calls in AWS.
var calls = apicall.Recorder{Apart: true}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil { // they wait more than they work
		panic(err)
	}
	code, err := program.With(func(path string) (int, error) {
		binary = path
		code := platform.Main(m)
		if run := flag.Lookup("test.run").Value.String(); code == 0 && run == "" {
			return code, compareCalls()
		}
		return code, nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		code = 1
	}
	os.Exit(code)
}

// compareCalls holds what was called against the list that the operator's policy is
// compared with.
func compareCalls() error {
	body, err := os.ReadFile(filepath.Join("..", "infra", "operator-calls.txt"))
	if err != nil {
		return err
	}
	var listed []string
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			listed = append(listed, line)
		}
	}
	slices.Sort(listed)
	if called := calls.Calls(); !slices.Equal(called, listed) {
		return fmt.Errorf("called:\n%s\ntests/infra/operator-calls.txt:\n%s", strings.Join(called, "\n"), strings.Join(listed, "\n"))
	}
	return nil
}
