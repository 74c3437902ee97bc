package agent

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the program of a worker that a test starts.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		os.Exit(work()) //nolint:forbidigo // it is the main of another program
	}
	goleak.VerifyTestMain(m)
}
