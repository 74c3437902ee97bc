package process

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchTree = 250 * time.Millisecond // memory and processes
	watchDisk = time.Second            // what is left
	walkEvery = 5 * time.Second        // what is used, by looking at each file
	walkShare = 20                     // a walk takes one part of so many of the time
	growth    = 8                      // one part of so many of a limit, since the last walk, makes it come sooner
)

// watch begins to tell what the tree exceeds, if it is behind the wall. It ends with
// the keeper.
func (k *keeper) watch(s spec) {
	if s.Access == nil {
		return
	}
	disk := &diskWatch{dirs: s.Access.Write, limits: s.Limits, now: time.Now}
	go k.repeat(watchTree, func() *LimitError { return k.treeOver(s.Limits) })
	go k.repeat(watchDisk, disk.over)
}

// repeat looks again and again, until something is exceeded.
func (k *keeper) repeat(every time.Duration, look func() *LimitError) {
	for range time.Tick(every) {
		if e := look(); e != nil {
			select {
			case k.exceeded <- e:
			default: // the other one was first
			}
			return
		}
	}
}

// treeOver says what the processes have too much of.
func (k *keeper) treeOver(l Limits) *LimitError {
	tree := descendants(k.self)
	if len(tree) > l.Processes {
		return &LimitError{LimitProcesses, int64(l.Processes)}
	}
	if sum(tree, ownMemory) > l.Memory && sum(tree, shareOfMemory) > l.Memory {
		return &LimitError{LimitMemory, l.Memory}
	}
	return nil
}

func sum(tree []int, of func(pid int) int64) int64 {
	var all int64
	for _, pid := range tree {
		all += of(pid)
	}
	return all
}

// ownMemory is what a process has in memory that is no file's. What it shares with
// those that it was forked from counts for each.
func ownMemory(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	anon, _ := field(string(status), "RssAnon:")
	shared, _ := field(string(status), "RssShmem:")
	swap, _ := field(string(status), "VmSwap:")
	return (anon + shared + swap) << 10
}

// shareOfMemory is the same, where what is shared is divided by those who do. It is
// dear to find out; where it may not be, it is what ownMemory says.
func shareOfMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return ownMemory(pid)
	}
	anon, ok := field(string(text), "Pss_Anon:")
	if !ok {
		return ownMemory(pid)
	}
	shared, _ := field(string(text), "Pss_Shmem:")
	swap, _ := field(string(text), "SwapPss:")
	return (anon + shared + swap) << 10
}

// diskWatch looks at the directories that a child may write to: at their file
// systems each time, and at each file now and then.
type diskWatch struct {
	dirs   []string
	limits Limits
	now    func() time.Time

	first  map[string]unix.Statfs_t // when it began
	last   map[string]unix.Statfs_t // at the last walk
	walked time.Time                // when the last walk ended
	took   time.Duration            // how long it was
}

// over says what the directories have too much of.
func (d *diskWatch) over() *LimitError {
	if d.first == nil {
		d.first, d.last, d.walked = map[string]unix.Statfs_t{}, map[string]unix.Statfs_t{}, d.now()
	}
	grown := false
	for _, dir := range d.dirs {
		var is unix.Statfs_t
		if err := unix.Statfs(dir, &is); err != nil {
			continue
		}
		if _, ok := d.first[dir]; !ok {
			d.first[dir], d.last[dir] = is, is
		}
		if e := full(d.first[dir], is); e != nil {
			return e
		}
		grown = grown || lost(d.last[dir], is) > d.limits.Disk/growth ||
			int64(d.last[dir].Ffree-is.Ffree) > d.limits.Files/growth //nolint:gosec // a difference has a sign
	}
	pause := d.now().Sub(d.walked)
	if pause < walkShare*d.took || !grown && pause < walkEvery {
		return nil
	}
	began := d.now()
	e := d.walk()
	d.walked = d.now()
	d.took = d.walked.Sub(began)
	for _, dir := range d.dirs {
		var is unix.Statfs_t
		if unix.Statfs(dir, &is) == nil {
			d.last[dir] = is
		}
	}
	return e
}

// lost is how many bytes fewer are free.
func lost(before, now unix.Statfs_t) int64 {
	return int64(before.Bavail-now.Bavail) * now.Bsize //nolint:gosec // a difference has a sign
}

// full says that a file system has almost nothing left, and had more before: a child
// that began on a full one will see by itself.
func full(before, now unix.Statfs_t) *LimitError {
	low := min(int64(now.Blocks)*now.Bsize/20, 512<<20)                  //nolint:gosec // no file system is as large
	if int64(now.Bavail)*now.Bsize < low && lost(before, now) > 16<<20 { //nolint:gosec // as above
		return &LimitError{LimitFreeSpace, low}
	}
	if now.Files > 0 && now.Ffree < min(now.Files/20, 10_000) && before.Ffree > now.Ffree+1000 {
		return &LimitError{LimitFiles, int64(before.Ffree - now.Ffree)} //nolint:gosec // as above
	}
	return nil
}

// walk looks at each file. What cannot be read is not counted: the file system
// shows it.
func (d *diskWatch) walk() *LimitError {
	c := count{queue: slices.Clone(d.dirs)}
	for len(c.queue) > 0 {
		dir := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // it is only listed
		if err != nil {
			continue
		}
		for more := true; more; {
			entries, err := f.ReadDir(1000)
			c.add(dir, entries)
			if more = err == nil; c.bytes > d.limits.Disk || c.files > d.limits.Files {
				more, c.queue = false, nil
			}
		}
		f.Close() //nolint:errcheck // it was only read
	}
	switch {
	case c.bytes > d.limits.Disk:
		return &LimitError{LimitDisk, d.limits.Disk}
	case c.files > d.limits.Files:
		return &LimitError{LimitFiles, d.limits.Files}
	}
	return nil
}

// count is what a walk has seen, and where it has to go.
type count struct {
	bytes, files int64
	queue        []string
}

func (c *count) add(dir string, entries []os.DirEntry) {
	for _, e := range entries {
		c.files++
		if e.IsDir() {
			c.queue = append(c.queue, filepath.Join(dir, e.Name()))
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			c.bytes += st.Blocks * 512
		}
	}
}
