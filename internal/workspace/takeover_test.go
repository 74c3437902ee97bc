package workspace_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

func (f *fixture) dir() string { return filepath.Join(f.root, "amelia-scott") }

// takeOver is what the next owner does, whose predecessor did not leave in order.
func (f *fixture) takeOver() {
	f.t.Helper()
	r := workspace.TakeOverRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott"}
	if err := f.store.TakeOver(f.t.Context(), r); err != nil {
		f.t.Fatal(err)
	}
}

// asides lists what was set aside, oldest first.
func (f *fixture) asides() []string {
	f.t.Helper()
	found, err := filepath.Glob(f.dir() + "~aside-*")
	if err != nil {
		f.t.Fatal(err)
	}
	return found
}

func (f *fixture) exists(path ...string) bool {
	f.t.Helper()
	_, err := os.Lstat(filepath.Join(path...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	return err == nil
}

// log returns the subjects and WIP trailers of a branch of the local repository
// since main, newest first.
func (f *fixture) log(branch string) []string {
	f.t.Helper()
	git := filepath.Join(f.dir(), "worker", "git")
	out := gitserver.Git(f.t, git, "log", "--format=%s%(trailers:key=Wip-For,valueonly,separator=)", f.remote("rev-parse", "main")+".."+branch)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

func (f *fixture) branches() []string {
	f.t.Helper()
	return strings.Fields(gitserver.Git(f.t, filepath.Join(f.dir(), "worker", "git"), "for-each-ref", "--format=%(refname)", "refs/heads", "refs/adopt"))
}

func TestTakeOverContinuesTheSameCommand(t *testing.T) {
	f := setUp(t)
	old := f.open(f.request("1", "c1"))
	f.write(old, "half.txt", "half done")
	f.write(old, "node_modules/x/index.js", "x")
	f.write(old, "dist/index.html", "x")
	if err := os.Remove(filepath.Join(old.Site(), "style.css")); err != nil {
		t.Fatal(err)
	}
	f.takeOver()
	r := f.request("1", "c1")
	var saved []string
	r.Saved = func(_ context.Context, owner, sha string) error { saved = append(saved, owner, sha); return nil }
	w := f.open(r)
	if d := cmp.Diff([]string{"c1", w.Head()}, saved); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"WIP: savedc1"}, f.log("thread-1")); d != "" {
		t.Errorf("commits (-want +got):\n%s", d)
	}
	if !f.exists(w.Site(), "half.txt") || f.exists(w.Site(), "style.css") || f.exists(w.Site(), "node_modules") || f.exists(w.Site(), "dist") {
		t.Error("the checkout is not what the command had done")
	}
	if f.exists(f.dir(), "worker", "takeover.json") || len(f.asides()) != 1 {
		t.Errorf("the note is still there, or no directory: %v", f.asides())
	}
	if d := cmp.Diff([]string{"refs/heads/thread-1"}, f.branches()); d != "" {
		t.Errorf("branches (-want +got):\n%s", d)
	}
	if got := f.remote("branch", "--list", "thread-1"); got != "" {
		t.Errorf("pushed before the command is done: %q", got)
	}
	f.write(w, "rest.txt", "the rest")
	f.push(w, f.commit(w, "all of it").SHA)
	if got := f.remote("show", "thread-1:half.txt"); got != "half done" {
		t.Errorf("half.txt: %q", got)
	}
}

// What belongs to another command goes to its own thread, whoever comes first.
func TestTakeOverSavesWorkOfOthers(t *testing.T) {
	for _, tt := range []struct{ name, thread, owner string }{
		{"another thread", "2", "c2"}, {"the same thread", "1", "c2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := setUp(t)
			f.write(f.open(f.request("1", "c1")), "half.txt", "half done")
			f.takeOver()
			w := f.open(f.request(tt.thread, tt.owner))
			if got := f.remote("log", "-1", "--format=%s %(trailers:key=Wip-For,separator=)", "thread-1"); got != "WIP: saved Wip-For: c1" {
				t.Errorf("the remote has %q", got)
			}
			if f.exists(w.Site(), "half.txt") != (tt.thread == "1") {
				t.Error("the thread's checkout is wrong")
			}
		})
	}
}

