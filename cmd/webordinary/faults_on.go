//go:build faults

package main

import (
	"strings"
	"syscall"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// faults kills the program, as a crash would, when the journal mark named by
// FAULT_AT was written. Only programs built with -tags faults have it.
func faults(environ []string) func(journal.Mark) {
	at := ""
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, "FAULT_AT="); ok {
			at = value
		}
	}
	return func(m journal.Mark) {
		if string(m) == at {
			// It cannot fail for oneself, and nothing more happens here.
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}
