package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReapOrphans collects, until ctx ends, the dead whose parents died before them:
// the duty of process 1. It never takes what os/exec waits for.
//
// Which those are, the kernel knows: os.StartProcess holds a pidfd of each child
// from the fork to the end of Wait. A dead child of ours without one is an
// orphan, and nobody but us can collect it, so its number is not reused
// meanwhile. The error says that the kernel has no pidfds; then nothing is
// collected.
func ReapOrphans(ctx context.Context) error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("orphans are not collected: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	died := make(chan os.Signal, 1) // one is enough: each look finds all
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	again := time.NewTicker(10 * time.Second)
	defer again.Stop()
	for {
		reapOrphans()
		select {
		case <-ctx.Done():
			return nil
		case <-died:
		case <-again.C:
		}
	}
}

// reapOrphans looks for the dead first, and then for what is waited for: one that
// is collected between the looks is gone, and Wait4 says so.
func reapOrphans() {
	dead := zombies(os.Getpid())
	if len(dead) == 0 {
		return
	}
	held, err := pidfds()
	if err != nil {
		return // better a zombie than another's child
	}
	for _, pid := range dead {
		if !held[pid] {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil) //nolint:errcheck // it is gone either way
		}
	}
}

// zombies lists the dead children of a process.
func zombies(parent int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var dead []int
	for _, path := range stats {
		stat, err := os.ReadFile(path) //nolint:gosec // it is in /proc
		if err != nil {
			continue
		}
		name, rest, ok := strings.Cut(string(stat), " ")
		pid, err := strconv.Atoi(name)
		if !ok || err != nil {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			dead = append(dead, pid)
		}
	}
	return dead
}

// pidfds returns the processes of which we hold a pidfd. One whose process was
// collected says -1.
func pidfds() (map[int]bool, error) {
	infos, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		return nil, err
	}
	held := map[int]bool{}
	for _, info := range infos {
		f, err := os.Open("/proc/self/fdinfo/" + info.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if value, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
				if pid, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
					held[pid] = true
				}
			}
		}
		err = errors.Join(lines.Err(), f.Close())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return held, nil
}