func TestTakeOverKeepsUnpushedCommits(t *testing.T) {
	f := setUp(t)
	a := f.open(f.request("a", "c1"))
	f.write(a, "a.txt", "a")
	first := f.commit(a, "a")
	b := f.open(f.request("b", "c2"))
	f.write(b, "b.txt", "b")
	second := f.commit(b, "b")
	f.write(b, "package-lock.json", "left by the build")
	f.takeOver()

	r := f.request("b", "c2")
	r.RepoURL, r.Committed = "", second.SHA // later repoUrl may be absent
	w := f.open(r)
	if has, err := w.Contains(t.Context(), second.SHA); err != nil || !has || w.Head() != second.SHA || !w.Unpushed() {
		t.Errorf("head %s; want %s", w.Head(), second.SHA)
	}
	if d := cmp.Diff([]string{"b"}, f.log("thread-b")); d != "" {
		t.Errorf("commits (-want +got):\n%s", d)
	}
	if w = f.open(f.request("a", "c3")); w.Head() != first.SHA {
		t.Errorf("head %s; want %s", w.Head(), first.SHA)
	}
}

// The branch may have gone on, by a merge, without the tree.
func TestTakeOverOfATreeThatIsBehind(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	c := f.commit(w, "a")
	f.Commit(t, "site.git", "thread-1", "external", map[string]string{"other.txt": "x"})
	f.push(w, c.SHA)
	f.write(w, "half.txt", "half done")
	f.takeOver()
	note, state := filepath.Join(f.dir(), "worker", "takeover.json"), filepath.Join(f.dir(), "worker", "current.json")
	before, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	f.open(f.request("1", "c2"))
	if err := errors.Join(os.WriteFile(note, before, 0o600), os.Remove(state)); err != nil { // a crash, before it was removed
		t.Fatal(err)
	}
	f.open(f.request("1", "c2"))
	if n := f.remote("rev-list", "--count", c.SHA+"..thread-1-wip-"+c.SHA[:8]); n != "1" {
		t.Errorf("%s commits on the side branch; want 1", n)
	}
	if got := f.remote("log", "-1", "--format=%s", "thread-1-wip-"+c.SHA[:8]); got != "WIP: saved" {
		t.Errorf("the side branch has %q", got)
	}
	if got := f.remote("ls-tree", "--name-only", "thread-1", "half.txt"); got != "" {
		t.Error("the branch has what belongs beside it")
	}
}

