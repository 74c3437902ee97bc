//go:build faults

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// faults lets the program fail when a mark of the journal was written. Only
// programs built with -tags faults have it.
//
// FAULT_AT names a mark at which the program is killed, each time. FAULT_DIR names
// a directory: if there is a file named like the mark, the fault it holds happens,
// once:
//
//	kill    as a crash would end it
//	freeze  it stops itself; who wrote the file lets it go on
//	term    it is told to end, and goes on
//	hold    the command goes no further until the file MARK.held is removed
func faults(environ []string) func(journal.Mark) {
	at, dir := variable(environ, "FAULT_AT"), variable(environ, "FAULT_DIR")
	return func(m journal.Mark) {
		if at != "" && string(m) == at {
			fail("kill", "")
		}
		if dir == "" {
			return
		}
		file := filepath.Join(dir, string(m))
		held := file + ".held"
		if os.Rename(file, held) != nil {
			return // nobody wants a fault here, or somebody else has it
		}
		how, err := os.ReadFile(held) //nolint:gosec // the test names the directory
		if err == nil {
			fail(strings.TrimSpace(string(how)), held)
		}
	}
}

func fail(how, held string) {
	// Signals cannot fail for oneself.
	switch how {
	case "kill":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // nothing more happens here
	case "freeze":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	case "term":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGTERM)
	case "hold":
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for range look.C {
			if _, err := os.Stat(held); err != nil {
				return
			}
		}
	}
}
