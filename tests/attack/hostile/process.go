package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var errNotSeen = errors.New("no such process to be seen")

// processAttacks are those on other processes.
func processAttacks() []attack {
	return []attack{
		{"environment", func(plan) (string, error) {
			return secretIn([]byte(strings.Join(os.Environ(), "\n")))
		}},
		{"worker_environ", onProcess(isWorker, readSecret("environ"))},
		{"worker_memory", onProcess(isWorker, readMemory)},
		{"worker_maps", onProcess(isWorker, readSome("maps"))},
		{"worker_root", onProcess(isWorker, func(pid int) (string, error) {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/root/etc/passwd", pid))
			return "its root directory", err
		})},
		{"worker_signal", onProcess(isWorker, signal)},
		{"worker_ptrace", onProcess(isWorker, seize)},
		{"worker_prlimit", onProcess(isWorker, prlimit)},
		{"health_environ", onProcess(has("health"), readSecret("environ"))},
		{"health_memory", onProcess(has("health"), readMemory)},
		{"health_ptrace", onProcess(has("health"), seize)},
		{"other_environ", onProcess(isDecoy, readSecret("environ"))},
		{"other_memory", onProcess(isDecoy, readMemory)},
		{"other_ptrace", onProcess(isDecoy, seize)},
		{"arguments", arguments},
		{"git_token", onProcess(isGit, gitToken)},
		{"worker_affinity", onProcess(isWorker, affinity)},
		{"keeper_stop", onProcess(isOwnKeeper, stop)},
		{"keeper_ptrace", onProcess(isOwnKeeper, seize)},
		{"keeper_memory", onProcess(isOwnKeeper, openMemory)},
		{"keeper_control", onProcess(isOwnKeeper, openPipe)},
		{"victim_environ", onProcess(isVictims, victimToken)},
		{"victim_memory", onProcess(isVictims, openMemory)},
		{"victim_signal", onProcess(isVictims, signal)},
		{"victim_ptrace", onProcess(isVictims, seize)},
		{"shared_memory", sharedMemory},
	}
}

// onProcess tries something with each process of a kind until it succeeds once.
func onProcess(kind func(p plan, pid int) bool, try func(pid int) (string, error)) func(plan) (string, error) {
	return func(p plan) (string, error) {
		last := errNotSeen
		for _, pid := range pids() {
			if !kind(p, pid) {
				continue
			}
			detail, err := try(pid)
			if err == nil {
				return detail, nil
			}
			last = err
		}
		return "", last
	}
}

func pids() []int {
	dirs, err := os.ReadDir("/proc")
	if err != nil { // it may be hidden, and the low ones are worth a try
		return []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	}
	var all []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil && pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
}

