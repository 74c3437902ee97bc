// Command webordinary turns instructions into deployed websites. See its help,
// and docs/design.md.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	leave := func() {}
	if len(os.Args) < 2 || os.Args[1] != keeperArg { // which as process 1 of a child's namespace has its own way
		leave = asInit(os.Stderr)
	}
	code := run(ctx, os.Args[1:], system{environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	leave()
	stop()
	os.Exit(code)
}

// system is what the program has of the machine.
type system struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// keeperArg makes the program the supervisor of a child: see package process.
const keeperArg = "keeper"

// run returns the exit code.
func run(ctx context.Context, args []string, sys system) int {
	if len(args) > 0 && args[0] == keeperArg {
		return process.KeeperMain(args[1:], sys.stderr)
	}
	return execute(ctx, args, sys)
}
