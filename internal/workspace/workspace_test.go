package workspace_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport/client"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

func TestMain(m *testing.M) {
	workspace.NoRedirects(client.InstallProtocol)
	if err := flag.Set("rapid.checks", "25"); err != nil { // each has processes to start
		panic(err)
	}
	m.Run()
}

type fixture struct {
	*gitserver.Server
	t     *testing.T
	root  string
	url   string
	store *workspace.Store
}

func setUp(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Server: gitserver.Start(t), t: t, root: t.TempDir()}
	f.url = f.Create(t, "site.git", map[string]string{"index.html": "<h1>hi</h1>\n", "style.css": "a{}\n", ".gitignore": "secret.txt\n"})
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(t), Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host},
	})
	return f
}

func (f *fixture) request(thread, owner string) workspace.Request {
	return workspace.Request{
		ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott", RepoURL: f.url, Branch: "thread-" + thread, Owner: owner,
		Wip: func(owner string) string { return "WIP: saved\n\nWip-For: " + owner + "\n" },
	}
}

func (f *fixture) open(r workspace.Request) *workspace.Workspace {
	f.t.Helper()
	w, err := f.store.Open(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

func (f *fixture) write(w *workspace.Workspace, name, content string) {
	f.t.Helper()
	path := filepath.Join(w.Site(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func message(text string) func([]string) string {
	return func(files []string) string { return text + "\n\n" + strings.Join(files, ",") + "\n" }
}

func (f *fixture) commit(w *workspace.Workspace, text string) workspace.Commit {
	f.t.Helper()
	c, err := w.Commit(f.t.Context(), workspace.CommitRequest{Message: message(text)})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) push(w *workspace.Workspace, sha string) workspace.Push {
	f.t.Helper()
	p, err := w.Push(f.t.Context(), workspace.PushRequest{SHA: sha, CommandID: "c1"})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) remote(args ...string) string {
	f.t.Helper()
	return gitserver.Git(f.t, f.Bare("site.git"), args...)
}

func (f *fixture) wantCode(err error, code string) {
	f.t.Helper()
	var e *workspace.Error
	if !errors.As(err, &e) || e.Code != code {
		f.t.Fatalf("error = %v; want %s", err, code)
	}
}

func TestCommitAndPush(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	if _, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x")}); !errors.Is(err, workspace.ErrNoChange) {
		t.Fatalf("commit of nothing: %v", err)
	}
	f.write(w, "index.html", "<h1>blue</h1>\n")
	f.write(w, "new dir/é.txt", "x")
	f.write(w, "node_modules/x/index.js", "x")
	f.write(w, "dist/index.html", "x")
	f.write(w, "secret.txt", "x")
	c := f.commit(w, "Make it blue")
	if d := cmp.Diff([]string{"index.html", "new dir/é.txt"}, c.Files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	f.push(w, c.SHA)
	if got := f.remote("log", "-1", "--format=%an <%ae> %cn|%s|%b", "thread-1"); got != "WebOrdinary <noreply@webordinary.com> WebOrdinary|Make it blue|index.html,new dir/é.txt" {
		t.Errorf("commit on the remote: %s", got)
	}
	if got := f.remote("rev-parse", "thread-1"); got != c.SHA {
		t.Errorf("remote has %s; want %s", got, c.SHA)
	}
	if got := f.remote("rev-list", "--count", "main"); got != "1" {
		t.Errorf("main has %s commits; want 1", got)
	}
}

// A new thread branched from the previous thread's HEAD and carried its work
// along.
func TestThreadsAreIsolated(t *testing.T) {
	f := setUp(t)
	a := f.open(f.request("a", "c1"))
	f.write(a, "a.txt", "from a")
	f.push(a, f.commit(a, "a").SHA)
	f.write(a, "node_modules/x", "kept")

	b := f.open(f.request("b", "c2"))
	if _, err := os.Stat(filepath.Join(b.Site(), "a.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("thread b sees a's work")
	}
	if _, err := os.Stat(filepath.Join(b.Site(), "node_modules/x")); err != nil {
		t.Error("node_modules did not survive the switch")
	}
	if b.Head() != f.remote("rev-parse", "main") {
		t.Error("thread b does not begin at main")
	}
	f.write(b, "b.txt", "from b")
	f.push(b, f.commit(b, "b").SHA)

	a = f.open(f.request("a", "c3"))
	if _, err := os.Stat(filepath.Join(a.Site(), "a.txt")); err != nil {
		t.Error("thread a lost its work")
	}
	if _, err := os.Stat(filepath.Join(a.Site(), "b.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("thread a sees b's work")
	}
}

// git stash pop applied an older stash to the wrong thread.
func TestLeftoversGoToTheirOwnThread(t *testing.T) {
	f := setUp(t)
	a := f.open(f.request("a", "c1"))
	f.write(a, "half.txt", "half done")
	b := f.open(f.request("b", "c2"))
	if _, err := os.Stat(filepath.Join(b.Site(), "half.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("thread b has a's unfinished work")
	}
	if got := f.remote("log", "-1", "--format=%s %(trailers:key=Wip-For,separator=)", "thread-a"); got != "WIP: saved Wip-For: c1" {
		t.Errorf("thread a's branch: %q", got)
	}
	if got := f.remote("branch", "--list", "thread-b"); got != "" {
		t.Errorf("thread b was pushed: %q", got)
	}
	// The same thread's next command finds it committed, too.
	f.write(b, "half2.txt", "x")
	b = f.open(f.request("b", "c3"))
	if got := f.remote("log", "-1", "--format=%s", "thread-b"); got != "WIP: saved" || b.Head() != f.remote("rev-parse", "thread-b") {
		t.Errorf("thread b's branch: %q", got)
	}
}

func TestSameCommandFindsItsTreeAsItWas(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "half.txt", "half done")
	head := w.Head()
	f.Commit(t, "site.git", "main", "meanwhile", map[string]string{"other.txt": "x"})
	w = f.open(f.request("1", "c1"))
	if body, err := os.ReadFile(filepath.Join(w.Site(), "half.txt")); err != nil || string(body) != "half done" {
		t.Errorf("half.txt: %q, %v", body, err)
	}
	if w.Head() != head {
		t.Error("the branch moved under a command that is not done")
	}
}

func TestUnpushedCommitsAreKept(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	c := f.commit(w, "a")
	w = f.open(f.request("1", "c2"))
	if has, err := w.Contains(t.Context(), c.SHA); err != nil || !has || w.Head() != c.SHA || !w.Unpushed() {
		t.Fatalf("head %s; want the unpushed %s", w.Head(), c.SHA)
	}
	if has, err := w.Contains(t.Context(), strings.Repeat("1", 40)); err != nil || has {
		t.Errorf("a commit that is nowhere: %v, %v", has, err)
	}
	f.push(w, w.Head())
	if w = f.open(f.request("1", "c3")); w.Unpushed() {
		t.Error("pushed, and still called unpushed")
	}
}

func TestThreadContinuesFromItsRemoteBranch(t *testing.T) {
	f := setUp(t)
	sha := f.Commit(t, "site.git", "thread-1", "by another container", map[string]string{"x.txt": "x"})
	w := f.open(f.request("1", "c1"))
	if w.Head() != sha {
		t.Fatalf("head %s; want the remote's %s", w.Head(), sha)
	}
	sha = f.Commit(t, "site.git", "thread-1", "once more", map[string]string{"x.txt": "y"})
	if w = f.open(f.request("1", "c2")); w.Head() != sha {
		t.Fatalf("head %s; want the remote's %s", w.Head(), sha)
	}
}

func TestPushWhoseAnswerWasLost(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	c := f.commit(w, "a")
	f.push(w, c.SHA)
	f.Commit(t, "site.git", "thread-1", "and somebody went on", map[string]string{"b.txt": "b"})
	p := f.push(w, c.SHA)
	if p.SHA != f.remote("rev-parse", "thread-1") {
		t.Fatalf("push says %s", p.SHA)
	}
	if n := f.remote("rev-list", "--count", "main..thread-1"); n != "2" {
		t.Errorf("%s commits; want 2", n)
	}
}

// A command that was cut off before its push is taken up again, and a later one has
// committed meanwhile.
func TestPushDoesNotMoveTheBranchBack(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	one := f.commit(w, "a")
	w = f.open(f.request("1", "c2"))
	f.write(w, "b.txt", "b")
	two := f.commit(w, "b")
	f.push(f.open(f.request("1", "c1")), one.SHA)
	w = f.open(f.request("1", "c2"))
	if has, err := w.Contains(t.Context(), two.SHA); !has || err != nil {
		t.Errorf("the later command's commit is gone from the branch (%v)", err)
	}
	f.push(w, two.SHA)
	if n := f.remote("rev-list", "--count", "main..thread-1"); n != "2" {
		t.Errorf("%s commits; want 2", n)
	}
}

// Push recovery looked for the text "non-fast-forward"; git says "fetch first".
func TestMovedRemoteIsMerged(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "style.css", "a{color:blue}\n")
	c := f.commit(w, "blue")
	f.Commit(t, "site.git", "thread-1", "external", map[string]string{"other.txt": "x"})
	p := f.push(w, c.SHA)
	if got := f.remote("rev-parse", "thread-1"); got != p.SHA {
		t.Fatalf("remote has %s; push says %s", got, p.SHA)
	}
	if got := f.remote("show", "thread-1:style.css") + f.remote("show", "thread-1:other.txt"); got != "a{color:blue}x" {
		t.Errorf("merged: %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.Site(), "other.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the checkout was touched")
	}
	w = f.open(f.request("1", "c2"))
	if _, err := os.Stat(filepath.Join(w.Site(), "other.txt")); err != nil || w.Head() != p.SHA {
		t.Errorf("the next command does not see the merge: %v", err)
	}
	if got := f.remote("log", "--format=%s", "main..thread-1"); strings.Contains(got, "WIP") {
		t.Errorf("the merge was taken for unfinished work:\n%s", got)
	}
}

// A conflicting pull was never resolved.
func TestConflictGoesToASideBranch(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "style.css", "a{color:blue}\n")
	c := f.commit(w, "blue")
	theirs := f.Commit(t, "site.git", "thread-1", "external", map[string]string{"style.css": "a{color:red}\n"})
	_, err := w.Push(t.Context(), workspace.PushRequest{SHA: c.SHA, CommandID: "cmd/1"})
	var conflict *workspace.ConflictError
	if !errors.As(err, &conflict) {
		t.Fatalf("error = %v", err)
	}
	if d := cmp.Diff([]string{"style.css"}, conflict.Files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if got := f.remote("rev-parse", conflict.Branch); got != c.SHA || !strings.HasPrefix(conflict.Branch, "thread-1-conflict-cmd-1-") {
		t.Errorf("side branch %s has %s", conflict.Branch, got)
	}
	if got := f.remote("rev-parse", "thread-1"); got != theirs {
		t.Error("the branch itself moved")
	}
	if w = f.open(f.request("1", "c2")); w.Head() != theirs {
		t.Error("the thread does not continue from the remote's head")
	}
}

func TestAmend(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	first := f.commit(w, "a")
	f.write(w, "package-lock.json", "{}")
	c, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("a and lock"), Amend: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a.txt", "package-lock.json"}, c.Files); d != "" || c.SHA == first.SHA {
		t.Errorf("files (-want +got):\n%s", d)
	}
	f.push(w, c.SHA)
	if n := f.remote("rev-list", "--count", "main..thread-1"); n != "1" {
		t.Errorf("%s commits; want 1", n)
	}
}

func TestWorkflowsAreLeftOut(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, ".github/workflows/evil.yml", "on: push")
	f.write(w, "a.txt", "a")
	c := f.commit(w, "a")
	if d := cmp.Diff([]string{".github/workflows/evil.yml"}, c.Left); d != "" {
		t.Errorf("left out (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a.txt"}, c.Files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

func TestLargeFileIsRefused(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "big.bin", "x")
	if err := os.Truncate(filepath.Join(w.Site(), "big.bin"), 101<<20); err != nil {
		t.Fatal(err)
	}
	_, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x")})
	f.wantCode(err, "file_too_large")
	if !strings.Contains(err.Error(), "big.bin") {
		t.Errorf("the file is not named: %v", err)
	}
}

func TestRepositoryMadeInsideIsKeptAsFiles(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "sub/file.txt", "x")
	gitserver.Git(t, filepath.Join(w.Site(), "sub"), "init", "--quiet")
	c := f.commit(w, "sub")
	if d := cmp.Diff([]string{"sub/file.txt"}, c.Files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

// What an agent plants in site/.git, or in place of it, has no effect on us.
func TestPlantedRepositoryIsNotRead(t *testing.T) {
	f := setUp(t)
	proof := filepath.Join(t.TempDir(), "proof")
	evil := "[core]\n\tfsmonitor = touch " + proof + "\n\thooksPath = hooks\n[filter \"x\"]\n\tclean = touch " + proof + "\n\tsmudge = touch " + proof + "\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http\n"
	for name, plant := range map[string]func(w *workspace.Workspace){
		"config and hooks": func(w *workspace.Workspace) {
			f.write(w, ".git/config", evil)
			f.write(w, ".git/hooks/pre-commit", "#!/bin/sh\ntouch "+proof)
			f.write(w, ".gitattributes", "* filter=x\n")
		},
		"file": func(w *workspace.Workspace) {
			if err := os.RemoveAll(filepath.Join(w.Site(), ".git")); err != nil {
				t.Fatal(err)
			}
			f.write(w, ".git", "gitdir: /tmp/elsewhere\n")
		},
		"link": func(w *workspace.Workspace) {
			if err := os.RemoveAll(filepath.Join(w.Site(), ".git")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(t.TempDir(), filepath.Join(w.Site(), ".git")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.open(f.request(strings.ReplaceAll(name, " ", "-"), "c-"+name))
			plant(w)
			f.write(w, "a.txt", name)
			f.push(w, f.commit(w, "a").SHA)
			f.open(f.request("next", "n-"+name))
			if _, err := os.Stat(proof); !errors.Is(err, fs.ErrNotExist) {
				t.Fatal("planted configuration was obeyed")
			}
		})
	}
}

func TestChildrenCanAskGit(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	if got := gitserver.Git(t, w.Site(), "status", "--short"); got != "?? a.txt" {
		t.Errorf("status: %q", got)
	}
	f.commit(w, "a")
	if got := gitserver.Git(t, w.Site(), "status", "--short") + gitserver.Git(t, w.Site(), "log", "--format=%s"); got != "a\nfirst" {
		t.Errorf("status and log: %q", got)
	}
}

// The token was stored in .git/config.
func TestTokenIsNowhereOnDisk(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	f.push(w, f.commit(w, "a").SHA)
	err := filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte(gitserver.Token)) || bytes.Contains(body, []byte("Basic ")) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemoteFailures(t *testing.T) {
	f := setUp(t)
	f.SetToken("another")
	_, err := f.store.Open(t.Context(), f.request("1", "c1"))
	f.wantCode(err, "repo_auth")
	f.SetToken(gitserver.Token)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "a")
	c := f.commit(w, "a")

	f.Fault(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	_, err = f.store.Open(t.Context(), f.request("1", "c2"))
	f.wantCode(err, "repo_unreachable")
	_, err = w.Push(t.Context(), workspace.PushRequest{SHA: c.SHA})
	f.wantCode(err, "repo_unreachable")
	f.Fault(nil)

	r := f.request("1", "c1")
	r.Dir, r.ProjectID, r.RepoURL = "other-scott", "other", f.URL+"/nothing.git"
	_, err = f.store.Open(t.Context(), r)
	f.wantCode(err, "repo_unreachable")
	r.RepoURL = ""
	r.Dir, r.ProjectID = "third-scott", "third"
	_, err = f.store.Open(t.Context(), r)
	f.wantCode(err, "repo_missing")
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	f := setUp(t)
	var reached atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer elsewhere.Close()
	f.Fault(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusFound)
	}))
	_, err := f.store.Open(t.Context(), f.request("1", "c1"))
	f.wantCode(err, "repo_unreachable")
	if reached.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

func TestDirectoryOfAnotherPairIsNotOpened(t *testing.T) {
	f := setUp(t)
	r := f.request("1", "c1")
	r.ProjectID, r.UserID, r.Dir = "a-b", "c", "a-b-c"
	one := f.open(r)
	f.write(one, "mine.txt", "x")
	r.ProjectID, r.UserID = "a", "b-c"
	other := f.open(r)
	if one.Site() == other.Site() {
		t.Fatal("two pairs share a directory")
	}
	if again := f.open(r); again.Site() != other.Site() {
		t.Error("the second pair's directory changed")
	}
	name := filepath.Base(filepath.Dir(other.Site()))
	if third := (protocol.Pair{ProjectID: "a", UserID: strings.TrimPrefix(name, "a-")}); third.Validate() == nil {
		t.Errorf("the pair %s makes the name %s, too", third.Key(), name)
	}
}

// TestPairsHaveUsersOfTheirOwn: the names of two pairs make the same user of the wall
// of users.
func TestPairsHaveUsersOfTheirOwn(t *testing.T) {
	f := setUp(t)
	runner := processtest.Runner(t)
	// A keeper that finds all in order.
	runner.Wall, runner.Setuid = process.WallUsers, []string{"sh", "-c", `cat <&3 >/dev/null & echo '{"ended":true}' >&4`}
	config := workspace.Config{Root: f.root, Runner: runner, Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host}}
	first, second := namesakes(t)
	pairs := map[string]string{}
	for _, user := range []string{first, second, first, second} {
		f.store = workspace.New(config)
		r := f.request("1", "c1")
		r.UserID, r.Dir = user, "amelia-"+user
		pair := f.open(r).Pair()
		if was, ok := pairs[user]; ok && was != pair {
			t.Errorf("the pair of %s was %s, and is %s", user, was, pair)
		}
		pairs[user] = pair
	}
	a, b := pairs[first], pairs[second]
	if a != "amelia#"+first || !strings.HasPrefix(b, "amelia#"+second) || process.UserID(a) == process.UserID(b) {
		t.Errorf("%s and %s have the users %d and %d", a, b, process.UserID(a), process.UserID(b))
	}
}

// namesakes are two users whose pairs with amelia have the same hash.
func namesakes(t *testing.T) (string, string) {
	t.Helper()
	seen := map[int]string{}
	for n := range 1 << 20 {
		user := "user" + strconv.Itoa(n)
		id := process.UserID("amelia#" + user)
		if other, ok := seen[id]; ok {
			return other, user
		}
		seen[id] = user
	}
	t.Fatal("a million pairs have a user each")
	return "", ""
}

func TestAnotherRepositorySetsTheOldOneAside(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "old.txt", "x")
	const kept = "node_modules-x.tar"
	if err := os.WriteFile(filepath.Join(w.Cache(), kept), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := f.request("1", "c2")
	r.RepoURL = f.Create(t, "second.git", map[string]string{"second.txt": "x"})
	w = f.open(r)
	if _, err := os.Stat(filepath.Join(w.Cache(), kept)); err != nil {
		t.Error("the packages that were kept:", err)
	}
	if _, err := os.Stat(filepath.Join(w.Site(), "second.txt")); err != nil {
		t.Error(err)
	}
	if old, _ := filepath.Glob(filepath.Join(f.root, "amelia-scott~aside-*", "site", "old.txt")); len(old) != 1 {
		t.Error("the old workspace is gone")
	}
	r.RepoURL, r.Owner = "", "c3" // later it may be absent
	if w = f.open(r); w.Head() == "" {
		t.Error("not opened without repoUrl")
	}
}

func TestCrashLeftoversHeal(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	dir := filepath.Dir(w.Site())
	for _, lock := range []string{"index.lock", "HEAD.lock", "refs/heads/thread-1.lock"} {
		if err := os.WriteFile(filepath.Join(dir, "worker", "git", lock), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// a checkout cut in the middle: half of another thread's tree
	state := `{"branch":"thread-1","owner":"c1","base":"` + w.Head() + `","switching":true}`
	if err := os.WriteFile(filepath.Join(dir, "worker", "current.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	f.write(w, "half-of-a-checkout.txt", "x")
	w = f.open(f.request("1", "c1"))
	if _, err := os.Stat(filepath.Join(w.Site(), "half-of-a-checkout.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the half checkout is still there")
	}
	// a workspace cut while it was created
	if err := os.MkdirAll(filepath.Join(f.root, "new-scott", "worker", "git"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := f.request("1", "c1")
	r.ProjectID, r.Dir = "new", "new-scott"
	f.open(r)
}

func TestEmptyJob(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	outside := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(w.Job(), "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.Job(), "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.EmptyJob(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(w.Job()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("a link was followed")
	}
}

// The remote is not blamed for a git that the keeper ended since the worker was
// frozen.
func TestFrozenWorker(t *testing.T) {
	f := setUp(t)
	slow := filepath.Join(t.TempDir(), "git")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\ncase \"$*\" in *fetch*) sleep 60;; esac\nexec git \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	runner := processtest.Runner(t)
	runner.Silence, runner.Heartbeat = time.Second, time.Hour
	store := workspace.New(workspace.Config{
		Root: f.root, Runner: runner, Git: slow, Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host},
	})
	_, err := store.Open(t.Context(), f.request("1", "c1"))
	if e, ok := errors.AsType[*workspace.Error](err); ok || !errors.Is(err, process.ErrSilence) {
		t.Errorf("got %v (%v)", err, e)
	}
}

// TestObjectBomb opens a repository with a blob that is small in a pack and large in
// memory, where git has to put it together from another: it is git that ends, and not
// the worker that grows.
func TestObjectBomb(t *testing.T) {
	f := setUp(t)
	const size = 48 << 20
	f.Commit(t, "site.git", "main", "A bomb", map[string]string{"bomb.bin": strings.Repeat("\x00", size)})
	f.Commit(t, "site.git", "main", "Another", map[string]string{"bomb.bin": strings.Repeat("\x00", size-1) + "x"})
	f.remote("-c", "core.bigFileThreshold=1g", "repack", "-a", "-d", "-f", "-q")
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(t), Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host}, GitMemory: size / 2,
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := f.store.Open(t.Context(), f.request("1", "c1"))
	runtime.ReadMemStats(&after)
	e, ok := errors.AsType[*workspace.Error](err)
	if !ok || e.Code != "file_too_large" {
		t.Fatalf("error = %v", err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("the worker took %d MB", grown>>20)
	}
}
