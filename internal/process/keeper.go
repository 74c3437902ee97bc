package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptors that the worker hands to the keeper.
const (
	controlFD = 3
	statusFD  = 4
)

// What the worker writes to the keeper. The end of the pipe means kill.
const (
	orderTerm = 'T' // TERM to the tree, and KILL after the grace
	orderLive = 'L' // the worker is not frozen
	orderKill = 'K' // never written: the pipe has ended
)

// KeeperMain is the keeper. Its one argument is a spec. It returns its exit code:
// 0, or 2 if it was called wrongly. With a word before it, the keeper is what it
// starts itself: its second stage, or a probe.
func KeeperMain(args []string, stderr io.Writer) int {
	var s spec
	if raised() {
		return raisedMain(args, stderr)
	}
	if len(args) == 1 && args[0] == usersArg {
		return refuse(stderr, errors.New("it is not setuid root here: it must be installed so, on a file system without nosuid, in a container that may gain privileges (no-new-privileges is off), and be called by a worker that is not root"))
	}
	if len(args) == 2 {
		switch args[0] {
		case enterArg:
			return enterMain(args[1])
		case probeArg:
			return probeMain(args[1])
		}
	}
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &s) != nil || s.Program == "" {
		fmt.Fprintln(stderr, "keeper: it is started by webordinary, not by hand") //nolint:errcheck // nobody else to tell
		return 2
	}
	if err := supervisor(); err != nil {
		fmt.Fprintln(stderr, "keeper:", err) //nolint:errcheck // nobody else to tell
		return 2
	}
	s.keeper = os.Args[:len(os.Args)-len(args)]
	runtime.LockOSThread() // whose end bubblewrap would take for ours
	newKeeper(os.NewFile(controlFD, "control"), s).run(s)
	return 0
}

// supervisor makes this process the parent of orphans, deaf to what is meant for
// the worker's group, and keeps from the child what else is open.
func supervisor() error {
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		return errors.New("the kernel has no subreapers")
	}
	// A signal to our group is the worker's business. To ignore it would be
	// inherited by the child; to catch it is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	// Whatever else was open in the worker's parents is not the child's.
	if err := unix.CloseRange(controlFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return errors.New("the kernel has no close_range")
	}
	return nil
}

func newKeeper(control *os.File, s spec) *keeper {
	return &keeper{
		control: control,
		status:  json.NewEncoder(os.NewFile(statusFD, "status")),
		grace:   s.Grace,
		silence: s.Silence,
		self:    os.Getpid(),
		pair:    s.pair,
		// The watchers do not wait: the first word is enough.
		exceeded: make(chan *LimitError, 1),
	}
}

type keeper struct {
	control *os.File
	status  *json.Encoder
	grace   time.Duration
	silence time.Duration
	self    int
	child   int
	spares  bool      // TERM is not for the child, only for what is below it
	pair    *pairUser // whose processes end with the child; nil if it has no user of its own
	// exceeded tells of the limits that the tree exceeds; over is the first.
	exceeded chan *LimitError
	over     *LimitError
}

func (k *keeper) run(s spec) {
	l, err := s.launch()
	if err != nil {
		k.tell(record{Wall: err.Error()})
		return
	}
	after, err := s.prepare()
	if err != nil {
		k.tell(record{Error: err.Error()})
		return
	}
	child, err := syscall.ForkExec(l.path, l.argv, l.attr) //nolint:gosec // to start it is what we are for
	l.close()
	after(child)
	if err != nil {
		k.tell(record{Error: fmt.Sprintf("%s: %v", filepath.Base(l.path), err)})
		return
	}
	k.child, k.spares = child, l.spares
	// The child is not to get hold of us. Not before: what is in /proc/self is not
	// ours to write from here on.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) //nolint:errcheck // it cannot fail
	k.watch(s)
	k.tell(record{Pid: child})
	closeInherited()

	orders, exited, gone := make(chan byte), make(chan syscall.WaitStatus, 1), make(chan struct{})
	go k.listen(orders)
	if l.feed != nil {
		go l.feed()
	}
	if l.outlet != nil {
		go relay(l.outlet, s.Access.Proxy)
	}
	go k.reap(exited, gone)
	ended, silent := k.supervise(orders, exited, gone)
	rec := ending(ended)
	rec.Silent = silent
	if l.told != nil {
		rec = l.ending(rec)
	}
	if k.over != nil && rec.Signal != 0 {
		rec.Limit = k.over
	}
	k.tell(rec)
	if k.pair != nil {
		k.mend(k.pair)
	}
}

