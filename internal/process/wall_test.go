package process_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// walled runs a shell script behind a wall, and returns what it says.
func walled(t *testing.T, r *process.Runner, change func(*process.Command), script string) string {
	t.Helper()
	c, out := shell(t, script)
	c.Env = process.With(c.Env, "TMPDIR="+c.Dir)
	change(&c)
	if _, err := r.Run(t.Context(), c); err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	return strings.TrimSpace(out.String())
}

// TestWall has a child try what a wall stands against. Without one, it succeeds.
func TestWall(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := processtest.Dir(t)
	if err := os.WriteFile(filepath.Join(shared, "tool"), []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "reached") })) //nolint:errcheck // it is small
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	self := os.Getpid()
	node := func(code string) string { return "node -e '" + code + "' 2>&1" }
	fetch := node(`fetch("http://` + address + `").then(r => r.text()).then(console.log, e => console.log(e.cause?.code))`)
	for _, tt := range []struct {
		name, script string
		free, behind string // what the output holds, without a wall and with one
		allow        bool   // it is allowed by name
	}{
		{name: "read a file", script: "cat " + secret, free: "hunter2", behind: "cat: "},
		{name: "write a file", script: "echo x > " + secret + ".new && echo written", free: "written", behind: secret},
		{name: "write to the system", script: "touch /usr/local/planted && echo written && rm /usr/local/planted", free: "written", behind: "touch: "},
		{name: "write where it may", script: "echo x > file && mv file other && cat other", free: "x", behind: "x"},
		{name: "run what it may read", script: shared + "/tool", free: "ran", behind: "ran", allow: true},
		{name: "change what it may read", script: "echo x > " + shared + "/new && echo written", free: "written", behind: shared, allow: true},
		{name: "environment of the worker", script: fmt.Sprintf("tr '\\0' '\\n' < /proc/%d/environ | grep -c =", self), free: "", behind: "cannot open"},
		{name: "memory of the worker", script: fmt.Sprintf("head -c1 /proc/%d/maps >/dev/null && echo got it", self), free: "got it", behind: "head: cannot"},
		{name: "signal the worker", script: fmt.Sprintf("kill -0 %d && echo sent", self), free: "sent", behind: "kill: "},
		{name: "signal the keeper", script: `kill -KILL $PPID 2>&1; echo alive`, free: "the keeper ended", behind: "alive"},
		{name: "loopback", script: fetch, free: "reached", behind: "E"},
		{name: "the proxy", script: fetch, free: "reached", behind: "reached", allow: true},
		{name: "capabilities", script: "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | awk '{print $2}' | sort -u; grep NoNewPrivs /proc/self/status", free: "", behind: "0000000000000000\nNoNewPrivs:\t1"},
		// A pair's user has no entry among the machine's, so os.userInfo() is not asked.
		{name: "node works", script: node(`console.log(process.getuid() >= 0, require("os").cpus().length > 0)`), free: "true true", behind: "true true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overWalls(t, func(t *testing.T, r *process.Runner) {
				t.Helper()
				got := walled(t, r, func(c *process.Command) {
					if tt.allow {
						c.Access.Proxy, c.Access.Read = address, []string{shared}
					}
				}, tt.script)
				want := tt.behind
				if r.Wall == process.WallOff {
					want = tt.free
				}
				if !strings.Contains(got, want) || tt.free != tt.behind && tt.free != "" && r.Wall != process.WallOff && strings.Contains(got, tt.free) {
					t.Errorf("the child says %q; want %q", got, want)
				}
				t.Logf("%q", got)
			})
		})
	}
}

// TestDatagrams has a child send a datagram to the worker's machine.
func TestDatagrams(t *testing.T) {
	overWalls(t, func(t *testing.T, r *process.Runner) {
		t.Helper()
		udp, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close() //nolint:errcheck // it has been read
		walled(t, r, func(*process.Command) {}, fmt.Sprintf(`node -e 'const s = require("dgram").createSocket("udp4"); s.on("error", () => process.exit()); s.send("x", %d, "127.0.0.1", () => process.exit())'`,
			udp.LocalAddr().(*net.UDPAddr).Port))
		if err := udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := udp.ReadFrom(make([]byte, 10))
		if sent := n > 0; sent != (r.Wall == process.WallOff) {
			t.Errorf("a datagram came through: %v, %v", sent, err)
		}
	})
}

// TestOtherNetworks has a child ask for a socket that leads past every network
// namespace: to the machine that this one runs on.
func TestOtherNetworks(t *testing.T) {
	overWalls(t, func(t *testing.T, r *process.Runner) {
		t.Helper()
		got := walled(t, r, func(*process.Command) {}, `perl -e 'print socket(my $vsock, 40, 1, 0) ? "made" : $!'`)
		if refused := got == "Permission denied"; refused != (r.Wall != process.WallOff) {
			t.Errorf("a socket of the kind vsock: %s", got)
		}
	})
}

func TestProbe(t *testing.T) {
	overWalls(t, func(t *testing.T, r *process.Runner) {
		t.Helper()
		if r.Wall == process.WallUsers {
			return // it wants a worker that is not root: TestProbeUsers
		}
		err := r.Probe(t.Context(), r.Keeper)
		if r.Wall != process.WallOff {
			if err != nil {
				t.Error(err)
			}
			return
		}
		for _, what := range []string{"read the worker's files", "read the worker's environment", "send signals to the worker", "reach other addresses"} {
			if err == nil || !strings.Contains(err.Error(), "can "+what) {
				t.Errorf("without a wall the probe says %v, and not that a child can %s", err, what)
			}
		}
	})
}

// A wall that cannot be built is not the program's fault, and nothing runs.
func TestNoWall(t *testing.T) {
	r := processtest.Runner(t)
	r.Wall = "moat"
	c, out := shell(t, "echo ran")
	if _, err := r.Run(t.Context(), c); !errors.Is(err, process.ErrWall) || errors.Is(err, process.ErrNotFound) || out.Len() > 0 {
		t.Errorf("an unknown wall: %v, %q", err, out)
	}
	r.Wall = process.WallBubblewrap
	c.Access.Write = append(c.Access.Write, "/no/such/directory")
	if _, err := r.Run(t.Context(), c); !errors.Is(err, process.ErrWall) || !strings.Contains(out.String(), "/no/such/directory") {
		t.Errorf("a directory that is not there: %v, %q", err, out)
	}
}

// BenchmarkRun measures what keeper and wall add to a child that does nothing. On a
// busy machine the best time says most.
func BenchmarkRun(b *testing.B) {
	dir := processtest.Dir(b)
	measure := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			best := time.Hour
			for b.Loop() {
				began := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(began))
			}
			b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
		})
	}
	measure("by_hand", func() error { return exec.CommandContext(b.Context(), "/bin/true").Run() })
	for _, wall := range processtest.Walls() {
		r := processtest.RunnerBehind(b, wall)
		measure(string(wall), func() error {
			_, err := r.Run(b.Context(), process.Command{
				Path: "/bin/true", Dir: dir, Access: &process.Access{Pair: "bench#" + rand.Text(), Write: []string{dir}, Proxy: "127.0.0.1:20009"},
			})
			return err
		})
		if wall != process.WallOff && wall != process.WallUsers { // whose probe wants a worker that is not root
			measure(string(wall)+"_probe", func() error { return r.Probe(b.Context(), r.Keeper) })
		}
	}
}
