package emulators_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

// helperVariable makes this test binary a process that starts a set, says so, and
// waits to be killed.
const helperVariable = "EMULATORS_TEST_HELPER"

func helper() {
	set, err := emulators.Start(context.Background(), emulators.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(set)
	select {}
}

func urls(s *emulators.Set) []string { return []string{s.SQS, s.DynamoDB, s.S3, s.Website} }

func portOf(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// awaitGone fails the test if somebody listens, or a process is there, for longer
// than a kill takes: the keepers are the last to go.
func awaitGone(t *testing.T, s *emulators.Set) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for _, address := range urls(s) {
		for {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(address, "http://"))
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if err == nil {
				conn.Close() //nolint:errcheck // to connect was all
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				t.Fatalf("%s is still there: %v", address, err)
			}
		}
	}
	for left := mentions(t, s); len(left) > 0; left = mentions(t, s) {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("left: %q", left)
		}
	}
}

// mentions lists the processes whose command line holds one of the ports.
func mentions(t *testing.T, s *emulators.Set) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		for _, address := range urls(s) {
			if port := strconv.Itoa(portOf(t, address)); strings.Contains(string(line), port) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
	}
	return found
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := emulators.Start(t.Context(), emulators.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(mentions(t, s)); n < 3 {
		t.Errorf("%d processes know the ports, want 3 at least", n)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if left := mentions(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	awaitGone(t, s)
	if files, err := os.ReadDir(os.TempDir()); err != nil || len(files) > 0 {
		t.Errorf("left: %v, %v", files, err)
	}
}

func TestKilledParentLeavesNothing(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), exe)
	parent.Env = append(os.Environ(), helperVariable+"=1", "TMPDIR="+t.TempDir())
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait() //nolint:errcheck // it was killed
	if readErr != nil {
		t.Fatal(readErr)
	}
	s, err := emulators.Attach(line)
	if err != nil {
		t.Fatal(err)
	}
	awaitGone(t, s)
}

// TestLoopbackOnly reads the kernel's tables of listening sockets.
func TestLoopbackOnly(t *testing.T) {
	s := emulators.Shared(t)
	local := map[string]int{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[0] == "sl" || f[3] != "0A" { // 0A is LISTEN
				continue
			}
			address, port, _ := strings.Cut(f[1], ":")
			local[port]++
			// Little endian: the last four bytes are the address, turned round.
			raw, err := hex.DecodeString(address[len(address)-8:])
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range urls(s) {
				if fmt.Sprintf("%04X", portOf(t, u)) == port && (raw[3] != 127 || len(address) == 32 && address[16:24] != "0000FFFF" && address[16:24] != "FFFF0000") {
					t.Errorf("%s listens on %s", u, f[1])
				}
			}
		}
	}
	for _, u := range urls(s) {
		port := portOf(t, u)
		if local[fmt.Sprintf("%04X", port)] != 1 {
			t.Errorf("%s listens %d times", u, local[fmt.Sprintf("%04X", port)])
		}
		if port < 10000 || port > 32767 {
			t.Errorf("%s is outside the chosen ports", u)
		}
	}
}

func TestMissingToolSaysHowToGetIt(t *testing.T) {
	_, err := emulators.Start(t.Context(), emulators.Options{Root: t.TempDir()})
	if !errors.Is(err, emulators.ErrMissing) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("error %v", err)
	}
}
