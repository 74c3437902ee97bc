package platform

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// below lists the process ids below one.
func below(root int) []int {
	children := map[int][]int{}
	for _, pid := range pids() {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			continue
		}
		// pid (name) state ppid …, where the name may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
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

func pids() []int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// Tree lists the process ids of the worker and of all below it.
func (w *Worker) Tree() []int {
	return append([]int{w.cmd.Process.Pid}, below(w.cmd.Process.Pid)...)
}

// Left lists what is left of the worker's tree, by what it was given as its
// environment: for each process its id and its arguments. The worker itself does
// not count.
func (w *Worker) Left() []string {
	var left []string
	for _, pid := range pids() {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || pid == w.cmd.Process.Pid || !strings.Contains(string(env), w.Name) {
			continue
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it has just ended
		}
		left = append(left, strconv.Itoa(pid)+" "+strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " "))
	}
	return left
}

func contains(list []int, n int) bool { return slices.Contains(list, n) }
