package process_test

import (
	"os/exec"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// TestReapOrphans has a program in the place of process 1 collect orphans, and
// nothing that it waits for itself.
func TestReapOrphans(t *testing.T) {
	program := processtest.Build(t, "github.com/webordinary/claude-code-container/internal/process/processtest/init")
	if out, err := exec.CommandContext(t.Context(), program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
