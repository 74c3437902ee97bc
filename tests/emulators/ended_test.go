package emulators

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestAnEmulatorThatEndsIsNamed(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := s.running.children[1]
	kill(t, c.command.Path, strconv.Itoa(s.running.ports[0].number))
	<-c.done
	if err := s.Close(); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "emulator of "+c.name) {
		t.Errorf("close: %v", err)
	}
}

// kill kills the process that runs a program with an argument.
func kill(t *testing.T, program, argument string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		argv := strings.Split(string(line), "\x00")
		if err != nil || argv[0] != program || !strings.Contains(string(line), "\x00"+argument+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no process runs %s", program)
}
