package attack

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// TestBombs sets off what uses up processes, memory and disk (the kernel holds a file
// to its size; all files together are counted now and then), up to a bound that this
// machine survives. The keeper ends the tree at a limit far below; with a limit above,
// it goes off.
func TestBombs(t *testing.T) {
	low := process.Limits{Processes: 64, Memory: 128 << 20, FileSize: 64 << 20}
	high := process.Limits{Processes: 2000, Memory: 4 << 30, FileSize: 4 << 30}
	for _, bomb := range []struct{ kind, bound, what string }{
		{"fork", "150", process.LimitProcesses}, {"memory", "400", process.LimitMemory}, {"disk", "200", ""},
	} {
		t.Run(bomb.kind, func(t *testing.T) {
			for _, limits := range []process.Limits{low, high} {
				dir := t.TempDir()
				r := &process.Runner{Keeper: []string{programs.worker, "keeper"}, Wall: process.WallOff, Limits: limits}
				var said bytes.Buffer
				_, err := r.Run(t.Context(), process.Command{
					Path: programs.hostile, Args: []string{bomb.kind, bomb.bound}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"},
					Stdout: &said, Stderr: &said, Access: &process.Access{Pair: "a#b", Write: []string{dir}},
				})
				wentOff := strings.Contains(said.String(), "boom")
				limit, isLimit := errors.AsType[*process.LimitError](err)
				if limits == low && (wentOff || err == nil || bomb.what != "" && (!isLimit || limit.What != bomb.what)) {
					t.Errorf("went off %v, error %v; want the limit of %s: %s", wentOff, err, bomb.what, said.String())
				}
				if limits == high && !wentOff {
					t.Errorf("it does not go off without a limit, so nothing is shown: %v, %s", err, said.String())
				}
				if left := processes(filepath.Join(dir, "")); len(left) > 0 {
					t.Errorf("%q is left", left[0].arguments)
				}
			}
		})
	}
}
