package matrix

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/modelserver"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// loopbackOnly looks for listening sockets of the worker and all its children while
// the Claude Code CLI talks to its gateway, and after the job.
func loopbackOnly(t *testing.T) {
	claude, err := filepath.Abs("../../.tools/npm/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(claude); err != nil {
		t.Fatalf("the Claude Code CLI is missing; `make setup` installs it (%v)", err)
	}
	w, model := newWorld(t, platform.Options{Idle: 30 * time.Second, Npm: true}), modelserver.Start(t)
	worker := w.StartWorker("AGENT=claude", "CLAUDE_PATH="+claude, "ANTHROPIC_API_KEY=sk-ant-test-0123456789", "ANTHROPIC_BASE_URL="+model.URL())
	c := w.Command(w.j, "1", site.Add{Build: 2 * time.Second})
	gate := modelserver.NewGate()
	t.Cleanup(gate.Open)
	model.Play(c.Add.Token, modelserver.Bash(fmt.Sprintf("echo '%s' >> %s", c.Add, site.Content)), modelserver.Say("Added.").Behind(gate))
	if got := listening(t, worker); len(got) > 0 {
		t.Errorf("a worker without work listens on %v", got)
	}
	w.Send(c)
	select {
	case <-gate.Reached():
	case <-time.After(patience):
		t.Fatal("the model was not asked")
	}
	busy := listening(t, worker)
	if len(busy) == 0 {
		t.Error("not even the gateway listens, so nothing is shown")
	}
	gate.Open()
	w.AwaitRun(c, "build", patience)
	busy = append(busy, listening(t, worker)...)
	for _, at := range busy {
		if !at.Addr().IsLoopback() {
			t.Errorf("somebody listens on %s", at)
		}
	}
	if out := w.answer(c, 1); !out.Success {
		t.Errorf("answer %+v", out)
	}
	w.await(10*time.Second, "no listening socket is left", func() bool { return len(listening(t, worker)) == 0 })
	if !worker.Alive() {
		t.Error("the worker has ended, so nothing was shown")
	}
}

// listening is where a worker and its children accept connections.
func listening(t *testing.T, worker *platform.Worker) []netip.AddrPort {
	t.Helper()
	var all []netip.AddrPort
	for _, pid := range worker.Tree() {
		open := sockets(t, pid)
		for _, table := range []string{"tcp", "tcp6"} {
			body, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
			if errors.Is(err, fs.ErrNotExist) || err != nil && len(open) == 0 {
				continue // it has just ended
			}
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(body)) {
				// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
				fields := strings.Fields(line)
				if len(fields) < 10 || fields[3] != "0A" || !slices.Contains(open, fields[9]) {
					continue
				}
				all = append(all, address(t, fields[1]))
			}
		}
	}
	return all
}

// sockets are the inodes of a process's sockets.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var inodes []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && err == nil {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

// address reads one as the kernel writes it: words in the machine's order, which is
// that of little ends here.
func address(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, perr := hex.DecodeString(port)
	if err := errors.Join(err, perr); err != nil || len(raw)%4 != 0 || len(number) != 2 {
		t.Fatalf("%q is no address: %v", text, err)
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		t.Fatalf("%q is no address", text)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number[0])<<8|uint16(number[1]))
}
