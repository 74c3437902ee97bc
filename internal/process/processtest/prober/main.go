// Command prober is a worker that looks whether the wall of users stands: its
// arguments are the setuid keeper and the directory of the workspaces.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	r := process.Runner{Setuid: os.Args[1:2], Wall: process.WallUsers}
	if err := r.ProbeUsers(context.Background(), os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err) //nolint:errcheck // nobody else to tell
		os.Exit(1)
	}
}
