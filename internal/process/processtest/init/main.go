// Command init is, for tests, what process 1 is in a container: it gets the
// orphans. While it collects them it runs children of its own, in the ways in
// which programs do, and exits with 1 if one of those was taken from it, or if an
// orphan is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil { // as the worker is
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- process.ReapOrphans(ctx) }()

	const workers, runs = 4, 25
	errs := make(chan error, workers)
	for range workers {
		go func() {
			var err error
			for range runs {
				err = errors.Join(err, own())
			}
			errs <- err
		}()
	}
	err := late()
	for range workers {
		err = errors.Join(err, <-errs)
	}
	err = errors.Join(err, nothingLeft())
	stop()
	return errors.Join(err, <-ended)
}

// own runs a child that leaves orphans, one of them dead already, and ends with a
// code of its own.
func own() error {
	err := exec.Command("sh", "-c", "(sh -c 'exit 3' & sleep 0.02 & exit 0) ; exit 7").Run() //nolint:noctx // it ends by itself
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		return fmt.Errorf("a child ended with %w, want code 7", err)
	}
	return nil
}

// late waits for a child long after its death.
func late() error {
	cmd := exec.Command("sh", "-c", "exit 9") //nolint:noctx // it ends by itself
	if err := cmd.Start(); err != nil {
		return err
	}
	var other sync.WaitGroup // more deaths, so that the reaper looks again and again
	for range 5 {
		other.Go(func() { exec.Command("sleep", "0.1").Run() }) //nolint:errcheck,noctx // it ends by itself
	}
	other.Wait()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
		return fmt.Errorf("a child that was waited for late ended with %w, want code 9", err)
	}
	return nil
}

// nothingLeft waits until no child is left: there is none that we started.
func nothingLeft() error {
	deadline := time.After(3 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, syscall.WEXITED|syscall.WNOHANG|syscall.WNOWAIT, nil)
		if errors.Is(err, syscall.ECHILD) {
			return nil
		}
		select {
		case <-deadline:
			b, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children")
			return errors.Join(fmt.Errorf("orphans are left: %s", strings.TrimSpace(string(b))), err)
		case <-tick.C:
		}
	}
}
