package process

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden keeps others of the same user from looking into this process: its memory,
// its environment and its descriptors, in /proc, by ptrace, or in a core dump. What
// it starts is not affected.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide this process: %w", err)
	}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("hide this process: %w", err)
	}
	return nil
}