// A thawed child has the old checkout open, and a thawed worker knows the path.
func TestTakeOverHidesFromTheFrozen(t *testing.T) {
	f := setUp(t)
	old := f.open(f.request("1", "c1"))
	f.write(old, "open.txt", "before")
	held, err := os.OpenFile(filepath.Join(old.Site(), "open.txt"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close() //nolint:errcheck // a test's
	cwd, err := os.OpenRoot(old.Site())
	if err != nil {
		t.Fatal(err)
	}
	defer cwd.Close() //nolint:errcheck // a test's
	f.takeOver()
	w := f.open(f.request("1", "c1"))
	head := w.Head()

	if _, err := held.WriteString(", and after"); err != nil {
		t.Fatal(err)
	}
	if err := cwd.WriteFile("late.txt", []byte("late"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = old.Commit(t.Context(), workspace.CommitRequest{Message: message("late"), AllowEmpty: true})
	if !errors.Is(err, workspace.ErrTaken) {
		t.Errorf("commit of the former owner: %v; want ErrTaken", err)
	}
	if _, err = old.Push(t.Context(), workspace.PushRequest{SHA: head, CommandID: "c1"}); !errors.Is(err, workspace.ErrTaken) {
		t.Errorf("push of the former owner: %v; want ErrTaken", err)
	}
	if err := old.EmptyJob(); !errors.Is(err, workspace.ErrTaken) {
		t.Errorf("EmptyJob of the former owner: %v; want ErrTaken", err)
	}
	// It was already behind the question, or wrote through a git of its own.
	gitserver.Git(t, filepath.Join(f.asides()[0], "worker", "git"), "update-ref", "refs/heads/thread-1", f.remote("rev-parse", "main"))
	gitserver.Git(t, filepath.Join(f.asides()[0], "worker", "git"), "update-ref", "refs/heads/thread-late", f.remote("rev-parse", "main"))

	w = f.open(f.request("1", "c1"))
	if body, err := os.ReadFile(filepath.Join(w.Site(), "open.txt")); err != nil || string(body) != "before" || f.exists(w.Site(), "late.txt") {
		t.Errorf("open.txt: %q, %v", body, err)
	}
	if d := cmp.Diff([]string{"refs/heads/thread-1"}, f.branches()); d != "" || w.Head() != head {
		t.Errorf("head %s, want %s; branches (-want +got):\n%s", w.Head(), head, d)
	}
	if _, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x")}); !errors.Is(err, workspace.ErrNoChange) {
		t.Errorf("the checkout is not as it was: %v", err)
	}
}

func TestTakeOverBringsConversations(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	file := filepath.Join(w.Conversations(), "id", "transcript.jsonl")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("said"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(w.Conversations(), "link")); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close() //nolint:errcheck // a test's
	f.write(w, "../job/lent", "said in the job")
	err = f.store.TakeOver(t.Context(), workspace.TakeOverRequest{
		ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott",
		Rescue: func(job, conversations string) error {
			said, err := os.ReadFile(filepath.Join(job, "lent"))
			return errors.Join(err, os.WriteFile(filepath.Join(conversations, "home"), said, 0o600))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.WriteString(" and unsaid"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{file: "said", filepath.Join(w.Conversations(), "home"): "said in the job"} {
		if body, err := os.ReadFile(name); err != nil || string(body) != want {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
	if f.exists(w.Conversations(), "link") {
		t.Error("a link came along")
	}
}

func TestTakeOverOfNothing(t *testing.T) {
	f := setUp(t)
	f.takeOver()
	if len(f.asides()) != 0 {
		t.Error("nothing was set aside")
	}
	if err := os.MkdirAll(filepath.Join(f.dir(), "worker", "git"), 0o700); err != nil { // never finished
		t.Fatal(err)
	}
	f.takeOver()
	f.open(f.request("1", "c1"))
}

// A crash at any line of a takeover is made good by the next call, or by Open.
func TestTakeOverCutByACrash(t *testing.T) {
	broken := errors.New("the worker dies here")
	request := workspace.TakeOverRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott"}
	cuts := map[string]func(t *testing.T, f *fixture){
		"while the fresh directory is made": func(t *testing.T, f *fixture) {
			t.Helper()
			r := request
			r.Rescue = func(string, string) error { return broken }
			if err := f.store.TakeOver(t.Context(), r); !errors.Is(err, broken) {
				t.Fatal(err)
			}
			if len(f.asides()) != 0 {
				t.Fatal("set aside, and nothing is in its place")
			}
		},
		"before the old one is set aside": func(t *testing.T, f *fixture) {
			t.Helper()
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(broken)
			if err := f.store.TakeOver(ctx, request); !errors.Is(err, broken) {
				t.Fatal(err)
			}
		},
		"before the fresh one takes its place": func(t *testing.T, f *fixture) {
			t.Helper()
			f.takeOver()
			if err := os.Rename(f.dir(), f.dir()+"~fresh"); err != nil {
				t.Fatal(err)
			}
		},
		"at its end": func(_ *testing.T, f *fixture) { f.takeOver() },
	}
	for name, cut := range cuts {
		for _, again := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				f := setUp(t)
				f.write(f.open(f.request("1", "c1")), "half.txt", "half done")
				cut(t, f)
				if again {
					f.takeOver()
				}
				r := f.request("1", "c1")
				r.RepoURL = ""
				w := f.open(r)
				if !f.exists(w.Site(), "half.txt") {
					t.Error("the work is gone")
				}
				if set := len(f.asides()) > 0; again && !set {
					t.Error("not taken over")
				}
			})
		}
	}
}

// A crash while Open looks through what was set aside saves nothing twice.
func TestAdoptionCutByACrash(t *testing.T) {
	state := func(f *fixture, name string) string { return filepath.Join(f.dir(), "worker", name) }
	for _, owner := range []string{"c1", "c2"} {
		t.Run("of "+owner, func(t *testing.T) {
			f := setUp(t)
			f.write(f.open(f.request("1", "c1")), "half.txt", "half done")
			f.takeOver()
			before, err := os.ReadFile(state(f, "takeover.json"))
			if err != nil {
				t.Fatal(err)
			}
			r := f.request("1", owner)
			r.Saved = func(context.Context, string, string) error { return errors.New("the journal is away") }
			if _, err := f.store.Open(t.Context(), r); err == nil {
				t.Fatal("opened although the commit is not journalled")
			}
			r.Saved = nil
			head := f.open(r).Head()
			// The note was not removed yet, and nothing is checked out.
			if err := errors.Join(os.WriteFile(state(f, "takeover.json"), before, 0o600), os.Remove(state(f, "current.json"))); err != nil {
				t.Fatal(err)
			}
			if w := f.open(r); w.Head() != head {
				t.Errorf("head %s; want %s", w.Head(), head)
			}
			if d := cmp.Diff([]string{"WIP: savedc1"}, f.log("thread-1")); d != "" {
				t.Errorf("commits (-want +got):\n%s", d)
			}
			for _, b := range f.branches() {
				if strings.Contains(b, "-wip-") {
					t.Errorf("saved twice: %s", b)
				}
			}
		})
	}
}

// Two owners in a row fail before they open anything.
func TestTakeOverTwice(t *testing.T) {
	f := setUp(t)
	f.write(f.open(f.request("1", "c1")), "half.txt", "half done")
	f.takeOver()
	f.takeOver()
	if w := f.open(f.request("1", "c1")); !f.exists(w.Site(), "half.txt") {
		t.Error("the work is gone")
	}
}

// A day counts from when a directory was set aside, and not before it was looked
// through.
func TestAsidesAreKeptForADay(t *testing.T) {
	f := setUp(t)
	later := time.Now()
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(t), Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host},
		Now: func() time.Time { return later },
	})
	f.write(f.open(f.request("1", "c1")), "half.txt", "half done")
	later = later.Add(30 * time.Hour)
	f.takeOver()
	later = later.Add(30 * time.Hour)
	if w := f.open(f.request("1", "c1")); !f.exists(w.Site(), "half.txt") || len(f.asides()) != 1 {
		t.Fatal("removed before it was looked through")
	}
	if f.trim(); len(f.asides()) != 0 {
		t.Error("it is still there")
	}
}

// A file that no remote takes is its own command's failure, not that of whoever
// comes next.
func TestLargeLeftoverIsDropped(t *testing.T) {
	for name, aside := range map[string]bool{"in the checkout": false, "set aside": true} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			w := f.open(f.request("1", "c1"))
			f.write(w, "half.txt", "half done")
			f.write(w, "big.bin", "x")
			for _, large := range []string{"big.bin", "index.html"} {
				if err := os.Truncate(filepath.Join(w.Site(), large), 101<<20); err != nil {
					t.Fatal(err)
				}
			}
			if aside {
				f.takeOver()
			}
			f.open(f.request("2", "c2"))
			if got := f.remote("show", "--format=", "--name-status", "thread-1"); got != "A\thalf.txt" {
				t.Errorf("saved: %q", got)
			}
		})
	}
}

// TestNobodyIsCalledLikeWhatIsSetAside has users whose names could make the names of
// what another one has beside its directory. A takeover and a trim leave theirs alone.
func TestNobodyIsCalledLikeWhatIsSetAside(t *testing.T) {
	f := setUp(t)
	f.open(f.request("1", "c1"))
	others := []protocol.Pair{{ProjectID: "amelia", UserID: "scott.fresh"}, {ProjectID: "amelia", UserID: "scott.aside-1000"}, {ProjectID: "amelia", UserID: "scott.aside-1000-2"}}
	for _, p := range others {
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		r := f.request("1", "c1")
		r.UserID, r.Dir = p.UserID, p.Dir()
		f.write(f.open(r), "mine.txt", "x")
	}
	f.takeOver()
	f.open(f.request("1", "c2"))
	f.trim()
	for _, p := range others {
		if !f.exists(f.root, p.Dir(), "site", "mine.txt") {
			t.Errorf("the workspace of %s is gone", p.UserID)
		}
	}
	if entries, err := os.ReadDir(f.root); err != nil || len(entries) < len(others)+2 {
		t.Errorf("nothing was set aside: %v, %v", entries, err)
	}
}
