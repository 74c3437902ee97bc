// Command fugitive does all at once that makes a process hard to end: it ignores
// TERM, leaves its session and process group, forks twice so that its parent is
// gone, and closes every descriptor. What was started stays, too. The last of
// them makes the file that is named.
package main

import (
	"math"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 || run(os.Args[1], os.Args[2]) != nil {
		os.Exit(1)
	}
}

func run(generation, ready string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	switch generation {
	case "parent":
		if err := start("child", ready); err != nil {
			return err
		}
	case "child":
		return start("grandchild", ready) // and end: the grandchild is nobody's
	case "grandchild":
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			return err
		}
		if err := unix.CloseRange(0, math.MaxInt32, 0); err != nil {
			return err
		}
	}
	forever := make(chan os.Signal, 1)
	signal.Notify(forever, syscall.SIGUSR1) // or Go sees a deadlock
	<-forever
	return nil
}

// start starts the next generation in a session of its own, without streams.
func start(generation, ready string) error {
	cmd := exec.Command("/proc/self/exe", generation, ready) //nolint:noctx // it is to outlive us
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}
