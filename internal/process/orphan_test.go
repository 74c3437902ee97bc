package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// TestReapOrphans has a program in the place of process 1 collect orphans, and
// nothing that it waits for itself.
func TestReapOrphans(t *testing.T) {
	program := processtest.Build(t, "github.com/webordinary/claude-code-container/internal/process/processtest/init")
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{0, 12345} { // what it holds belongs to root, as it is not dumpable
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("as user %d: %v\n%s", uid, err, out)
		}
	}
}
