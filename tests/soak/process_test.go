package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/platform"
)

// figures are what can be seen of a worker from outside.
type figures struct {
	resident    int64 // bytes
	threads     int64
	descriptors int64
	sockets     int64 // of the descriptors
	// goroutines are counted by the func that began them. Those of connections, two
	// each, are left out: their number is bounded by the descriptors.
	goroutines map[string]int
}

// most is the greater of each.
func (f figures) most(o figures) figures {
	all := figures{max(f.resident, o.resident), max(f.threads, o.threads), max(f.descriptors, o.descriptors), max(f.sockets, o.sockets), maps.Clone(o.goroutines)}
	for by, n := range f.goroutines {
		all.goroutines[by] = max(n, all.goroutines[by])
	}
	return all
}

// files are the descriptors that are no sockets.
func (f figures) files() int64 { return f.descriptors - f.sockets }

func (f figures) running() (n int) {
	for _, k := range f.goroutines {
		n += k
	}
	return n
}

// processOf reads /proc.
func processOf(pid int) (figures, error) {
	var f figures
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return f, err
	}
	if f.resident, err = field(string(status), "VmRSS"); err != nil {
		return f, err
	}
	f.resident <<= 10
	if f.threads, err = field(string(status), "Threads"); err != nil {
		return f, err
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	f.descriptors = int64(len(open))
	for _, e := range open {
		if to, err := os.Readlink(filepath.Join(dir, "fd", e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			f.sockets++
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		// The worker hides them from all but root. Then it is for how many the kernel
		// has made room, which never shrinks.
		f.descriptors, err = field(string(status), "FDSize")
	}
	return f, err
}

// field reads a number of /proc/PID/status.
func field(status, name string) (int64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in %q", name, status)
}

// goroutines ends a worker by SIGQUIT, for which the runtime prints all of them.
func goroutines(w *platform.Worker) (map[string]int, error) {
	if err := syscall.Kill(w.Pid(), syscall.SIGQUIT); err != nil {
		return nil, err
	}
	select {
	case <-w.Ended():
	case <-time.After(10 * time.Second):
		return nil, errors.New("the worker does not end by SIGQUIT")
	}
	_, dump, ok := strings.Cut(w.Log(), "SIGQUIT: quit")
	all := parse(dump)
	if !ok || all["main"] != 1 {
		return nil, fmt.Errorf("the worker has not told its goroutines: %v", all)
	}
	return all, nil
}

var (
	stack   = regexp.MustCompile(`^goroutine (\d+) .*\[`)
	creator = regexp.MustCompile(`^created by (\S+)`)
)

// parse counts the goroutines of a dump.
func parse(dump string) map[string]int {
	all := map[string]int{}
	by := ""
	end := func() {
		if by != "" && !strings.HasPrefix(by, "net/http.(*Transport).") {
			all[by]++
		}
		by = ""
	}
	lines := bufio.NewScanner(strings.NewReader(dump))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := stack.FindStringSubmatch(lines.Text()); m != nil {
			end()
			if by = "runtime"; m[1] == "1" {
				by = "main"
			} else if m[1] == "0" { // not one, but the thread that got the signal
				by = ""
			}
		}
		if m := creator.FindStringSubmatch(lines.Text()); m != nil {
			by = m[1]
		}
	}
	end()
	return all
}

// sample is a worker at a time.
type sample struct {
	answered int
	worker   int
	figures
	temporary int64 // bytes in its home and temporary directory
}

// watch samples all workers until the end.
func (s *soak) watch(stop <-chan struct{}) {
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-stop:
			return
		case <-again.C:
		}
		s.mu.Lock()
		s.sample()
		s.mu.Unlock()
	}
}

// sample looks at all workers. The caller holds the lock.
func (s *soak) sample() {
	for i, w := range s.slots {
		f, err := processOf(w.Pid())
		if err != nil {
			s.t.Errorf("worker %d: %v", i, err)
			return
		}
		home, err := sizeOf(filepath.Join(w.Dir, "home"))
		temporary, err2 := sizeOf(filepath.Join(w.Dir, "tmp"))
		if err := errors.Join(err, err2); err != nil {
			s.t.Error(err)
		}
		s.samples = append(s.samples, sample{s.answered, i, f, home + temporary})
	}
}

// window is the median over the samples that were taken between two parts of the
// commands, of the worker that has most.
func (s *soak) window(from, to float64, of func(sample) int64) int64 {
	var most int64
	for i := range workers {
		var all []int64
		for _, x := range s.samples {
			if part := float64(x.answered) / float64(s.commands); x.worker == i && part >= from && part < to {
				all = append(all, of(x))
			}
		}
		most = max(most, median(all))
	}
	return most
}

func median(all []int64) int64 {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func TestParse(t *testing.T) {
	got := parse(`
PC=0x46d161 m=0 sigcode=0

goroutine 0 gp=0x1 m=0 mp=0x2 [idle]:
runtime.futex(0x1)

goroutine 1 gp=0x3 m=nil [select, 3 minutes]:
main.main()

goroutine 7 [IO wait]:
x.y()
created by net/http.(*Transport).dialConn in goroutine 5

goroutine 8 [IO wait]:
x.y()
created by router.(*tenure).start in goroutine 1

goroutine 9 [IO wait]:
x.y()
created by router.(*tenure).start in goroutine 1
rax 0x1
`)
	if d := cmp.Diff(map[string]int{"main": 1, "router.(*tenure).start": 2}, got); d != "" {
		t.Error(d)
	}
}
