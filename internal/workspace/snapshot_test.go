package workspace_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// change is what somebody does to a checkout, and what git is to see.
type change struct {
	name, kind, text string
}

func changes() *rapid.Generator[[]change] {
	names := rapid.SampledFrom([]string{
		"a", "a/b", "a/b/c", "d", "d/e", "d/f g", "ü.txt", "-x", "--all", "node_modules/m", "secret.txt", "d/secret.txt", ".gitignore", "z\nz", "old/x", "old/y", "old",
	})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) change {
		return change{
			name: names.Draw(t, "name"),
			kind: rapid.SampledFrom([]string{"write", "write", "write", "remove", "link", "run", "empty"}).Draw(t, "kind"),
			text: rapid.SampledFrom([]string{"one\n", "two\n", "secret.txt\nd\n", ""}).Draw(t, "text"),
		}
	}), 1, 12)
}

// apply does it in a directory; what is in the way is removed.
func (c change) apply(t *rapid.T, dir string) {
	path := filepath.Join(dir, c.name)
	for parent := filepath.Dir(path); len(parent) > len(dir); parent = filepath.Dir(parent) {
		if info, err := os.Lstat(parent); err == nil && !info.IsDir() {
			must(t, os.Remove(parent))
		}
	}
	must(t, os.RemoveAll(path))
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	switch c.kind {
	case "write":
		must(t, os.WriteFile(path, []byte(c.text), 0o644))
	case "run":
		must(t, os.WriteFile(path, []byte(c.text), 0o755))
	case "link":
		must(t, os.Symlink("old", path))
	case "empty":
		must(t, os.Mkdir(path, 0o755))
	}
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// TestCommitIsWhatGitWouldAdd has the same done to our checkout and to a clone, twice
// in a row and on two threads; both have the same trees then.
func TestCommitIsWhatGitWouldAdd(t *testing.T) {
	f := setUp(t)
	f.Commit(t, "site.git", "main", "old", map[string]string{"old/x": "x", "old/y": "y", "a": "a"})
	theirs := t.TempDir()
	gitserver.Git(t, theirs, "clone", "--quiet", f.Bare("site.git"), ".")
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		thread := fmt.Sprint("t", n)
		gitserver.Git(t, theirs, "checkout", "--quiet", "--force", "-B", thread, "origin/main")
		gitserver.Git(t, theirs, "clean", "-ffdqx")
		w := f.open(f.request(thread, thread+"-first"))
		must(r, os.RemoveAll(filepath.Join(w.Site(), "node_modules"))) // the clone's is gone too
		for _, name := range []string{"secret.txt", "d"} {
			if err := os.RemoveAll(filepath.Join(w.Site(), name)); err != nil {
				r.Fatal(err)
			}
		}
		for round := range 2 {
			for _, c := range changes().Draw(r, "changes") {
				c.apply(r, w.Site())
				c.apply(r, theirs)
			}
			gitserver.Git(t, theirs, "-c", "core.excludesFile="+excludes(t), "add", "--all")
			gitserver.Git(t, theirs, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--allow-empty", "-m", "x")
			c, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x"), AllowEmpty: true})
			if err != nil {
				r.Fatal(err)
			}
			want := gitserver.Git(t, theirs, "ls-tree", "-r", "-z", "HEAD")
			got := gitserver.Git(t, w.Site(), "--git-dir="+filepath.Join(f.root, "amelia-scott", "worker", "git"), "ls-tree", "-r", "-z", c.SHA)
			if d := cmp.Diff(strings.Split(want, "\x00"), strings.Split(got, "\x00")); d != "" {
				r.Fatalf("tree (-git +ours):\n%s", d)
			}
			files := strings.Split(strings.TrimSuffix(gitserver.Git(t, theirs, "diff-tree", "-r", "--name-only", "--no-renames", "-z", "HEAD^", "HEAD"), "\x00"), "\x00")
			if files[0] == "" {
				files = nil
			}
			if d := cmp.Diff(files, c.Files); d != "" && len(files)+len(c.Files) > 0 {
				r.Fatalf("files (-git +ours):\n%s", d)
			}
			// The next command of the thread goes on from there.
			w = f.open(f.request(thread, fmt.Sprint(thread, "-", round)))
		}
	})
}

