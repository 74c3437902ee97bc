package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

const day = 24 * time.Hour

// at sets the clock of the store.
func (f *fixture) at(now time.Time) {
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(f.t), Env: processtest.Env(f.t), Token: gitserver.Token, AllowedHosts: []string{f.Host},
		Now: func() time.Time { return now },
	})
}

func (f *fixture) trim() {
	f.t.Helper()
	r := workspace.TrimRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott"}
	if err := f.store.Trim(f.t.Context(), r); err != nil {
		f.t.Fatal(err)
	}
}

func TestTrimOfNothing(t *testing.T) {
	f := setUp(t)
	f.trim()
	if left, err := os.ReadDir(f.root); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestTrimAsides(t *testing.T) {
	f := setUp(t)
	f.open(f.request("1", "c1"))
	now := time.Unix(2_000_000_000, 0)
	f.at(now)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	aside := func(age time.Duration) string {
		dir := fmt.Sprintf("%s~aside-%d", f.dir(), now.Add(-age).Unix())
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "site/a/b"), 0o700), os.Symlink(outside, filepath.Join(dir, "site/a/link"))); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	young, old, wanted, foreign := aside(23*time.Hour), aside(25*time.Hour), aside(99*time.Hour), f.root+"/amelia-scotty~aside-1"
	note := fmt.Sprintf(`{"asides":[%q]}`, filepath.Base(wanted))
	if err := errors.Join(os.WriteFile(filepath.Join(f.dir(), "worker/takeover.json"), []byte(note), 0o600), os.Mkdir(foreign, 0o700)); err != nil {
		t.Fatal(err)
	}
	f.trim()
	if !f.exists(young) || f.exists(old) || !f.exists(wanted) || !f.exists(foreign) || !f.exists(outside, "kept") {
		t.Errorf("young %v, old %v, wanted %v, another pair's %v, outside %v", f.exists(young), f.exists(old), f.exists(wanted), f.exists(foreign), f.exists(outside, "kept"))
	}
}

