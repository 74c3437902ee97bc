package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

// programs are built once per test process.
var programs builds //nolint:gochecknoglobals // one per test process is what it is for

type builds struct {
	once sync.Once
	err  error
	dir  string
	// worker is webordinary with faults to order, tool the scripted agent;
	// bin holds it as npm and node.
	worker, tool, bin string
}

// Main runs the tests of a package, and then ends the emulators and removes the
// programs. It returns the exit code for TestMain.
func Main(m *testing.M) int {
	code := emulators.Main(m)
	if programs.dir != "" {
		os.RemoveAll(programs.dir) //nolint:errcheck // a temporary directory
	}
	return code
}

func (b *builds) get(tb testing.TB) *builds {
	tb.Helper()
	b.once.Do(func() { b.err = b.build() })
	if b.err != nil {
		tb.Fatal(b.err)
	}
	return b
}

func (b *builds) build() error {
	var err error
	if b.dir, err = os.MkdirTemp("", "platform-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // a child's user runs what is in it
		return err
	}
	b.worker, b.tool, b.bin = filepath.Join(b.dir, "webordinary"), filepath.Join(b.dir, "sitetool"), filepath.Join(b.dir, "bin")
	for _, args := range [][]string{
		{"build", "-tags", "faults", "-o", b.worker, "github.com/webordinary/claude-code-container/cmd/webordinary"},
		{"build", "-o", filepath.Join(b.dir, "webordinary-keeper"), "github.com/webordinary/claude-code-container/cmd/keeper"},
		{"build", "-o", b.tool, "github.com/webordinary/claude-code-container/tests/platform/sitetool"},
	} {
		if out, err := exec.CommandContext(context.Background(), "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	if err := os.Mkdir(b.bin, 0o755); err != nil {
		return err
	}
	return errors.Join(os.Symlink(b.tool, filepath.Join(b.bin, "npm")), os.Symlink(b.tool, filepath.Join(b.bin, "node")))
}
