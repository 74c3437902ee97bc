package process_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(t *testing.T, script string) (process.Command, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	dir := processtest.Dir(t)
	return process.Command{
		Path: "sh", Args: []string{"-c", script}, Dir: dir,
		Env: append(process.Environ(os.Environ(), nil), "MARK="+mark(t)), Stdout: &out, Stderr: &out,
		Access: &process.Access{Pair: "shop#" + rand.Text(), Write: []string{dir}},
	}, &out
}

// overWalls runs a test with each wall that there is: a child behaves alike behind
// all of them.
func overWalls(t *testing.T, f func(t *testing.T, r *process.Runner)) {
	t.Helper()
	for _, wall := range processtest.Walls() {
		t.Run(string(wall), func(t *testing.T) {
			f(t, processtest.RunnerBehind(t, wall))
		})
	}
}

func mark(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
}

// alive lists the processes that have the test's mark in their environment.
func alive(t *testing.T) []string {
	t.Helper()
	var found []string
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range envs {
		env, _ := os.ReadFile(file)
		if bytes.Contains(env, []byte("MARK="+mark(t)+"\x00")) {
			found = append(found, filepath.Dir(file))
		}
	}
	return found
}

func TestRun(t *testing.T) { overWalls(t, run) }

func run(t *testing.T, r *process.Runner) {
	t.Helper()
	for _, tt := range []struct {
		name, script string
		stdin        string
		want         process.Result
		out          string
	}{
		{"success", "echo hello", "", process.Result{}, "hello\n"},
		{"exit code", "exit 7", "", process.Result{ExitCode: 7}, ""},
		{"signal", "kill -9 $$", "", process.Result{ExitCode: -1, Signal: syscall.SIGKILL}, ""},
		{"stdin", "cat; cat", "some text", process.Result{}, "some text"},
		{"no stdin", "cat", "", process.Result{}, ""},
		{"stderr", "echo oops >&2", "", process.Result{}, "oops\n"},
		{"only our descriptors", "ls /proc/self/fd | wc -l | tr -d ' '", "", process.Result{}, "4\n"},
		// But for 32 and 33, which belong to the C library and pass through Go.
		{"no ignored signals", "printf '%x\\n' $((0x$(awk '/SigIgn/{print $2}' /proc/self/status) & ~0x180000000))", "", process.Result{}, "0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, out := shell(t, tt.script)
			c.Stdin = strings.NewReader(tt.stdin)
			got, err := r.Run(t.Context(), c)
			var exit *process.ExitError
			if tt.want.ExitCode != 0 != errors.As(err, &exit) {
				t.Fatalf("error = %v", err)
			}
			got.Duration = 0
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("result (-want +got):\n%s", d)
			}
			if out.String() != tt.out {
				t.Errorf("output %q; want %q", out, tt.out)
			}
		})
	}
}

func TestEnvironmentIsNotInherited(t *testing.T) {
	t.Setenv("SECRET_OF_THE_WORKER", "hunter2")
	overWalls(t, func(t *testing.T, r *process.Runner) {
		t.Helper()
		c, out := shell(t, "")
		c.Path, c.Args, c.Env = "/usr/bin/env", nil, []string{"A=1"}
		if _, err := r.Run(t.Context(), c); err != nil || out.String() != "A=1\n" {
			t.Fatalf("the child's environment is %q, %v", out.String(), err)
		}
	})
}

func TestNotFound(t *testing.T) {
	notProgram := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notProgram, []byte("not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	overWalls(t, func(t *testing.T, r *process.Runner) {
		t.Helper()
		r.Read = []string{notProgram}
		for _, path := range []string{"no-such-program", "/no/such/program", t.TempDir(), notProgram} {
			c, out := shell(t, "")
			c.Path, c.Env = path, []string{"PATH=/usr/bin"}
			if _, err := r.Run(t.Context(), c); !errors.Is(err, process.ErrNotFound) {
				t.Errorf("Run(%s): %v; want ErrNotFound\n%s", path, err, out)
			}
		}
	})
}

