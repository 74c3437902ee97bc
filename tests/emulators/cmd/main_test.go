package main

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

func TestWrapPassesTheSetAndTheExitCodeOn(t *testing.T) {
	bin := processtest.Build(t, "github.com/webordinary/claude-code-container/tests/emulators/cmd")
	for script, want := range map[string]int{
		`echo "$WEBORDINARY_EMULATORS"; exit 7`: 7,
		`echo "$WEBORDINARY_EMULATORS"; exit 0`: 0,
		// The signal is for the wrapper, which passes it on.
		`trap 'echo "$WEBORDINARY_EMULATORS"; exit 9' TERM; kill -TERM $PPID; while :; do read _; done < "$1"`: 9,
		`echo "$WEBORDINARY_EMULATORS"; kill -KILL $$`:                                                         137,
	} {
		cmd := exec.CommandContext(t.Context(), bin, "--", "sh", "-c", script, "sh", fifo(t))
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != want || !strings.Contains(string(out), `"sqs":"http://127.0.0.1:`) {
			t.Errorf("%s: exit code %d, want %d; said %q", script, got, want, out)
		}
	}
}

func fifo(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/never"
	if out, err := exec.CommandContext(t.Context(), "mkfifo", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v\n%s", err, out)
	}
	return path
}

func TestUsage(t *testing.T) {
	var out bytes.Buffer
	for _, args := range [][]string{{"go", "test"}, {"-port", "many"}, {"-port"}} {
		if code, err := run(t.Context(), args, &out); code != 2 || err == nil {
			t.Errorf("%v: code %d, %v", args, code, err)
		}
	}
}
