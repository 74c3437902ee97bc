// Command worker is a worker that tests can kill and freeze: it runs one script
// under a keeper, having written its process id to a file. It exits with 3 if
// the script was ended because the worker was frozen.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	switch err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); {
	case errors.Is(err, process.ErrSilence):
		os.Exit(3)
	case err != nil:
		os.Exit(1)
	}
}

func run(keeper, silence, pidFile, mark, script string) error {
	d, err := time.ParseDuration(silence)
	if err != nil {
		return err
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	r := process.Runner{Keeper: []string{keeper}, Silence: d, Heartbeat: d / 10}
	_, err = r.Run(context.Background(), process.Command{
		Path: "sh", Args: []string{"-c", script}, Env: append(process.Environ(os.Environ(), nil), mark), Stdout: os.Stdout,
	})
	return err
}