func procFile(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

func arguments1(pid int) []string {
	b, err := os.ReadFile(procFile(pid, "cmdline"))
	if err != nil {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
}

func has(word string) func(plan, int) bool {
	return func(_ plan, pid int) bool {
		args := arguments1(pid)
		return len(args) > 1 && strings.HasSuffix(args[0], "webordinary") && args[1] == word
	}
}

// isWorker takes process 1 for the worker, as it is in the image, unless it is
// seen to be something else.
func isWorker(p plan, pid int) bool {
	return pid == 1 && (arguments1(1) == nil || has("demo")(p, 1))
}

// isDecoy knows the process of the worker's user that is nothing but that.
func isDecoy(_ plan, pid int) bool {
	args := arguments1(pid)
	return len(args) > 1 && args[1] == "decoy"
}

func isGit(_ plan, pid int) bool {
	args := arguments1(pid)
	return len(args) > 0 && strings.Contains(filepath.Base(args[0]), "git")
}

// isOwnKeeper is true of the nearest ancestor that is a keeper.
func isOwnKeeper(_ plan, pid int) bool {
	for at := os.Getppid(); at > 0; at = parent(at) {
		args := arguments1(at)
		if len(args) > 1 && (args[1] == "keeper" || filepath.Base(args[0]) == "keeper") {
			return at == pid
		}
	}
	return false
}

func parent(pid int) int {
	stat, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return n
}

// isVictims is true of the shell that the other job runs.
func isVictims(p plan, pid int) bool {
	return strings.Contains(strings.Join(arguments1(pid), " "), "victim-waits-"+p.Mark)
}

func secretIn(b []byte) (string, error) {
	if found := canary.Find(b); found != nil {
		return string(found), nil
	}
	return "", errors.New("no secret in it")
}

func readSecret(name string) func(int) (string, error) {
	return func(pid int) (string, error) {
		b, err := os.ReadFile(procFile(pid, name))
		if err != nil {
			return "", err
		}
		return secretIn(b)
	}
}

func readSome(name string) func(int) (string, error) {
	return func(pid int) (string, error) {
		b, err := os.ReadFile(procFile(pid, name))
		if err == nil && len(b) == 0 {
			err = errors.New("it is empty")
		}
		return fmt.Sprintf("%d bytes", len(b)), err
	}
}

func openMemory(pid int) (string, error) {
	f, err := os.Open(procFile(pid, "mem"))
	if err == nil {
		err = f.Close()
	}
	return "its memory", err
}

// openPipe writes to a pipe that a process reads, as from the worker.
func openPipe(pid int) (string, error) {
	fds, err := os.ReadDir(procFile(pid, "fd"))
	if err != nil {
		return "", err
	}
	last := errors.New("it has no pipe")
	for _, fd := range fds {
		path := procFile(pid, "fd/"+fd.Name())
		if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "pipe:") {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			return "the worker's orders", f.Close()
		}
		last = err
	}
	return "", last
}

// readMemory looks for a secret where the environment is, on the stack.
func readMemory(pid int) (string, error) {
	maps, err := os.ReadFile(procFile(pid, "maps"))
	if err != nil {
		return "", err
	}
	mem, err := os.Open(procFile(pid, "mem"))
	if err != nil {
		return "", err
	}
	defer mem.Close() //nolint:errcheck // only read from
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil || !strings.Contains(line, "[stack]") {
			continue
		}
		b := make([]byte, to-from)
		if _, err := mem.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return secretIn(b)
	}
	return "", errors.New("it has no stack")
}

// signal sends what every process ignores.
func signal(pid int) (string, error) {
	return fmt.Sprintf("signalled %d", pid), unix.Kill(pid, unix.SIGURG)
}

// seize is let go of when the thread ends.
func seize(pid int) (string, error) {
	const seize = 0x4206
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0)
		if errno != 0 {
			failed <- errno
			return
		}
		failed <- nil
	}()
	return fmt.Sprintf("traced %d", pid), <-failed
}

// prlimit sets a limit of another process to what it is.
func prlimit(pid int) (string, error) {
	var now unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &now); err != nil {
		return "", err
	}
	return fmt.Sprintf("could set that of %d", pid), unix.Prlimit(pid, unix.RLIMIT_NOFILE, &now, nil)
}

// affinity says on which processors a process may run: where it runs already.
func affinity(pid int) (string, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return "", err
	}
	return "could be sent to one processor", unix.SchedSetaffinity(pid, &set)
}

// stop freezes a process for a moment.
func stop(pid int) (string, error) {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return "", err
	}
	defer unix.Kill(pid, unix.SIGCONT) //nolint:errcheck // it was stopped
	for range 50 {
		stat, err := os.ReadFile(procFile(pid, "stat"))
		if err == nil && strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " T") {
			return "it stood still", nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return "", errors.New("it does not stop")
}

// arguments looks for a secret that somebody gave a program as an argument.
func arguments(plan) (string, error) {
	for _, pid := range pids() {
		if found := canary.FindString(strings.Join(arguments1(pid), " ")); found != "" {
			return found, nil
		}
	}
	return "", errors.New("no secret in any arguments")
}

func gitToken(pid int) (string, error) {
	b, err := os.ReadFile(procFile(pid, "environ"))
	if err == nil && !bytes.Contains(b, []byte("Authorization: Basic ")) {
		err = errors.New("no token in it")
	}
	return "the git token", err
}

func victimToken(pid int) (string, error) {
	b, err := os.ReadFile(procFile(pid, "environ"))
	if err != nil {
		return "", err
	}
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		if token, ok := bytes.CutPrefix(kv, []byte("ANTHROPIC_API_KEY=")); ok {
			return string(token), nil
		}
	}
	return "", errors.New("no token in it")
}

// sharedMemory reads every segment of System V that it may.
func sharedMemory(plan) (string, error) {
	last := errors.New("there is no segment")
	for id := range 64 {
		b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) {
				last = err
			}
			continue
		}
		found, err := secretIn(b)
		if derr := unix.SysvShmDetach(b); derr != nil {
			return "", derr
		}
		if err == nil {
			return found, nil
		}
		last = err
	}
	return "", last
}
