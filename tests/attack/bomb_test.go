package attack

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
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

// treeBomb is a commit of ten billion files in a dozen objects.
const treeBomb = `set -e
tree=$(printf '100644 blob %s\tfile\n' $(echo x | git hash-object -w --stdin) | git mktree)
for level in 1 2 3 4 5 6 7 8 9 10; do
	tree=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\td%s\n' $tree $i; done | git mktree)
done
git update-ref refs/heads/main $(git -c user.name=x -c user.email=x@x commit-tree -m bomb $tree)`

// TestObjectBombs has a remote serve a commit that no disk can hold. It is counted and
// not checked out; plain git goes on and on.
func TestObjectBombs(t *testing.T) {
	server := gitserver.Start(t)
	server.Create(t, "bomb.git", map[string]string{"README": "hello\n"})
	cmd := exec.CommandContext(t.Context(), "sh", "-c", treeBomb)
	cmd.Dir = server.Bare("bomb.git")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	store := workspace.New(workspace.Config{
		Root: t.TempDir(), Runner: &process.Runner{Keeper: []string{programs.worker, "keeper"}}, Env: []string{"PATH=/usr/bin:/bin"},
		Token: gitserver.Token, AllowedHosts: []string{server.Host},
	})
	_, err := store.Open(t.Context(), workspace.Request{
		ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott", RepoURL: server.URL + "/bomb.git", Branch: "thread-1", Owner: "c-1",
	})
	if e, ok := errors.AsType[*workspace.Error](err); !ok || e.Code != "file_too_large" || !strings.Contains(e.Reason, "500,000 files") {
		t.Errorf("opened with %v; want file_too_large for its files", err)
	}
	out, err := exec.CommandContext(t.Context(), "timeout", "2", "git", "clone", "-q", server.Bare("bomb.git"), t.TempDir()).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 124 {
		t.Errorf("plain git is not kept busy, so nothing is shown: %v, %s", err, out)
	}
}

// TestLargeFile has an agent leave a file that no remote takes.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	p := w.shell()
	wantCode(t, p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), "t", "c-1", "truncate -s 101M zeros"}), "file_too_large")
	if out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), "t", "c-2", "truncate -s 99M zeros; date > x; rm zeros"}); out.CommitID == "" {
		t.Errorf("the next command: %+v", out)
	}
}