// What a child can do to be hard to kill. Each prints "up" when it is done.
func stubborn() map[string]string {
	return map[string]string{
		"heeds TERM":     `echo up; sleep 60`,
		"ignores TERM":   `trap '' TERM; echo up; sleep 60 & while :; do wait; done`,
		"own session":    `setsid sh -c 'trap "" TERM; echo up; sleep 60' & sleep 60`,
		"daemon":         `(setsid sh -c 'setsid sleep 60 >/dev/null 2>&1 </dev/null &' &) ; sleep 0.2; echo up; sleep 60`,
		"stopped":        `sh -c 'kill -STOP $$' & sleep 0.2; echo up; sleep 60`,
		"keeps forking":  `trap '' TERM; echo up; while :; do (setsid sleep 30 &) ; sleep 0.01; done`,
		"killed parents": `(sh -c 'setsid sleep 60 & kill -9 $$' &) ; sleep 0.2; echo up; sleep 60`,
	}
}

func TestCancelLeavesNothing(t *testing.T) { overWalls(t, cancelLeavesNothing) }

func cancelLeavesNothing(t *testing.T, r *process.Runner) {
	t.Helper()
	for name, script := range stubborn() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			c, _ := shell(t, script)
			reason := errors.New("because")
			var cancelled time.Time
			c.Stdout = writerFunc(func(p []byte) (int, error) {
				cancelled = time.Now()
				cancel(reason)
				return len(p), nil
			})
			if _, err := r.Run(ctx, c); !errors.Is(err, reason) {
				t.Fatalf("error = %v; want the cause of the context", err)
			}
			took := time.Since(cancelled)
			if left := alive(t); len(left) > 0 {
				t.Fatalf("still alive: %v", left)
			}
			if took > 3*time.Second {
				t.Errorf("took %v to end the tree; 3 s are promised", took)
			}
			if name == "heeds TERM" && took > time.Second {
				t.Errorf("took %v although TERM is heeded", took)
			}
		})
	}
}

func TestNormalExitLeavesNothing(t *testing.T) { overWalls(t, normalExitLeavesNothing) }

func normalExitLeavesNothing(t *testing.T, r *process.Runner) {
	t.Helper()
	for name, script := range stubborn() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c, _ := shell(t, `(`+script+`) & sleep 0.5; exit 0`)
			if _, err := r.Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if left := alive(t); len(left) > 0 {
				t.Fatalf("still alive: %v", left)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestEnviron(t *testing.T) {
	all := []string{"PATH=/bin", "AWS_SECRET_ACCESS_KEY=x", "LC_ALL=C", "GITHUB_TOKEN=y", "MINE=1", "HOME=/root", "broken"}
	got := process.Environ(all, []string{"MINE"})
	if d := cmp.Diff([]string{"PATH=/bin", "LC_ALL=C", "MINE=1", "HOME=/root"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	got = process.With(got, "HOME=/x", "NEW=2")
	if d := cmp.Diff([]string{"PATH=/bin", "LC_ALL=C", "MINE=1", "HOME=/x", "NEW=2"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTail(t *testing.T) {
	tail := process.Tail{Max: 5}
	for _, s := range []string{"abc", "defg", ""} {
		fmt.Fprint(&tail, s) //nolint:errcheck // a Tail takes everything
	}
	if tail.String() != "cdefg" {
		t.Errorf("kept %q", tail.String())
	}
}

func ExampleRunner() {
	r := process.Runner{Keeper: []string{"/proc/self/exe", "keeper"}} // as the worker does
	_, err := r.Run(context.Background(), process.Command{Path: "no-such-program", Env: []string{"PATH=/usr/bin"}})
	fmt.Println(err)
	// Output: program not found: no-such-program is not in the child's PATH
}
