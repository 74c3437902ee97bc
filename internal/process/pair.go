package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// onThread runs f in a thread that ends with it, so that f may change what is the
// thread's. It is never the first thread, whose users are the process's in the
// eyes of others.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		if unix.Gettid() == os.Getpid() {
			err := onThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// pairUser is the pair whose child the keeper keeps.
type pairUser struct {
	id     int
	worker caller
	access Access
}

// end kills all processes of the pair, wherever they are. The thread that does so
// has the pair's effective user, which lets it signal them, and a real and a saved
// one that is nobody's, so that none of them can signal or trace it.
func (p *pairUser) end() error {
	if p.id < firstUser || p.id > lastUser {
		return fmt.Errorf("%d is nobody's user", p.id)
	}
	return onThread(func() error {
		if err := threadIDs(unix.SYS_SETRESUID, nobodys, p.id, nobodys); err != nil {
			return fmt.Errorf("end the pair's processes: %w", err)
		}
		// With a capability left, the signal would be for everyone.
		if err := loseCapabilities(); err != nil {
			return fmt.Errorf("end the pair's processes: %w", err)
		}
		if r, e, s := threadUsers(); r != nobodys || e != p.id || s != nobodys {
			return errors.New("end the pair's processes: this is another user")
		}
		if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("end the pair's processes: %w", err)
		}
		return nil
	})
}

func threadUsers() (r, e, s int) { return unix.Getresuid() }

// endAll ends the pair's processes, and waits until they are gone.
func (p *pairUser) endAll() error {
	if p == nil {
		return nil
	}
	deadline := time.Now().Add(5 * time.Second)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		if err := p.end(); err != nil {
			return err
		}
		left := p.left()
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of user %d do not end", left, p.id)
		}
		<-again.C
	}
}

// left counts the pair's processes that are not dead.
func (p *pairUser) left() int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		status, err := os.ReadFile("/proc/" + d.Name() + "/status")
		if err == nil && p.owns(string(status)) {
			n++
		}
	}
	return n
}

// owns reads /proc/pid/status. A name in it cannot have a line of its own.
func (p *pairUser) owns(status string) bool {
	own := false
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 1 && fields[0] == "State:" && (fields[1] == "Z" || fields[1] == "X"):
			return false
		case len(fields) > 1 && fields[0] == "Uid:" && fields[1] == strconv.Itoa(p.id):
			own = true
		}
	}
	return own
}
