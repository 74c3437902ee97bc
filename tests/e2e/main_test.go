// Package e2e drives the built binary from the outside: a real git server with a
// token, the real Claude Code CLI against a scripted model, real npm and Astro
// builds.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tools are the programs under test. TestMain makes them.
type tools struct {
	dir    string // of what all tests share
	binary string // webordinary
	faulty string // the same, with -tags faults
	claude string
}

var programs tools

func TestMain(m *testing.M) {
	code, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func prepare(m *testing.M) (int, error) {
	claude, err := filepath.Abs("../../.tools/npm/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(claude); err != nil {
		return 0, fmt.Errorf("the Claude Code CLI is missing; `make setup` installs it (%w)", err)
	}
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	programs = tools{dir: dir, binary: filepath.Join(dir, "webordinary"), faulty: filepath.Join(dir, "webordinary-faults"), claude: claude}
	for _, args := range [][]string{
		{"build", "-o", programs.binary, "../../cmd/webordinary"},
		{"build", "-tags", "faults", "-o", programs.faulty, "../../cmd/webordinary"},
	} {
		if out, err := exec.CommandContext(context.Background(), "go", args...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	return m.Run(), nil
}
