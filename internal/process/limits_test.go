package process_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// behind is a shell command of a child behind the wall.
func behind(t *testing.T, script string) (process.Command, func() string) {
	t.Helper()
	c, out := shell(t, script)
	c.Access = &process.Access{Pair: "p#u", Write: []string{c.Dir}}
	return c, out.String
}

// TestLimitsEndTheTree has what a child can use too much of, each in a way that
// cannot take the machine along if nobody stops it.
func TestLimitsEndTheTree(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		limits process.Limits
		want   process.LimitError
	}{
		"memory": {
			"head -c 600m /dev/zero | tail >/dev/null; sleep 60",
			process.Limits{Memory: 100 << 20},
			process.LimitError{What: process.LimitMemory, Limit: 100 << 20},
		},
		"memory of many": {
			"for i in 1 2 3 4 5 6 7 8; do (head -c 30m /dev/zero; sleep 60) | setsid tail >/dev/null & done; wait",
			process.Limits{Memory: 100 << 20},
			process.LimitError{What: process.LimitMemory, Limit: 100 << 20},
		},
		"processes": {
			"for i in $(seq 150); do setsid sleep 60 & done; wait",
			process.Limits{Processes: 40},
			process.LimitError{What: process.LimitProcesses, Limit: 40},
		},
		"a fork bomb": { // of 2^9
			"bomb() { [ $1 = 0 ] || { bomb $(($1-1)) & bomb $(($1-1)) & }; sleep 60; }; bomb 9",
			process.Limits{Processes: 40},
			process.LimitError{What: process.LimitProcesses, Limit: 40},
		},
		"disk": {
			"mkdir -p a/b; for i in $(seq 15); do head -c 10m /dev/zero > a/b/$i; done; sleep 60",
			process.Limits{Disk: 50 << 20},
			process.LimitError{What: process.LimitDisk, Limit: 50 << 20},
		},
		"files": {
			"mkdir a; cd a; for i in $(seq 4000); do : > $i; done; sleep 60",
			process.Limits{Files: 2000},
			process.LimitError{What: process.LimitFiles, Limit: 2000},
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			r := processtest.Runner(t)
			r.Limits = tt.limits
			c, out := behind(t, tt.script)
			began := time.Now()
			_, err := r.Run(t.Context(), c)
			var over *process.LimitError
			if !errors.As(err, &over) {
				t.Fatalf("error = %v\n%s", err, out())
			}
			if d := cmp.Diff(tt.want, *over); d != "" {
				t.Error(d)
			}
			if left := alive(t); len(left) > 0 {
				t.Errorf("still alive: %v", left)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestOrdinaryLimits checks what every child behind the wall gets, and that the
// keeper does not have it.
func TestOrdinaryLimits(t *testing.T) {
	r := processtest.Runner(t)
	c, out := behind(t, "ulimit -Hc; ulimit -Hn; ulimit -Hf; cat /proc/self/oom_score_adj; cat /proc/$PPID/oom_score_adj")
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if want := "0\n16384\n4194304\n600\n" + string(own); out() != want {
		t.Errorf("got %q, want %q", out(), want)
	}
	c, git := shell(t, "ulimit -Hc; cat /proc/self/oom_score_adj; ulimit -Hf")
	c.Access = nil
	if _, err := r.Run(t.Context(), c); err != nil || !strings.HasPrefix(git.String(), "0\n600\nunlimited") {
		t.Errorf("a child of the worker's own: %q, %v", git, err)
	}
}

// TestNoCore checks that a child that crashes leaves no image of its memory.
func TestNoCore(t *testing.T) {
	r := processtest.Runner(t)
	c, out := behind(t, "ulimit -c unlimited 2>&1; sh -c 'kill -SEGV $$'; ls")
	if _, err := r.Run(t.Context(), c); err != nil || strings.Contains(out(), "core\n") {
		t.Errorf("%v: %s", err, out())
	}
}

func TestFileSize(t *testing.T) {
	r := processtest.Runner(t)
	r.Limits.FileSize = 1 << 20
	c, out := behind(t, "trap '' XFSZ; head -c 5m /dev/zero > f; stat -c %s f")
	if _, err := r.Run(t.Context(), c); err != nil || !strings.HasSuffix(out(), "\n1048576\n") {
		t.Errorf("%v: %s", err, out())
	}
}

// TestProcessesOfAUser checks that a child of a worker without privileges cannot
// fork faster than the keeper looks.
func TestProcessesOfAUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("it needs root, to become somebody else")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Fatal("setpriv is missing; apt-get install util-linux")
	}
	r := processtest.Runner(t)
	r.Keeper = append([]string{setpriv, "--reuid", "12345", "--regid", "12345", "--clear-groups"}, r.Keeper...)
	c, out := behind(t, "until [ $(ulimit -Hp) = $(ulimit -p) ]; do sleep 0.05; done; ulimit -p; ulimit -Hp; ulimit -p unlimited 2>/dev/null || echo no")
	c.Dir = "/"
	if _, err := r.Run(t.Context(), c); err != nil {
		t.Fatalf("%v: %s", err, out())
	}
	if lines := strings.Fields(out()); len(lines) != 3 || lines[0] != lines[1] || len(lines[0]) != 4 || lines[2] != "no" {
		t.Errorf("got %q, want a limit above 4096", lines)
	}
}

// TestMemoryLimit checks the bound on the worker's own children.
func TestMemoryLimit(t *testing.T) {
	r := processtest.Runner(t)
	for _, tt := range []struct {
		megabytes string
		ok        bool
	}{{"10m", true}, {"300m", false}} {
		c, out := shell(t, "for n in $(seq 100); do [ $(ulimit -d) = 131072 ] && break; sleep 0.05; done; ulimit -d; head -c "+tt.megabytes+" /dev/zero | tail >/dev/null")
		c.Access, c.MemoryLimit = nil, 128<<20
		_, err := r.Run(t.Context(), c)
		text := out.String()
		if !strings.HasPrefix(text, "131072\n") || tt.ok != (err == nil) || tt.ok == strings.Contains(text, "exhausted") {
			t.Errorf("%s: %v: %s", tt.megabytes, err, text)
		}
	}
}

// TestKeeperOutlivesTheMemoryLimit checks that a bound far below what the keeper maps
// itself is the child's alone.
func TestKeeperOutlivesTheMemoryLimit(t *testing.T) {
	r := processtest.Runner(t)
	for range 200 {
		if _, err := r.Run(t.Context(), process.Command{Path: "true", Dir: "/", Env: processtest.Env(t), MemoryLimit: 32 << 20}); err != nil {
			t.Fatal(err)
		}
	}
}