func excludes(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "excludes")
	if err := os.WriteFile(name, []byte("node_modules/\ndist/\n.astro/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// What one thread ignores is not another's work.
func TestIgnoredFileOfAnotherThread(t *testing.T) {
	f := setUp(t)
	a := f.open(f.request("a", "c1"))
	f.write(a, ".gitignore", "draft.txt\n")
	f.write(a, "draft.txt", "of a")
	f.push(a, f.commit(a, "a").SHA)
	b := f.open(f.request("b", "c2"))
	if _, err := os.Stat(filepath.Join(b.Site(), "draft.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("thread b has what thread a ignores")
	}
}

// An ignored file may be in the way of a tracked one.
func TestIgnoredFileInTheWay(t *testing.T) {
	f := setUp(t)
	f.Commit(t, "site.git", "thread-b", "tracked here", map[string]string{"draft/x.txt": "of b", ".gitignore": ""})
	a := f.open(f.request("a", "c1"))
	f.write(a, ".gitignore", "draft\n")
	f.write(a, "draft", "a file")
	f.push(a, f.commit(a, "a").SHA)
	b := f.open(f.request("b", "c2"))
	if body, err := os.ReadFile(filepath.Join(b.Site(), "draft/x.txt")); err != nil || string(body) != "of b" {
		t.Errorf("draft/x.txt: %q, %v", body, err)
	}
}

// A crash between staging and the commit leaves an index that is ahead.
func TestCrashAfterStaging(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "new.txt", "new")
	f.write(w, "index.html", "changed")
	git := filepath.Join(f.root, "amelia-scott", "worker", "git")
	gitserver.Git(t, w.Site(), "--git-dir="+git, "--work-tree="+w.Site(), "add", "--all")
	if err := os.WriteFile(filepath.Join(git, "index.staged"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w = f.open(f.request("1", "c1"))
	if c := f.commit(w, "after the crash"); !slices.Equal(c.Files, []string{"index.html", "new.txt"}) {
		t.Errorf("the commit has %v", c.Files)
	}
	if _, err := os.Stat(filepath.Join(git, "index.staged")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the mark stays")
	}
}

// To push costs what changed: one page in one directory is one blob and two trees.
func TestPushSendsWhatChanged(t *testing.T) {
	f := setUp(t)
	files := map[string]string{}
	for i := range 300 {
		files[fmt.Sprintf("d%d/f%d.html", i%10, i)] = strings.Repeat(fmt.Sprint("line ", i, "\n"), 20)
	}
	f.Commit(t, "site.git", "main", "many", files)
	w := f.open(f.request("1", "c1"))
	f.write(w, "d3/f3.html", "edited\n")
	c := f.commit(w, "edit")
	before := f.remote("count-objects", "-v")
	f.push(w, c.SHA)
	after := f.remote("count-objects", "-v")
	if got := count(t, after) - count(t, before); got != 4 {
		t.Errorf("the remote got %d objects; want a commit, two trees and a blob", got)
	}
}

// count is how many loose objects and packed ones there are.
func count(t *testing.T, out string) int {
	t.Helper()
	sum := 0
	for line := range strings.Lines(out) {
		var n int
		if _, err := fmt.Sscanf(line, "count: %d", &n); err == nil {
			sum += n
		}
		if _, err := fmt.Sscanf(line, "in-pack: %d", &n); err == nil {
			sum += n
		}
	}
	return sum
}

// What is large is sent by the git program, and arrives as well.
func TestPushOfLargeFiles(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	noise := make([]byte, 20<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	for _, name := range []string{"one.bin", "two.bin"} {
		noise[0]++
		f.write(w, name, string(noise))
	}
	c := f.commit(w, "large")
	f.push(w, c.SHA)
	if got := f.remote("rev-parse", "thread-1"); got != c.SHA {
		t.Errorf("the remote has %s", got)
	}
	f.write(w, "small.txt", "x")
	c = f.commit(w, "small")
	f.push(w, c.SHA)
	if got := f.remote("rev-parse", "thread-1"); got != c.SHA {
		t.Errorf("the remote has %s", got)
	}
}

// A new workspace gets the newest part of a long history, and the rest when a merge
// needs it.
func TestShallowWorkspace(t *testing.T) {
	f := setUp(t)
	old := f.remote("rev-parse", "main")
	work := t.TempDir()
	gitserver.Git(t, work, "clone", "--quiet", f.Bare("site.git"), ".")
	for i := range 120 {
		gitserver.Git(t, work, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--allow-empty", "-m", fmt.Sprint("commit ", i))
	}
	gitserver.Git(t, work, "push", "--quiet", "origin", "HEAD:main")

	w := f.open(f.request("1", "c1"))
	dir := filepath.Join(f.root, "amelia-scott", "worker", "git")
	commits := func() int { return strings.Count(gitserver.Git(t, dir, "log", "--all", "--format=%H"), "\n") + 1 }
	if n := commits(); n != 50 {
		t.Errorf("the workspace has %d commits", n)
	}
	if n := strings.Count(gitserver.Git(t, w.Site(), "-c", "safe.directory=*", "log", "--format=%H"), "\n") + 1; n != 50 {
		t.Errorf("children see %d commits", n)
	}
	f.write(w, "ours.txt", "ours")
	c := f.commit(w, "ours")
	f.push(w, c.SHA)

	// Meanwhile somebody begins the branch anew, long ago.
	gitserver.Git(t, work, "checkout", "--quiet", "-B", "anew", old)
	if err := os.WriteFile(filepath.Join(work, "theirs.txt"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	gitserver.Git(t, work, "add", "--all")
	gitserver.Git(t, work, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "theirs")
	gitserver.Git(t, work, "push", "--quiet", "--force", "origin", "HEAD:thread-1")
	f.write(w, "more.txt", "more")
	c = f.commit(w, "more")
	f.push(w, c.SHA)
	if got := f.remote("ls-tree", "--name-only", "thread-1"); !strings.Contains(got, "theirs.txt") || !strings.Contains(got, "more.txt") || !strings.Contains(got, "ours.txt") {
		t.Errorf("the merge has %q", got)
	}
	if n := commits(); n < 122 {
		t.Errorf("after the merge there are %d commits", n)
	}
}

// A worker that takes over has the cut history of the one before.
func TestTakeOverOfAShallowWorkspace(t *testing.T) {
	f := setUp(t)
	work := t.TempDir()
	gitserver.Git(t, work, "clone", "--quiet", f.Bare("site.git"), ".")
	for i := range 60 {
		gitserver.Git(t, work, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--allow-empty", "-m", fmt.Sprint("commit ", i))
	}
	gitserver.Git(t, work, "push", "--quiet", "origin", "HEAD:main")
	w := f.open(f.request("1", "c1"))
	f.write(w, "ours.txt", "ours")
	c := f.commit(w, "ours")
	if err := f.store.TakeOver(t.Context(), workspace.TakeOverRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott"}); err != nil {
		t.Fatal(err)
	}
	w = f.open(f.request("1", "c2"))
	if w.Head() != c.SHA {
		t.Errorf("the head is %s; want the commit that was not pushed", w.Head())
	}
	f.push(w, c.SHA)
}
