// Command prober is a worker that looks whether the wall of users stands: its
// arguments are the setuid keeper, the directory of the workspaces, and a keeper
// that everyone may run.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	r := process.Runner{Setuid: os.Args[1:2], Wall: process.WallUsers}
	err := r.Probe(context.Background(), os.Args[3:4])
	if err == nil {
		err = r.ProbeUsers(context.Background(), os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
