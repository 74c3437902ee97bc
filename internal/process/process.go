// Package process runs child programs: with an environment that is given, never
// inherited, and in such a way that nothing of a child is left when Run returns.
//
// Between the worker and each child stands the keeper, a small program of its
// own (KeeperMain): it is the child's subreaper, so whatever a descendant does
// to hide (a session of its own, a double fork, a closed descriptor), it stays
// below the keeper and is killed with the rest. When the worker dies, the keeper
// sees its control pipe close and kills the tree at once. When the worker is
// frozen, the heartbeat in that pipe stops, and after a while of silence the
// keeper kills the tree, so that nothing works in the place of a worker that may
// have lost its claim meanwhile. Run then returns ErrSilence when it thaws.
//
// A keeper that was frozen together with its worker kills, too, when both thaw:
// what counts is how long nothing was heard, on a clock that does not stop.
//
// Not covered in this form: a descendant that changes its user, and a keeper
// that is itself killed or frozen by somebody else (if killed, only the child's
// process group is killed).
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
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNotFound is returned when the program is not there or cannot be executed.
var ErrNotFound = errors.New("program not found")

// ErrSilence is returned when the keeper killed the tree because it had not heard
// from the worker. The child is not to blame, and its work is not done.
var ErrSilence = errors.New("the worker was frozen, and its children were ended")

// ErrWall is returned when the wall around the child could not be built. Nothing
// of the child has run.
var ErrWall = errors.New("no wall around the child")

// errLost is returned when nobody knows how the child ended.
var errLost = errors.New("the keeper ended before the child did")

const (
	defaultGrace     = 2 * time.Second // between TERM and KILL
	defaultHeartbeat = time.Second
	defaultSilence   = 10 * time.Second
)

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
	// MemoryLimit bounds what each process of the child's allocates, in bytes;
	// zero means no bound. One below 512 MB holds a moment after the start.
	// Node.js and its like need Access and the limits of the Runner instead, as
	// they allocate what they never touch.
	MemoryLimit int64
	// CPULimit bounds what each process of the child's takes of a processor, in
	// whole seconds; zero means no bound. One that takes more gets XCPU, and soon
	// after KILL.
	CPULimit time.Duration
	// Access is what a child of another's making may touch. Nil means that the
	// child is the worker's own, such as git, and stands on its side of the wall.
	Access *Access
}

// Access is what a child behind the wall may touch, besides the programs and
// libraries of the system, which it may read.
type Access struct {
	// Pair is whose child it is, as the workspace names it. It makes the user.
	Pair string `json:"pair"`
	// Write are the directories that it may read and change, all absolute.
	Write []string `json:"write"`
	// Read are what else it may read and run, all absolute; a link is followed.
	Read []string `json:"read,omitempty"`
	// Proxy is the one address that it may connect to, as "127.0.0.1:port";
	// empty means none.
	Proxy string `json:"proxy,omitempty"`
}

