package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

const module = "github.com/webordinary/claude-code-container/"

// silence is that of the workers here.
const silence = time.Second

// worker is a worker that can be killed: this test binary's Run in another
// process.
type worker struct {
	t    *testing.T
	pid  int
	done chan error
}

// startWorker runs a script in a worker, and returns when it has said "up".
func startWorker(t *testing.T, r *process.Runner, program, script string) *worker {
	t.Helper()
	c, said := shell(t, "")
	keeper := r.Keeper
	if r.Wall == process.WallUsers {
		keeper = r.Setuid
	}
	c.Path, c.Args = program, []string{strings.Join(keeper, " "), string(r.Wall), silence.String(), c.Dir, "MARK=" + mark(t), script}
	c.Access = nil
	c.Env = process.Environ(os.Environ(), nil) // the worker itself has no mark
	up := make(chan struct{}, 1)
	c.Stdout = writerFunc(func(p []byte) (int, error) {
		select {
		case up <- struct{}{}:
		default:
		}
		return len(p), nil
	})
	// Run through a keeper of its own, whose subreaping would hide an
	// escape; so the marks are looked for before it ends.
	ctx, cancel := context.WithCancel(t.Context())
	w := &worker{t: t, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := r.Run(ctx, c)
		w.done <- err
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-up:
	case <-ended:
		t.Fatalf("the worker ended: %v, %s", <-w.done, said)
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if w.pid, err = strconv.Atoi(string(text)); err != nil {
		t.Fatal(err)
	}
	if len(alive(t)) == 0 {
		t.Fatal("nothing was running")
	}
	return w
}

func (w *worker) signal(sig syscall.Signal) {
	w.t.Helper()
	if err := syscall.Kill(w.pid, sig); err != nil {
		w.t.Fatal(err)
	}
}

// exit is the worker's exit code.
func (w *worker) exit() int {
	w.t.Helper()
	select {
	case err := <-w.done:
		if x, ok := errors.AsType[*process.ExitError](err); ok {
			return x.Result.ExitCode
		}
		w.t.Fatalf("the worker ended with %v", err)
	case <-time.After(3 * time.Second):
		w.t.Fatal("the worker does not end")
	}
	return 0
}

// workerPrograms builds the worker, and adds what is hardest to end to the
// scripts.
func workerPrograms(t *testing.T) (program string, scripts map[string]string) {
	t.Helper()
	fugitive := processtest.Build(t, module+"internal/process/processtest/fugitive")
	scripts = stubborn()
	scripts["all at once"] = `cd "$(mktemp -d)"; ` + fugitive + ` parent "$PWD/ready" & until [ -e ready ]; do sleep 0.05; done; echo up; sleep 60`
	return processtest.Build(t, module+"internal/process/processtest/worker"), scripts
}

// A worker that dies cannot clean up; the keeper does.
func TestTreeDiesWithTheWorker(t *testing.T) {
	overWalls(t, treeDiesWithTheWorker)
}

func treeDiesWithTheWorker(t *testing.T, r *process.Runner) {
	t.Helper()
	t.Parallel()
	program, scripts := workerPrograms(t)
	for name, script := range scripts {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			w := startWorker(t, r, program, script)
			w.signal(syscall.SIGKILL)
			gone(t, silence+time.Second)
		})
	}
}

// A worker that is frozen may have lost its claim before it thaws. Its children
// do not work on.
func TestTreeDiesWhenTheWorkerFreezes(t *testing.T) {
	overWalls(t, treeDiesWhenTheWorkerFreezes)
}

func treeDiesWhenTheWorkerFreezes(t *testing.T, r *process.Runner) {
	t.Helper()
	t.Parallel()
	program, scripts := workerPrograms(t)
	for name, script := range scripts {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			w := startWorker(t, r, program, script)
			w.signal(syscall.SIGSTOP)
			gone(t, silence+time.Second)
			w.signal(syscall.SIGCONT)
			if code := w.exit(); code != 3 {
				t.Errorf("the worker exits with %d: it does not know that it was frozen", code)
			}
		})
	}
}