func TestTrimUnwrittenFiles(t *testing.T) {
	f := setUp(t)
	f.open(f.request("1", "c1"))
	for name, age := range map[string]time.Duration{"worker/.new-1": 25 * time.Hour, "worker/cache/.new-2": 25 * time.Hour, "worker/git/.new-3": 0} {
		path := filepath.Join(f.dir(), name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	f.trim()
	if f.exists(f.dir(), "worker/.new-1") || f.exists(f.dir(), "worker/cache/.new-2") || !f.exists(f.dir(), "worker/git/.new-3") {
		t.Error("not those that are old")
	}
}

// conflict makes a side branch of the command c1, made at a time.
func (f *fixture) conflict(at time.Time) (branch, sha string) {
	f.t.Helper()
	f.at(at)
	w := f.open(f.request("1", "c1"))
	f.write(w, "style.css", "a{color:blue}\n")
	c, err := w.Commit(f.t.Context(), workspace.CommitRequest{Message: func([]string) string { return "blue\n\nCommand-Id: c1\n" }})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Commit(f.t, "site.git", "thread-1", "external", map[string]string{"style.css": "a{color:red}\n"})
	_, err = w.Push(f.t.Context(), workspace.PushRequest{SHA: c.SHA, CommandID: "c1"})
	if e, ok := errors.AsType[*workspace.ConflictError](err); !ok || e.Branch != "thread-1-conflict-c1" {
		f.t.Fatal(err)
	}
	return "thread-1-conflict-c1", c.SHA
}

// merge merges a branch of the remote into another one, as a person would.
func (f *fixture) merge(branch, into string) {
	f.t.Helper()
	work := f.t.TempDir()
	gitserver.Git(f.t, work, "clone", "--quiet", "--branch", into, f.Bare("site.git"), ".")
	gitserver.Git(f.t, work, "-c", "user.name=x", "-c", "user.email=x", "merge", "--quiet", "--strategy=ours", "-m", "merge", "origin/"+branch)
	gitserver.Git(f.t, work, "push", "--quiet", "origin", "HEAD:"+into)
}

func TestTrimSideBranches(t *testing.T) {
	made := time.Unix(1_900_000_000, 0)
	for name, tt := range map[string]struct {
		into string        // where it is merged into, if it is
		age  time.Duration // when it is looked at
		more bool          // somebody has gone on on it
		gone bool
	}{
		"merged into the thread": {into: "thread-1", age: 31 * day, gone: true},
		"merged into main":       {into: "main", age: 31 * day, gone: true},
		"young":                  {into: "thread-1", age: 29 * day},
		"not merged":             {age: 99 * day},
		"gone on":                {into: "thread-1", age: 31 * day, more: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			side, _ := f.conflict(made)
			if tt.into != "" {
				f.merge(side, tt.into)
			}
			if tt.more {
				f.Commit(t, "site.git", side, "more", map[string]string{"x.txt": "x"})
			}
			f.at(made.Add(tt.age))
			for range 2 {
				f.trim()
				here := gitserver.Git(t, filepath.Join(f.dir(), "worker/git"), "branch", "--list", side) != ""
				there := f.remote("branch", "--list", side) != ""
				if here == tt.gone || there == tt.gone {
					t.Errorf("here %v, on the remote %v; want gone: %v", here, there, tt.gone)
				}
			}
			f.open(f.request("1", "c2"))
		})
	}
}

// TestTrimKeepsThreads: a thread may be called as a side branch is.
func TestTrimKeepsThreads(t *testing.T) {
	f := setUp(t)
	made := time.Unix(1_900_000_000, 0)
	f.at(made)
	w := f.open(f.request("1-conflict-c1", "c9"))
	f.write(w, "a.txt", "x")
	c, err := w.Commit(t.Context(), workspace.CommitRequest{Message: func([]string) string { return "x\n\nCommand-Id: c9\n" }})
	if err != nil {
		t.Fatal(err)
	}
	f.push(w, c.SHA)
	f.merge("thread-1-conflict-c1", "main")
	f.at(made.Add(99 * day))
	f.trim()
	if f.remote("branch", "--list", "thread-1-conflict-c1") == "" {
		t.Error("removed")
	}
}

func TestTrimPacksTheRepository(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	for i := range 1001 {
		f.write(w, fmt.Sprintf("many/%d.txt", i), fmt.Sprint(i))
	}
	c := f.commit(w, "many")
	loose := func() int {
		found, err := filepath.Glob(filepath.Join(f.dir(), "worker/git/objects/[0-9a-f][0-9a-f]/*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if loose() <= 1000 {
		t.Fatalf("%d loose objects", loose())
	}
	f.trim()
	if n := loose(); n > 10 {
		t.Errorf("%d loose objects are left", n)
	}
	f.push(f.open(f.request("1", "c1")), c.SHA)
	if got := gitserver.Git(t, w.Site(), "log", "--format=%s"); got != "many\nfirst" {
		t.Errorf("a child sees %q", got)
	}
}

// TestTrimIsCutOff: the next command does not wait.
func TestTrimIsCutOff(t *testing.T) {
	f := setUp(t)
	f.open(f.request("1", "c1"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("somebody comes")
	r := workspace.TrimRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott", Rest: func(w *workspace.Workspace) error {
		if !strings.HasPrefix(w.Conversations(), f.dir()) {
			t.Error(w.Conversations())
		}
		cancel(cause)
		return nil
	}}
	if err := f.store.Trim(ctx, r); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// TestKeptPackagesSurviveATakeover, and what the children of the former owner do to
// theirs is their own.
func TestKeptPackagesSurviveATakeover(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	if !w.Untouched() {
		t.Error("a new checkout is not untouched")
	}
	if err := errors.Join(w.Touch(), w.Touch(), os.WriteFile(filepath.Join(w.Cache(), "node_modules-x.tar"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if w = f.open(f.request("2", "c2")); w.Untouched() {
		t.Error("untouched again in another thread")
	}
	f.takeOver()
	w = f.open(f.request("1", "c1"))
	if body, err := os.ReadFile(filepath.Join(w.Cache(), "node_modules-x.tar")); err != nil || string(body) != "x" || !w.Untouched() {
		t.Errorf("kept %q, %v; untouched: %v", body, err, w.Untouched())
	}
}
