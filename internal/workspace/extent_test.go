package workspace_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/workspace"
)

// Trees that fit into a few kilobytes. Each prints its id.
const (
	manyFiles = `tree=$(printf '100644 blob %s\tfile\n' $(echo x | git hash-object -w --stdin) | git mktree)
for level in 1 2 3 4 5 6 7 8 9 10; do
	tree=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\td%s\n' $tree $i; done | git mktree)
done
echo $tree`
	manyBytes = `blob=$(head -c 9000000 /dev/zero | git hash-object -w --stdin)
seq -f "100644 blob $blob	f%g" 1000 | git mktree`
	deep = `{ printf 'commit refs/heads/deep\ncommitter x <x@x> 1 +0000\ndata 0\nM 100644 inline '
printf 'd/%.0s' $(seq 1010)
printf 'file\ndata 1\nx\n'; } | git fast-import --quiet
git rev-parse 'refs/heads/deep^{tree}'
git update-ref -d refs/heads/deep`
)

// plant makes a branch of the remote one commit of what a script makes.
func (f *fixture) plant(branch, script string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), "sh", "-ec", script)
	cmd.Dir = f.Bare("site.git")
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatal(err)
	}
	commit := f.remote("-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-p", "main", "-m", "bomb", strings.TrimSpace(string(out)))
	f.remote("update-ref", "refs/heads/"+branch, commit)
}

// TestTooMuchToCheckOut opens repositories whose few objects are more than a disk has.
// Git would be at it until the disk is full.
func TestTooMuchToCheckOut(t *testing.T) {
	for what, script := range map[string]string{"500,000 files": manyFiles, "8 GB of files": manyBytes, "1000 directories in each other": deep} {
		t.Run(what, func(t *testing.T) {
			f := setUp(t)
			f.plant("thread-1", script)
			for range 2 { // the second time nothing is fetched
				_, err := f.store.Open(t.Context(), f.request("1", "c1"))
				f.wantTooMuch(err, what)
			}
			w := f.open(f.request("2", "c2")) // the default branch is as it was
			f.write(w, "index.html", "<h1>two</h1>\n")
			f.push(w, f.commit(w, "Two").SHA)
		})
	}
}

// TestTooMuchToMerge has somebody else make too much of the thread's branch, while a
// command works.
func TestTooMuchToMerge(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "index.html", "<h1>one</h1>\n")
	c := f.commit(w, "One")
	f.plant("thread-1", manyFiles)
	_, err := w.Push(t.Context(), workspace.PushRequest{SHA: c.SHA, CommandID: "c1"})
	f.wantTooMuch(err, "500,000 files")
}

// wantTooMuch wants an error that names the bound: git, too, gives up after a while.
func (f *fixture) wantTooMuch(err error, what string) {
	f.t.Helper()
	if e, ok := errors.AsType[*workspace.Error](err); !ok || e.Code != "file_too_large" || !strings.Contains(e.Reason, what) {
		f.t.Errorf("error = %v; want file_too_large for more than %s", err, what)
	}
}

// TestDamagedNoteOfWhatFits: it only saves time.
func TestDamagedNoteOfWhatFits(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	note := filepath.Join(filepath.Dir(w.Site()), "worker", "fitting.json")
	if err := os.WriteFile(note, []byte(`["`), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Commit(t, "site.git", "main", "More", map[string]string{"more.txt": "x"})
	f.open(f.request("2", "c2"))
	if body, err := os.ReadFile(note); err != nil || !strings.HasSuffix(string(body), `"]`) {
		t.Errorf("the note is %q, %v", body, err)
	}
}
