package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a tree can have too much of: LimitError.What.
const (
	LimitMemory    = "memory"     // in bytes
	LimitProcesses = "processes"  // a count
	LimitDisk      = "disk"       // in bytes, of all directories that may be written
	LimitFiles     = "files"      // a count, in the same
	LimitFreeSpace = "free space" // in bytes, left on a file system
)

// LimitError says that a tree was killed because it used too much.
type LimitError struct {
	What  string // one of the constants
	Limit int64
}

// Error implements error, as a sentence about whatever was run.
func (e *LimitError) Error() string {
	switch e.What {
	case LimitMemory:
		return "it used more than " + size(e.Limit) + " of memory"
	case LimitProcesses:
		return fmt.Sprintf("it had more than %d processes", e.Limit)
	case LimitDisk:
		return "its files take more than " + size(e.Limit)
	case LimitFiles:
		return fmt.Sprintf("it has more than %d files", e.Limit)
	case LimitFreeSpace:
		return "less than " + size(e.Limit) + " of the disk was left"
	}
	return "it used too much: " + e.What
}

// size writes bytes for people.
func size(n int64) string {
	if n >= 1<<30 {
		return strings.TrimSuffix(strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64), ".0") + " GB"
	}
	return strconv.FormatInt(n>>20, 10) + " MB"
}

// Limits bound a tree behind the wall. Zero fields have defaults.
type Limits struct {
	// Memory is what all processes of the tree have of their own, in bytes.
	// Zero means three quarters of what the container has, and at least 512 MB
	// are left to the worker; 8 GB at most.
	Memory int64 `json:"memory,omitempty"`
	// Processes of the tree; zero means 512.
	Processes int `json:"processes,omitempty"`
	// Disk is what the directories of Access.Write take, in bytes; zero means
	// 8 GB.
	Disk int64 `json:"disk,omitempty"`
	// Files in these directories; zero means 500,000.
	Files int64 `json:"files,omitempty"`
	// FileSize of one file, in bytes; zero means 2 GB. Who writes more gets an
	// error, or a signal.
	FileSize int64 `json:"fileSize,omitempty"`
}

// orDefaults fills in what is zero.
func (l Limits) orDefaults() Limits {
	if l.Memory == 0 {
		l.Memory = memoryLimit(containerMemory("/"))
	}
	l.Processes = max(l.Processes, 0)
	for _, f := range []struct {
		field *int64
		value int64
	}{{&l.Disk, 8 << 30}, {&l.Files, 500_000}, {&l.FileSize, 2 << 30}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.Processes == 0 {
		l.Processes = 512
	}
	return l
}

// memoryLimit is what a tree may have of all memory.
func memoryLimit(total int64) int64 {
	const (
		worker = 512 << 20
		least  = 256 << 20
		most   = 8 << 30
	)
	return max(least, min(total/4*3, total-worker, most))
}

// containerMemory is the memory of the machine, or what the container may have of
// it. root is "/".
func containerMemory(root string) int64 {
	total := int64(4 << 30)                                                        // if nobody knows
	if info, err := os.ReadFile(filepath.Join(root, "proc/meminfo")); err == nil { //nolint:gosec // the system's own
		if kb, ok := field(string(info), "MemTotal:"); ok {
			total = kb << 10
		}
	}
	files := []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}
	if own, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")); err == nil { //nolint:gosec // the system's own
		for line := range strings.Lines(string(own)) { // "0::/path", where the container sees more than its own
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				for ; path != "/" && path != "."; path = filepath.Dir(path) {
					files = append(files, filepath.Join("sys/fs/cgroup", path, "memory.max"))
				}
			}
		}
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, name)) //nolint:gosec // the system's own
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			total = min(total, n)
		}
	}
	return total
}

// field is the number behind a name in a file of /proc.
func field(text, name string) (int64, bool) {
	_, rest, ok := strings.Cut("\n"+text, "\n"+name)
	if !ok {
		return 0, false
	}
	words := strings.Fields(rest[:min(len(rest), 40)])
	if len(words) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(words[0], 10, 64)
	return n, err == nil
}

