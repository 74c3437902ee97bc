// Command keeper supervises one child of the worker: see package process.
package main

import (
	"os"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	os.Exit(process.KeeperMain(os.Args[1:], os.Stderr))
}