// mend ends what is left of the pair's processes, and lets the worker have what
// the child has closed. The worker waits for it.
func (k *keeper) mend(p *pairUser) {
	if err := errors.Join(p.endAll(), p.settle(false)); err != nil {
		k.tell(record{Note: err.Error()})
	}
}

// ending is the record of how a process ended.
func ending(ws syscall.WaitStatus) record {
	if ws.Signaled() {
		return record{Ended: true, Signal: int(ws.Signal())}
	}
	return record{Ended: true, Exit: ws.ExitStatus()}
}

func (k *keeper) tell(r record) {
	if err := k.status.Encode(r); err != nil {
		return // the worker is gone
	}
}

// closeInherited lets go of the child's streams: they shall end with the child.
func closeInherited() {
	for fd := range 3 {
		syscall.Close(fd) //nolint:errcheck // it may be closed
	}
}

// listen passes the worker's orders on, and that the pipe has ended.
func (k *keeper) listen(orders chan<- byte) {
	b := make([]byte, 1)
	for {
		if n, err := k.control.Read(b); n == 0 || err != nil {
			orders <- orderKill
			return
		}
		orders <- b[0]
	}
}

// reap collects the dead. As a subreaper we have no child left only when no
// descendant is left.
func (k *keeper) reap(exited chan<- syscall.WaitStatus, gone chan<- struct{}) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			close(gone)
			return
		case pid == k.child:
			exited <- ws
		}
	}
}

// supervise returns how the child ended, when nothing of the tree is left, and
// whether it was killed because the worker was silent. When the child ends, by
// itself or by TERM, what it left is killed at once.
func (k *keeper) supervise(orders <-chan byte, exited <-chan syscall.WaitStatus, gone <-chan struct{}) (ended syscall.WaitStatus, silent bool) {
	var (
		over    bool // time to kill, again and again
		expired <-chan time.Time
	)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	quiet := time.NewTimer(k.silence)
	defer quiet.Stop()
	heard := bootTime()
	for {
		select {
		case order := <-orders:
			// If we were frozen with the worker, the heartbeat may come
			// before the timer has fired.
			late := bootTime()-heard > k.silence
			silent, over = silent || late && !over, over || late
			heard = bootTime()
			quiet.Reset(k.silence)
			if order == orderTerm && expired == nil {
				k.signal(syscall.SIGTERM)
				expired = time.After(k.grace)
			}
			over = over || order == orderKill
		case <-quiet.C:
			silent = silent || !over // else the silence ended nothing
			over = true
		case <-expired:
			over = true
		case ended = <-exited:
			over = true
			// Mostly it leaves nothing, and nobody need be looked for.
			select {
			case <-gone:
				return ended, silent && ended.Signaled()
			case <-time.After(time.Millisecond):
			}
		case <-gone:
			select { // the reaper may have told both at once
			case ended = <-exited:
			default:
			}
			return ended, silent && ended.Signaled()
		case k.over = <-k.exceeded:
			over = true
		case <-again.C:
		}
		if over {
			// Stopped first, so that none forks while the list is read.
			k.signal(syscall.SIGSTOP)
			k.signal(syscall.SIGKILL)
			if k.pair != nil {
				k.pair.end() //nolint:errcheck // it is tried again, and what is left is told at the end
			}
		}
	}
}

// bootTime is a clock that goes on while the machine is suspended.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // every Linux has it; if not, the timer is left
	}
	return time.Duration(ts.Nano())
}

// signal sends a signal to every descendant.
func (k *keeper) signal(sig syscall.Signal) {
	for _, pid := range descendants(k.self) {
		if pid == k.child && k.spares && sig == syscall.SIGTERM {
			continue
		}
		syscall.Kill(pid, sig) //nolint:errcheck // it may be gone
	}
}

// descendants lists the process ids below one, as far as they stand still.
func descendants(root int) []int {
	children := map[int][]int{}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

// parentOf reads /proc/pid/stat: "pid (name) state ppid …", where the name may
// hold anything.
func parentOf(pid int) (int, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	s := string(stat)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, err == nil
}