const (
	childOOM         = 600       // of 1000: the kernel takes children before the worker
	childDescriptors = 16384     // of each process behind the wall
	cpuGrace         = 5         // seconds of a processor, between XCPU and KILL
	spareTasks       = 4096      // processes and threads, beyond what the user has already
	keeperMemory     = 512 << 20 // what the keeper maps of its own, and more: with less, Go ends it
)

// prepare sets what the child inherits, and returns what the keeper takes back from
// itself once it is started: it must not be the first that the kernel kills, nor
// lack threads.
func (s spec) prepare() (after func(child int), err error) {
	hard := map[int]uint64{unix.RLIMIT_CORE: 0}
	soft := map[int]uint64{}
	if s.Access != nil {
		hard[unix.RLIMIT_FSIZE] = uint64(s.Limits.FileSize) //nolint:gosec // it is positive
		hard[unix.RLIMIT_NOFILE] = childDescriptors
		if uid := os.Getuid(); uid != 0 { // root is not held by it
			soft[unix.RLIMIT_NPROC] = uint64(tasksOf(uid) + spareTasks) //nolint:gosec // it is positive
		}
	}
	if s.MemoryLimit > 0 {
		soft[unix.RLIMIT_DATA] = uint64(s.MemoryLimit)
	}
	if s.CPULimit > 0 {
		soft[unix.RLIMIT_CPU] = uint64(s.CPULimit.Seconds())
	}
	for what, n := range hard {
		if err := lower(what, n, true); err != nil {
			return nil, err
		}
	}
	before := map[int]syscall.Rlimit{}
	for what, n := range soft {
		var was syscall.Rlimit
		if what == unix.RLIMIT_DATA {
			n = max(n, keeperMemory) // the child gets less as soon as it is there
		}
		if err := errors.Join(syscall.Getrlimit(what, &was), lower(what, n, false)); err != nil {
			return nil, err
		}
		before[what] = was
	}
	score := oomScore(childOOM)
	return func(child int) {
		score()
		for what, was := range before {
			syscall.Setrlimit(what, &was) //nolint:errcheck // it is our own limit, as it was
			// The child cannot raise it again.
			n := min(soft[what], was.Max)
			most := n
			if what == unix.RLIMIT_CPU { // else it is killed, and nobody knows for what
				most = min(n+cpuGrace, was.Max)
			}
			unix.Prlimit(child, what, &unix.Rlimit{Cur: n, Max: most}, nil) //nolint:errcheck // it may be gone, or another user's
		}
	}, nil
}

// lower sets a limit of ours, unless it is lower already.
func lower(what int, n uint64, hard bool) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(what, &limit); err != nil {
		return fmt.Errorf("read limit: %w", err)
	}
	limit.Cur = min(limit.Cur, n)
	if what == unix.RLIMIT_NOFILE { // Go has raised ours, and takes that back for children
		limit.Cur = min(limit.Max, n)
	}
	if hard {
		limit.Max = min(limit.Max, n)
	}
	if err := syscall.Setrlimit(what, &limit); err != nil {
		return fmt.Errorf("set limit: %w", err)
	}
	return nil
}

// oomScore raises our score, which children inherit, and returns what takes it back.
func oomScore(score int) func() {
	const file = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(file)
	if err != nil {
		return func() {}
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(was))); err != nil || n >= score {
		return func() {}
	}
	if os.WriteFile(file, []byte(strconv.Itoa(score)), 0) != nil {
		return func() {}
	}
	return func() { os.WriteFile(file, was, 0) } //nolint:errcheck,gosec // then the kernel may take us first, and the worker sees it
}

// tasksOf counts the processes and threads of a user.
func tasksOf(uid int) int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		if owner, ok := field(string(status), "Uid:"); ok && owner == int64(uid) {
			threads, _ := field(string(status), "Threads:")
			n += int(threads)
		}
	}
	return n
}
