// Package program builds webordinary, as it is used, for tests that run it, and keeps
// what it says.
package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build returns the path of the program, which is gone after the test.
func Build(tb testing.TB) string {
	tb.Helper()
	path, err := buildInto(tb.Context(), tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// With is Build for TestMain: the program is there as long as use runs. It returns what
// use does.
func With(use func(path string) (code int, err error)) (code int, err error) {
	dir, err := os.MkdirTemp("", "program-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, err := buildInto(context.Background(), dir)
	if err != nil {
		return 1, err
	}
	return use(path)
}

func buildInto(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "webordinary")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/webordinary/claude-code-container/cmd/webordinary").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}
