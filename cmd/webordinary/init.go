package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/webordinary/claude-code-container/internal/process"
)

// asInit does the duty of process 1 while the program runs, if it is that: it is
// its own init in the image. The func it returns ends that, and waits.
func asInit(stderr io.Writer) func() {
	if os.Getpid() != 1 {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := process.ReapOrphans(ctx); err != nil {
			fmt.Fprintln(stderr, "webordinary:", err) //nolint:errcheck // nobody else to tell
		}
	}()
	return func() { stop(); <-ended }
}
