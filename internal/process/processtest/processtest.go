// Package processtest gives tests a process.Runner with a real keeper.
package processtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// Runner returns a runner whose keeper is built from cmd/keeper.
func Runner(tb testing.TB) *process.Runner {
	tb.Helper()
	return &process.Runner{Keeper: []string{Build(tb, "github.com/webordinary/claude-code-container/cmd/keeper")}}
}

// Walls are the walls that tests go through, and none.
func Walls() []process.Wall {
	return []process.Wall{process.WallOff, process.WallBubblewrap, process.WallUsers, process.WallLandlock}
}

// RunnerBehind returns a runner whose children are behind a wall. That of users
// needs a test that is root.
func RunnerBehind(tb testing.TB, wall process.Wall) *process.Runner {
	tb.Helper()
	if wall == process.WallUsers {
		return NewUsers(tb).Runner(tb)
	}
	r := Runner(tb)
	r.Wall = wall
	return r
}

// Dir returns a new directory that a child behind any wall may be given.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if os.Getuid() != 0 {
		return dir
	}
	above := filepath.Dir(dir)
	// Some walls take from root what makes it one, and leave it its number.
	for _, err := range []error{os.Chmod(above, 0o711), os.Chown(above, WorkerID, WorkerID), os.Chmod(dir, 0o777), os.Chown(dir, WorkerID, WorkerID)} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Build gives a program of this module, built with build tags if there are any, and
// returns its path. A test binary builds each once.
func Build(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	args := append(append([]string{"build"}, flags...), pkg)
	once, _ := programs.LoadOrStore(strings.Join(args, " "), sync.OnceValues(func() ([]byte, error) { return build(args) }))
	program, err := once.(func() ([]byte, error))()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // others shall run it
		tb.Fatal(err)
	}
	out := filepath.Join(dir, filepath.Base(pkg))
	// Another process writes it: a child that we fork at that moment would have the
	// file open for writing, and no program that is may be run.
	install := exec.CommandContext(tb.Context(), "install", "-m", "755", "/dev/stdin", out)
	install.Stdin = bytes.NewReader(program)
	if msg, err := install.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", install.Args, err, msg)
	}
	return out
}

// programs are the contents of what was built, by the words of the go command.
var programs sync.Map //nolint:gochecknoglobals // what all tests of a binary share

func build(args []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is below the directory of temporary files
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(context.Background(), "go", slices.Insert(slices.Clone(args), 1, "-o", out)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the image does
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %v: %w\n%s", args, err, msg)
	}
	return os.ReadFile(out)
}

// Env is a small environment for children of tests: PATH, and a HOME that is
// empty.
func Env(tb testing.TB) []string {
	tb.Helper()
	return append(process.Environ(os.Environ(), nil), "HOME="+tb.TempDir())
}
