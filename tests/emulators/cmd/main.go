// Command emulators runs the emulators of package emulators.
//
//	emulators [-port N]              until Ctrl-C, with the platform's resources; on the
//	                                 ports N to N+3 in the order SQS, DynamoDB, S3, websites
//	emulators -- program argument…   while a program runs, whose tests then use them
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

func main() {
	code, err := run(context.Background(), os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulators:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout io.Writer) (code int, err error) {
	wrap := len(args) > 1 && args[0] == "--"
	port := 0
	if len(args) == 2 && args[0] == "-port" {
		port, err = strconv.Atoi(args[1])
		args = nil
	}
	if err != nil || len(args) > 0 && !wrap {
		return 2, errors.New("usage: emulators [-port N | -- program argument…]")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	set, err := emulators.Start(ctx, emulators.Options{Port: port})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	if wrap {
		return runProgram(args[1:], set, signals)
	}
	if err := seed(ctx, set, stdout); err != nil {
		return 1, err
	}
	<-signals
	return 0, nil
}

// runProgram runs a program, passes our signals on to it, and returns its exit
// code, which is 128 more than the signal's number if one ended it.
func runProgram(argv []string, set *emulators.Set, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // signals end it
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), emulators.Variable+"="+set.String())
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			cmd.Process.Signal(sig) //nolint:errcheck // if it is gone, done says so
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 1, err
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// seed makes the set look like the platform, and prints the environment that
// uses it.
func seed(ctx context.Context, set *emulators.Set, stdout io.Writer) error {
	unclaimed, err := set.Seed(ctx, protocol.Pair{ProjectID: "amelia", UserID: "scott"})
	if err != nil {
		return err
	}
	for _, variable := range append(set.Environ(), "UNCLAIMED_QUEUE_URL="+unclaimed) {
		if _, err := fmt.Fprintln(stdout, "export", variable); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stdout, "# websites: curl -H 'Host: edit.amelia.webordinary.com' %s\n# Ctrl-C ends them\n", set.Website)
	return err
}