// Egress is a way out for children: a proxy that lets through what they may reach.
type Egress struct {
	Address string   // where it listens, for Access.Proxy
	Env     []string // by which programs find it
	Close   func()   // ends it; nil if there is nothing to end
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

// Runner runs children. It may be used by several goroutines, and must not be copied.
type Runner struct {
	// Keeper is the program and the first arguments that start the keeper.
	Keeper []string
	// Setuid is the same for the keeper that is installed setuid, which WallUsers
	// needs.
	Setuid []string
	// Heartbeat is how often each keeper hears from us; zero means 1 s.
	Heartbeat time.Duration
	// Silence is when a keeper that hears nothing kills its tree; zero means
	// 10 s. It should be several heartbeats, and less than the time after
	// which somebody else may take our place.
	Silence time.Duration
	Wall    Wall         // around children with an Access; empty means WallOff
	Read    []string     // what they may read besides the system's programs: absolute paths
	Limits  Limits       // of each of them, with all that it starts
	Log     *slog.Logger // nil means none

	turns turns
}

// Run runs a child to its end. When ctx ends, the whole tree gets TERM, and KILL
// after the grace; then the error is the cause of ctx. Else it is nil, an
// *ExitError, or one that wraps a *LimitError, ErrNotFound or ErrWall. If we were frozen for longer than
// Silence it wraps ErrSilence, whatever ctx says: on thawing, timers fire that
// are nobody's fault. Nothing of the tree is alive when Run returns. Under WallUsers
// it waits until no other child of the pair runs.
func (r *Runner) Run(ctx context.Context, c Command) (Result, error) {
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	path, err := lookPath(c)
	if err != nil {
		return Result{}, err
	}
	end, err := r.alone(ctx, c.Access)
	if err != nil {
		return Result{}, err
	}
	defer end()
	k, err := r.start(path, c)
	if err != nil {
		return Result{}, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	began := time.Now()
	defer k.close()
	var beating sync.WaitGroup
	beating.Go(func() { k.beat(orDefault(r.Heartbeat, defaultHeartbeat)) })
	defer beating.Wait()
	if !k.wait(ctx, c.grace()) && r.Log != nil {
		r.Log.WarnContext(ctx, "keeper had to be killed", slog.String("program", filepath.Base(path)))
	}
	result, note, err := k.result()
	result.Duration = time.Since(began)
	if errors.Is(err, errLost) && c.Access != nil {
		err = errors.Join(err, r.mend(context.WithoutCancel(ctx), *c.Access, false))
	}
	if note != "" && r.Log != nil {
		r.Log.WarnContext(ctx, "what the child left is not in order", slog.String("reason", note))
	}
	switch {
	case ctx.Err() != nil && !errors.Is(err, ErrSilence):
		return result, context.Cause(ctx)
	case err != nil:
		return result, fmt.Errorf("run %s: %w", filepath.Base(path), err)
	case result.ExitCode != 0:
		return result, &ExitError{Result: result}
	}
	return result, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (c Command) grace() time.Duration { return orDefault(c.Grace, defaultGrace) }

// kept is a running keeper, seen from the worker.
type kept struct {
	cmd     *exec.Cmd
	control *os.File // see the orders; its end means KILL
	status  *os.File // the keeper's record
	done    chan struct{}
}

func (r *Runner) start(path string, c Command) (*kept, error) {
	s := spec{
		Grace: c.grace(), Silence: orDefault(r.Silence, defaultSilence), Program: path, Args: c.Args, Dir: c.Dir,
		Wall: r.Wall, Read: r.Read, Access: c.Access, MemoryLimit: c.MemoryLimit, CPULimit: c.CPULimit,
	}
	if c.Access != nil {
		s.Limits = r.Limits.orDefaults()
	}
	return r.startSpec(s, c)
}

func (r *Runner) startSpec(order spec, c Command) (*kept, error) {
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

	cmd, err := r.command(&order, c.Env)
	if err != nil {
		controlW.Close() //nolint:errcheck // the first error counts
		statusR.Close()  //nolint:errcheck // the first error counts
		return nil, err
	}
	cmd.Dir = c.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{controlR, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		controlW.Close() //nolint:errcheck // the first error counts
		statusR.Close()  //nolint:errcheck // the first error counts
		return nil, fmt.Errorf("keeper %s: %w", cmd.Path, err)
	}
	k := &kept{cmd: cmd, control: controlW, status: statusR, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		cmd.Wait() //nolint:errcheck // how it ended, the status says
	}()
	if order.Env != nil {
		controlW.SetWriteDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // a pipe has deadlines
		writeSpec(controlW, order)                                 //nolint:errcheck // what the keeper did not read, it says itself
		controlW.SetWriteDeadline(time.Time{})                     //nolint:errcheck // orders do not wait
	}
	return k, nil
}

// command is how the keeper is called. The setuid one is told the rest, with the
// child's environment, by its control pipe: arguments are seen by everyone on the
// machine.
func (r *Runner) command(order *spec, env []string) (*exec.Cmd, error) {
	if r.Wall == WallUsers && order.Access != nil {
		if len(r.Setuid) == 0 {
			return nil, fmt.Errorf("%w: the wall of users needs the setuid keeper", ErrWall)
		}
		order.Env = append([]string{}, env...)
		cmd := exec.Command(r.Setuid[0], append(slices.Clone(r.Setuid[1:]), usersArg)...) //nolint:gosec,noctx // the keeper ends it in order
		cmd.Env = []string{}
		return cmd, nil
	}
	text, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(r.Keeper[0], append(slices.Clone(r.Keeper[1:]), string(text))...) //nolint:gosec,noctx // the keeper ends it in order
	cmd.Env = append([]string{}, env...)                                                  // not nil: nil would inherit ours
	return cmd, nil
}

// spec tells the keeper what to run and how.
type spec struct {
	Grace   time.Duration `json:"grace"`
	Silence time.Duration `json:"silence"`
	Program string        `json:"program"`
	Args    []string      `json:"args"` // without the program's name
	Dir     string        `json:"dir,omitempty"`
	Wall    Wall          `json:"wall,omitempty"`
	Read    []string      `json:"read,omitempty"`
	Access  *Access       `json:"access,omitempty"`
	Limits  Limits        `json:"limits,omitzero"` // if there is an Access
	// MemoryLimit and CPULimit are the Command's.
	MemoryLimit int64         `json:"memoryLimit,omitempty"`
	CPULimit    time.Duration `json:"cpuLimit,omitempty"`
	PWD         bool          `json:"pwd,omitempty"` // the environment has it; else bwrap's is not the child's

	// Env is the program's, for a keeper that does not trust its own.
	Env []string `json:"env,omitempty"`
	// Mend asks for no program: only for order, and for it in every node_modules
	// if Deep says so, too.
	Mend bool `json:"mend,omitempty"`
	Deep bool `json:"deep,omitempty"`

	pair   *pairUser // whose user the child is, under WallUsers
	keeper []string  // how the keeper itself was called, without the spec
}

// beat lets the keeper know that we are not frozen, until it has ended.
func (k *kept) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		k.order(orderLive)
		select {
		case <-k.done:
			return
		case <-tick.C:
		}
	}
}

// order writes to the keeper. It never waits: a keeper that does not read is
// frozen, and one that is gone says so by done.
func (k *kept) order(o byte) {
	raw, err := k.control.SyscallConn()
	if err != nil {
		return
	}
	raw.Write(func(fd uintptr) bool { //nolint:errcheck // it is closed only when the keeper shall kill
		syscall.Write(int(fd), []byte{o}) //nolint:errcheck // see above
		return true
	})
}

// wait returns when the keeper has ended; false if it had to be killed.
func (k *kept) wait(ctx context.Context, grace time.Duration) bool {
	select {
	case <-k.done:
		return true
	case <-ctx.Done():
	}
	k.order(orderTerm)
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
	Silent bool   `json:"silent,omitempty"` // it was ended because the worker was silent
	Error  string `json:"error,omitempty"`
	Wall   string `json:"wall,omitempty"` // why there is no wall
	// Limit is what it was ended for.
	Limit *LimitError `json:"limit,omitempty"`
	Note  string      `json:"note,omitempty"` // what went wrong after the end
}

// result is how the child ended, and a note of what went wrong afterwards.
func (k *kept) result() (result Result, note string, err error) {
	dec := json.NewDecoder(k.status)
	pid, ended := 0, false
	for {
		var rec record
		switch err := dec.Decode(&rec); {
		case err != nil && ended:
			return result, note, nil
		case err != nil:
			if pid != 0 {
				syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // best effort: the keeper is gone
			}
			return Result{ExitCode: -1}, note, errLost
		}
		switch {
		case rec.Note != "":
			note = rec.Note
		case rec.Wall != "":
			return Result{ExitCode: -1}, "", fmt.Errorf("%w: %s", ErrWall, rec.Wall)
		case rec.Error != "":
			return Result{ExitCode: -1}, "", fmt.Errorf("%w: %s", ErrNotFound, rec.Error)
		case rec.Ended && rec.Silent:
			return Result{ExitCode: -1, Signal: syscall.SIGKILL}, "", ErrSilence
		case rec.Ended && rec.Limit != nil:
			return Result{ExitCode: -1, Signal: syscall.SIGKILL}, "", rec.Limit
		case rec.Ended && rec.Signal != 0:
			result, ended = Result{ExitCode: -1, Signal: syscall.Signal(rec.Signal)}, true
		case rec.Ended:
			result, ended = Result{ExitCode: rec.Exit}, true
		default:
			pid = rec.Pid
		}
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
