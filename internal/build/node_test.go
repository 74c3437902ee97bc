package build_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// TestNodeIsAskedOnce: but a script each time, as it may choose another node.
func TestNodeIsAskedOnce(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		isScript bool
		asked    int
	}{"a script": {true, 3}, "a program": {false, 1}} { // installing, it is asked before and after
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, small())
			bin := t.TempDir()
			p.Env = process.With(p.Env, "PATH="+bin+":"+os.Getenv("PATH"))
			var log bytes.Buffer
			p.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			if test.isScript {
				script := "#!/bin/sh\nexec " + node + " \"$@\"\n"
				if err := os.WriteFile(filepath.Join(bin, "node"), []byte(script), 0o700); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Symlink(node, filepath.Join(bin, "node")); err != nil {
				t.Fatal(err)
			}
			p.build(t)
			p.build(t)
			if n := strings.Count(log.String(), "node --version"); n != test.asked {
				t.Errorf("asked %d times, want %d", n, test.asked)
			}
		})
	}
}

// TestAnotherNodeIsAsked: an update in place means another install.
func TestAnotherNodeIsAsked(t *testing.T) {
	t.Parallel()
	p := newPlace(t, small())
	bin := t.TempDir()
	p.Env = process.With(p.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	use := func(program string) {
		t.Helper()
		body, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "node.new"), body, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(bin, "node.new"), filepath.Join(bin, "node")); err != nil {
			t.Fatal(err)
		}
	}
	echo, err := exec.LookPath("echo") // answers --version too, otherwise
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	use(node)
	p.built(t, true, true)
	p.built(t, false, false)
	use(echo)
	p.Run(t.Context(), p.Request) //nolint:errcheck // with that node nothing can be built
	use(node)
	p.built(t, true, false)
}
