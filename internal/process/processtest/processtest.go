// Package processtest gives tests a process.Runner with a real keeper.
package processtest

import (
	"os"
	"os/exec"
	"path/filepath"
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

// Build builds a program of this module, with build tags if there are any, and
// returns its path. The go command's cache makes a second build quick.
func Build(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // others shall run it
		tb.Fatal(err)
	}
	out := filepath.Join(dir, filepath.Base(pkg))
	args := append(append([]string{"build", "-o", out}, flags...), pkg)
	cmd := exec.CommandContext(tb.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the image does
	if msg, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("go %v: %v\n%s", args, err, msg)
	}
	return out
}

// Env is a small environment for children of tests: PATH, and a HOME that is
// empty.
func Env(tb testing.TB) []string {
	tb.Helper()
	return append(process.Environ(os.Environ(), nil), "HOME="+tb.TempDir())
}
