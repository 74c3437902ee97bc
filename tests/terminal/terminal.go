// Package terminal opens terminals for tests of programs that behave otherwise there.
package terminal

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Open opens a terminal: the end of the person, who reads what is shown and types, and
// that of a program. Both are closed with the test.
func Open(tb testing.TB) (person, program *os.File) {
	tb.Helper()
	// Of a descriptor that does not block, a read ends when it is closed.
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { person.Close() }) //nolint:errcheck // nothing is left to be written
	var n int
	raw, err := person.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	cerr := raw.Control(func(fd uintptr) {
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	})
	if err != nil || cerr != nil {
		tb.Fatal(err, cerr)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { program.Close() }) //nolint:errcheck // nothing is left to be written
	return person, program
}
