// Command worker is a worker that tests can kill and freeze: it runs one script
// under a keeper, behind a wall, having written its process id to a file. It exits with 3 if
// the script was ended because the worker was frozen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

func main() {
	switch err := run(os.Args[1:]); {
	case errors.Is(err, process.ErrSilence):
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	keeper, wall, silence, dir, mark, script := args[0], args[1], args[2], args[3], args[4], args[5]
	d, err := time.ParseDuration(silence)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	words := strings.Fields(keeper)
	path := words[len(words)-1]
	r := process.Runner{Silence: d, Heartbeat: d / 10, Wall: process.Wall(wall), Read: []string{filepath.Dir(filepath.Dir(path))}}
	if r.Wall == process.WallUsers { // whose words end in env
		r.Setuid = slices.Insert(words, len(words)-1, mark)
	} else {
		r.Keeper = words
	}
	_, err = r.Run(context.Background(), process.Command{
		Path: "sh", Args: []string{"-c", script}, Dir: dir, Env: append(process.Environ(os.Environ(), nil), mark, "TMPDIR="+dir), Stdout: os.Stdout, Stderr: os.Stderr,
		Access: &process.Access{Pair: "shop#" + mark, Write: []string{dir}},
	})
	return err
}