// A frozen container freezes the keeper, too.
func TestKeeperFrozenWithTheWorker(t *testing.T) {
	overWalls(t, keeperFrozenWithTheWorker)
}

func keeperFrozenWithTheWorker(t *testing.T, r *process.Runner) {
	t.Helper()
	t.Parallel()
	program, scripts := workerPrograms(t)
	w := startWorker(t, r, program, scripts["all at once"])
	w.signal(syscall.SIGSTOP)
	var frozen []int
	for _, dir := range alive(t) {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(pid, syscall.SIGSTOP) == nil { // else it has ended in order
			frozen = append(frozen, pid)
		}
	}
	<-time.After(silence + 200*time.Millisecond)
	if len(alive(t)) == 0 {
		t.Fatal("a frozen keeper ended its tree")
	}
	w.signal(syscall.SIGCONT) // the worker first: its heartbeat comes too late
	<-time.After(silence / 5)
	for _, pid := range frozen {
		syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // one may have been about to end
	}
	gone(t, time.Second)
	if code := w.exit(); code != 3 {
		t.Errorf("the worker exits with %d", code)
	}
}

// A busy worker is not a frozen one: as long as it beats, a child may be silent
// for as long as it likes.
func TestHeartbeatKeepsTheTreeAlive(t *testing.T) {
	overWalls(t, heartbeatKeepsTheTreeAlive)
}

func heartbeatKeepsTheTreeAlive(t *testing.T, r *process.Runner) {
	t.Helper()
	r.Silence, r.Heartbeat = 500*time.Millisecond, 50*time.Millisecond
	c, _ := shell(t, "sleep 1.2")
	if _, err := r.Run(t.Context(), c); err != nil {
		t.Error(err)
	}
}

// Whatever else the end of a freeze brings, the child is not blamed for it.
func TestSilenceIsNotTheChildsFault(t *testing.T) {
	overWalls(t, silenceIsNotTheChildsFault)
}

func silenceIsNotTheChildsFault(t *testing.T, r *process.Runner) {
	t.Helper()
	t.Parallel()
	r.Silence, r.Heartbeat = 200*time.Millisecond, time.Hour
	for name, script := range stubborn() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c, _ := shell(t, script)
			_, err := r.Run(t.Context(), c)
			if _, blamed := errors.AsType[*process.ExitError](err); blamed || !errors.Is(err, process.ErrSilence) {
				t.Errorf("error = %v; want ErrSilence", err)
			}
			if left := alive(t); len(left) > 0 {
				t.Errorf("still alive: %v", left)
			}
		})
	}
	t.Run("and a context that ended meanwhile", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		c, _ := shell(t, "trap '' TERM; echo up; while :; do sleep 1; done")
		c.Grace = time.Minute
		c.Stdout = writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
		if _, err := r.Run(ctx, c); !errors.Is(err, process.ErrSilence) {
			t.Errorf("error = %v; want ErrSilence", err)
		}
	})
}

// A keeper that does not read must not stop the worker.
func TestFullControlPipeBlocksNothing(t *testing.T) {
	t.Parallel()
	r := processtest.Runner(t)
	r.Silence, r.Heartbeat = time.Minute, 2*time.Microsecond // fills the pipe in a moment
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c, _ := shell(t, `kill -STOP $PPID; sleep 60`)
	c.Stdout, c.Stderr, c.Grace = nil, nil, time.Millisecond
	began := time.Now()
	if _, err := r.Run(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("took %v", took)
	}
}

// gone waits until nothing of the test's tree is alive.
func gone(t *testing.T, within time.Duration) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := alive(t)
		if len(left) == 0 {
			return
		}
		if time.Since(began) > within {
			t.Fatalf("still alive after %s: %v", within, left)
		}
		<-tick.C
	}
}
