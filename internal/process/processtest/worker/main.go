// Command worker is a worker that tests can kill: it runs one script under a
// keeper, having written its process id to a file.
package main

import (
	"context"
	"os"
	"strconv"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		os.Exit(1)
	}
}

func run(keeper, pidFile, mark, script string) error {
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	r := process.Runner{Keeper: []string{keeper}}
	_, err := r.Run(context.Background(), process.Command{
		Path: "sh", Args: []string{"-c", script}, Env: append(process.Environ(os.Environ(), nil), mark), Stdout: os.Stdout,
	})
	return err
}
