// Package process runs child programs: with an environment that is given, never
// inherited, and in such a way that nothing of a child is left when Run returns.
//
// Between the worker and each child stands the keeper, a small program of its
// own (KeeperMain): it is the child's subreaper, so whatever a descendant does
// to hide (a session of its own, a double fork, a closed descriptor), it stays
// below the keeper and is killed with the rest. When the worker dies, the keeper
// sees its control pipe close and kills the tree at once.
//
// Not covered in this form: a worker that is frozen rather than dead, a
// descendant that changes its user, and a keeper that is itself killed by
// somebody else (then only the child's process group is killed).
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNotFound is returned when the program is not there or cannot be executed.
var ErrNotFound = errors.New("program not found")

// defaultGrace is the time a tree has between TERM and KILL.
const defaultGrace = 2 * time.Second

// Command is one child to run.
type Command struct {
	Path   string   // a path, or a name looked up in the PATH of Env
	Args   []string // without the program's name
	Dir    string
	Env    []string  // all of it: NAME=value
	Stdin  io.Reader // nil means empty
	Stdout io.Writer // nil means discarded
	Stderr io.Writer // nil means discarded
	// Grace is the time between TERM and KILL when the context ends; zero
	// means 2 s.
	Grace time.Duration
}

// Result is how a child ended.
type Result struct {
	ExitCode int            // -1 if it was ended by a signal
	Signal   syscall.Signal // 0 if it exited
	Duration time.Duration
}

// ExitError says that a child did not exit with 0.
type ExitError struct{ Result Result }

// Error implements error.
func (e *ExitError) Error() string {
	if e.Result.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%s)", e.Result.Signal, e.Result.Signal)
	}
	return fmt.Sprintf("exited with code %d", e.Result.ExitCode)
}

// Runner runs children. It may be used by several goroutines.
type Runner struct {
	// Keeper is the program and the first arguments that start the keeper.
	Keeper []string
	Log    *slog.Logger // nil means none
}

// Run runs a child to its end. When ctx ends, the whole tree gets TERM, and KILL
// after the grace; then the error is the cause of ctx. Else it is nil, an
// *ExitError, or one that wraps ErrNotFound. Nothing of the tree is alive when
// Run returns.
func (r *Runner) Run(ctx context.Context, c Command) (Result, error) {
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	path, err := lookPath(c)
	if err != nil {
		return Result{}, err
	}
	k, err := r.start(path, c)
	if err != nil {
		return Result{}, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	began := time.Now()
	defer k.close()
	if !k.wait(ctx, c.grace()) && r.Log != nil {
		r.Log.WarnContext(ctx, "keeper had to be killed", slog.String("program", filepath.Base(path)))
	}
	result, err := k.result()
	result.Duration = time.Since(began)
	switch {
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case err != nil:
		return result, fmt.Errorf("run %s: %w", filepath.Base(path), err)
	case result.ExitCode != 0:
		return result, &ExitError{Result: result}
	}
	return result, nil
}

func (c Command) grace() time.Duration {
	if c.Grace == 0 {
		return defaultGrace
	}
	return c.Grace
}

// kept is a running keeper, seen from the worker.
type kept struct {
	cmd     *exec.Cmd
	control *os.File // a byte means TERM, its end means KILL
	status  *os.File // the keeper's record
	done    chan struct{}
}

func (r *Runner) start(path string, c Command) (*kept, error) {
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer controlR.Close() //nolint:errcheck // the keeper has its own
	statusR, statusW, err := os.Pipe()
	if err != nil {
		controlW.Close() //nolint:errcheck // the first error counts
		return nil, err
	}
	defer statusW.Close() //nolint:errcheck // the keeper has its own

	args := append(append([]string{}, r.Keeper[1:]...), strconv.FormatInt(c.grace().Milliseconds(), 10), path)
	cmd := exec.Command(r.Keeper[0], append(args, c.Args...)...) //nolint:gosec,noctx // the keeper ends it in order
	cmd.Dir = c.Dir
	cmd.Env = append([]string{}, c.Env...) // not nil: nil would inherit ours
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{controlR, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		controlW.Close() //nolint:errcheck // the first error counts
		statusR.Close()  //nolint:errcheck // the first error counts
		return nil, fmt.Errorf("keeper %s: %w", r.Keeper[0], err)
	}
	k := &kept{cmd: cmd, control: controlW, status: statusR, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		cmd.Wait() //nolint:errcheck // how it ended, the status says
	}()
	return k, nil
}

// wait returns when the keeper has ended; false if it had to be killed.
func (k *kept) wait(ctx context.Context, grace time.Duration) bool {
	select {
	case <-k.done:
		return true
	case <-ctx.Done():
	}
	k.control.Write([]byte{'T'}) //nolint:errcheck // if it is gone, done says so
	if k.within(grace + 3*time.Second) {
		return true
	}
	k.control.Close() //nolint:errcheck // its end is the message
	if k.within(3 * time.Second) {
		return true
	}
	k.cmd.Process.Kill() //nolint:errcheck // if it is gone, done says so
	<-k.done
	return false
}

func (k *kept) within(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-k.done:
		return true
	case <-timer.C:
		return false
	}
}

// record is what the keeper tells: the child's process id when it started, and
// how it ended.
type record struct {
	Pid    int    `json:"pid,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Exit   int    `json:"exit,omitempty"`
	Signal int    `json:"signal,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (k *kept) result() (Result, error) {
	dec := json.NewDecoder(k.status)
	pid := 0
	for {
		var rec record
		if err := dec.Decode(&rec); err != nil {
			if pid != 0 {
				syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // best effort: the keeper is gone
			}
			return Result{ExitCode: -1}, errors.New("the keeper ended before the child did")
		}
		switch {
		case rec.Error != "":
			return Result{ExitCode: -1}, fmt.Errorf("%w: %s", ErrNotFound, rec.Error)
		case rec.Ended && rec.Signal != 0:
			return Result{ExitCode: -1, Signal: syscall.Signal(rec.Signal)}, nil
		case rec.Ended:
			return Result{ExitCode: rec.Exit}, nil
		}
		pid = rec.Pid
	}
}

func (k *kept) close() {
	k.control.Close() //nolint:errcheck // nothing was written that matters
	k.status.Close()  //nolint:errcheck // it was read
}

// lookPath finds the program as the child would: in the PATH it is given.
func lookPath(c Command) (string, error) {
	if strings.ContainsRune(c.Path, '/') {
		return c.Path, executable(c.Path)
	}
	for _, kv := range c.Env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			if p := filepath.Join(dir, c.Path); filepath.IsAbs(dir) && executable(p) == nil {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %s is not in the child's PATH", ErrNotFound, c.Path)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%w: %s is not an executable file", ErrNotFound, path)
	}
	return nil
}
