package workspace_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// evil is a configuration by which git runs commands and goes elsewhere. Each of
// them leaves a proof.
func evil(proof string) string {
	return fmt.Sprintf(`[core]
	fsmonitor = touch %[1]s
	hooksPath = hooks
	sshCommand = touch %[1]s
	pager = touch %[1]s
[filter "x"]
	clean = touch %[1]s; cat
	smudge = touch %[1]s; cat
	process = touch %[1]s
	required = true
[merge "x"]
	driver = touch %[1]s
[diff "x"]
	textconv = touch %[1]s
	command = touch %[1]s
[credential]
	helper = "!touch %[1]s"
[http]
	proxy = http://127.0.0.1:1
[url "http://127.0.0.1:1/"]
	insteadOf = http
[submodule "x"]
	update = "!touch %[1]s"
	url = ext::touch %[1]s
`, proof)
}

const evilAttributes = "* filter=x merge=x diff=x ident text eol=crlf\n"

// hostile is a fixture with a place where nothing may appear.
type hostile struct {
	*fixture
	proof string
}

func setUpHostile(t *testing.T) hostile {
	t.Helper()
	return hostile{setUp(t), filepath.Join(t.TempDir(), "proof")}
}

// unharmed commits, pushes, and goes on in another thread.
func (h hostile) unharmed(w *workspace.Workspace, want ...string) {
	h.t.Helper()
	c := h.commit(w, "a")
	if d := cmp.Diff(want, c.Files); d != "" {
		h.t.Errorf("files (-want +got):\n%s", d)
	}
	h.push(w, c.SHA)
	h.write(w, "late.txt", "x")
	h.open(h.request("next", "next"))
	if h.exists(h.proof) {
		h.t.Error("a planted command was run")
	}
	if got := h.remote("rev-parse", w.Branch()+"^"); got != c.SHA {
		h.t.Errorf("the remote has %s; want %s and what was left", got, c.SHA)
	}
}

// gitlink makes a commit on the remote's main that records a repository in a
// directory.
func (h hostile) gitlink(at string) {
	h.t.Helper()
	nested, work := h.t.TempDir(), h.t.TempDir()
	gitserver.Git(h.t, nested, "init", "--quiet")
	gitserver.Git(h.t, nested, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--allow-empty", "-m", "x")
	inner := gitserver.Git(h.t, nested, "rev-parse", "HEAD")
	gitserver.Git(h.t, work, "clone", "--quiet", h.Bare("site.git"), ".")
	gitserver.Git(h.t, work, "update-index", "--add", "--cacheinfo", "160000,"+inner+","+at)
	gitserver.Git(h.t, work, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "x")
	gitserver.Git(h.t, work, "push", "--quiet", "origin", "HEAD:main")
}

// nest makes a repository below the checkout, with a changed file that git would
// give to a filter to see whether it has changed.
func (h hostile) nest(w *workspace.Workspace, at string) {
	h.t.Helper()
	dir := filepath.Join(w.Site(), at)
	h.write(w, at+"/file.txt", "one")
	gitserver.Git(h.t, dir, "init", "--quiet")
	gitserver.Git(h.t, dir, "add", ".")
	gitserver.Git(h.t, dir, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "x")
	h.write(w, at+"/file.txt", "two")
	h.write(w, at+"/.gitattributes", evilAttributes)
	h.write(w, at+"/.git/config", "[core]\n\trepositoryformatversion = 0\n"+evil(h.proof))
	h.write(w, at+"/.git/hooks/post-index-change", "#!/bin/sh\ntouch "+h.proof)
	if err := os.Chmod(filepath.Join(dir, ".git/hooks/post-index-change"), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

func TestNestedRepositoryRunsNothing(t *testing.T) {
	h := setUpHostile(t)
	w := h.open(h.request("1", "c1"))
	h.nest(w, "sub/deep")
	h.unharmed(w, "sub/deep/.gitattributes", "sub/deep/file.txt")
}

func TestNestedRepositoryElsewhereRunsNothing(t *testing.T) {
	for name, plant := range map[string]func(elsewhere, at string) error{
		"file": func(elsewhere, at string) error { return os.WriteFile(at, []byte("gitdir: "+elsewhere+"\n"), 0o600) },
		"link": os.Symlink,
	} {
		t.Run(name, func(t *testing.T) {
			h := setUpHostile(t)
			w := h.open(h.request("1", "c1"))
			h.nest(w, "sub")
			elsewhere := filepath.Join(t.TempDir(), "git")
			if err := errors.Join(os.Rename(filepath.Join(w.Site(), "sub/.git"), elsewhere), plant(elsewhere, filepath.Join(w.Site(), "sub/.git"))); err != nil {
				t.Fatal(err)
			}
			h.unharmed(w, "sub/.gitattributes", "sub/file.txt")
			if !h.exists(elsewhere, "config") {
				t.Error("what a link pointed to was removed")
			}
		})
	}
}

// TestRecordedRepositoryRunsNothing: where git has recorded a repository, it starts
// itself in there to see whether that changed, also in node_modules.
func TestRecordedRepositoryRunsNothing(t *testing.T) {
	for _, at := range []string{"node_modules/x", "sub"} {
		t.Run(at, func(t *testing.T) {
			h := setUpHostile(t)
			h.gitlink(at)
			w := h.open(h.request("1", "c1"))
			h.nest(w, at)
			h.write(w, "a.txt", "x")
			h.unharmed(w, "a.txt")
		})
	}
}

// TestIgnoredRepositoryRunsNothing is the same, begun by the agent.
func TestIgnoredRepositoryRunsNothing(t *testing.T) {
	h := setUpHostile(t)
	w := h.open(h.request("1", "c1"))
	h.write(w, ".gitignore", "!node_modules\n!dist\n")
	h.nest(w, "node_modules/x")
	h.commit(w, "a")
	w = h.open(h.request("1", "c2"))
	h.nest(w, "node_modules/x")
	h.write(w, "a.txt", "x")
	h.unharmed(w, "a.txt")
}

// TestModulesAreInert: no repository that another one names is fetched.
func TestModulesAreInert(t *testing.T) {
	h := setUpHostile(t)
	h.gitlink("theme")
	h.Commit(t, "site.git", "main", "modules", map[string]string{
		".gitmodules": "[submodule \"theme\"]\n\tpath = theme\n\turl = --upload-pack=touch " + h.proof + "\n\tupdate = !touch " + h.proof +
			"\n\tfetchRecurseSubmodules = true\n\tignore = none\n[fetch]\n\trecurseSubmodules = true\n",
	})
	w := h.open(h.request("1", "c1"))
	if left, err := os.ReadDir(filepath.Join(w.Site(), "theme")); err != nil || len(left) > 0 {
		t.Errorf("theme holds %v, %v", left, err)
	}
	h.write(w, "a.txt", "x")
	h.unharmed(w, "a.txt")
}

// TestAttributesAreInert: what is committed is what lies there, and an encoding that
// does not fit keeps nothing from being saved.
func TestAttributesAreInert(t *testing.T) {
	h := setUpHostile(t)
	h.Commit(t, "site.git", "main", "attributes", map[string]string{".gitattributes": evilAttributes, "unix.txt": "one\ntwo\n$Id$\n"})
	w := h.open(h.request("1", "c1"))
	if got, err := os.ReadFile(filepath.Join(w.Site(), "unix.txt")); err != nil || string(got) != "one\ntwo\n$Id$\n" {
		t.Errorf("checked out: %q, %v", got, err)
	}
	h.write(w, "a.txt", "ä\r\n$Id: x $\n")
	h.write(w, "sub/.gitattributes", "* working-tree-encoding=UTF-16\n")
	h.write(w, "sub/b.txt", "x")
	h.unharmed(w, "a.txt", "sub/.gitattributes", "sub/b.txt")
	if got := h.remote("show", "thread-1:a.txt"); got != "ä\r\n$Id: x $" {
		t.Errorf("committed: %q", got)
	}
}

// TestForeignConfigurationIsInert: that of the user, of the checkout, and one that
// was planted in our own repository.
func TestForeignConfigurationIsInert(t *testing.T) {
	h := setUpHostile(t)
	home := t.TempDir()
	for _, name := range []string{".gitconfig", "git/config"} {
		path := filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(evil(h.proof)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	h.store = workspace.New(workspace.Config{
		Root: h.root, Runner: processtest.Runner(t), Token: gitserver.Token, AllowedHosts: []string{h.Host},
		Env: process.With(processtest.Env(t), "HOME="+home, "XDG_CONFIG_HOME="+home, "GIT_CONFIG="+home+"/.gitconfig", "GIT_CONFIG_PARAMETERS='core.fsmonitor=touch "+h.proof+"'"),
	})
	w := h.open(h.request("1", "c1"))
	for _, name := range []string{"config", "config.worktree"} {
		if err := os.WriteFile(filepath.Join(h.dir(), "worker/git", name), []byte(evil(h.proof)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.write(w, ".gitattributes", evilAttributes)
	h.write(w, ".git/config", evil(h.proof))
	h.write(w, ".git/info/attributes", evilAttributes)
	h.write(w, "a.txt", "x")
	h.unharmed(w, ".gitattributes", "a.txt")
}

// TestUnfitFilesAreLeftOut: what git does not take keeps nothing else from being
// saved, nor the project from being used.
func TestUnfitFilesAreLeftOut(t *testing.T) {
	h := setUpHostile(t)
	w := h.open(h.request("1", "c1"))
	h.write(w, ".GIT/config", "x")
	h.write(w, "sub/.Git/hooks/x", "x")
	h.write(w, "a.txt", "x")
	c := h.commit(w, "a")
	if d := cmp.Diff([]string{"a.txt"}, c.Files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{".GIT/config", "sub/.Git/hooks/x"}, c.Left); d != "" {
		t.Errorf("left out (-want +got):\n%s", d)
	}
	h.write(w, "b.txt", "x")
	h.open(h.request("2", "c2"))
	if got := h.remote("show", "thread-1:b.txt"); got != "x" {
		t.Errorf("the leftover is %q", got)
	}
}

func TestWorkflowsAreLeftOutHoweverTheyChange(t *testing.T) {
	const one, two = ".github/workflows/one.yml", ".github/workflows/sub/two.yml"
	tests := map[string]struct {
		change func(site string) error
		left   []string
		files  []string
	}{
		"changed": {func(site string) error { return os.WriteFile(filepath.Join(site, one), []byte("evil"), 0o600) }, []string{one}, nil},
		"deleted": {func(site string) error { return os.RemoveAll(filepath.Join(site, ".github")) }, []string{one, two}, []string{".github/other.yml"}},
		"renamed": {
			func(site string) error { return os.Rename(filepath.Join(site, one), filepath.Join(site, "one.yml")) },
			[]string{one},
			[]string{"one.yml"},
		},
		"moved here": {
			func(site string) error {
				return os.Rename(filepath.Join(site, "style.css"), filepath.Join(site, ".github/workflows/three.yml"))
			},
			[]string{".github/workflows/three.yml"},
			[]string{"style.css"},
		},
		"in another case": {
			func(site string) error {
				return errors.Join(os.MkdirAll(filepath.Join(site, ".GitHub/WorkFlows"), 0o700), os.WriteFile(filepath.Join(site, ".GitHub/WorkFlows/x.yml"), []byte("evil"), 0o600))
			},
			[]string{".GitHub/WorkFlows/x.yml"},
			nil,
		},
		"a link": {
			func(site string) error {
				dir := filepath.Join(site, ".github/workflows")
				return errors.Join(os.Rename(dir, filepath.Join(site, "flows")), os.Symlink("../flows", dir))
			},
			[]string{".github/workflows", one, two},
			[]string{"flows/one.yml", "flows/sub/two.yml"},
		},
		"a link above": {
			func(site string) error {
				return errors.Join(os.Rename(filepath.Join(site, ".github"), filepath.Join(site, "x")), os.Symlink("x", filepath.Join(site, ".github")))
			},
			[]string{one, two},
			[]string{".github/other.yml", "x/other.yml", "x/workflows/one.yml", "x/workflows/sub/two.yml"},
		},
		"a file": {
			func(site string) error {
				dir := filepath.Join(site, ".github/workflows")
				return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("x"), 0o600))
			},
			[]string{".github/workflows", one, two},
			nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			f.Commit(t, "site.git", "main", "flows", map[string]string{one: "good", two: "good", ".github/other.yml": "x"})
			w := f.open(f.request("1", "c1"))
			if err := tt.change(w.Site()); err != nil {
				t.Fatal(err)
			}
			f.write(w, "zz.txt", "x")
			c := f.commit(w, "a")
			if d := cmp.Diff(tt.left, c.Left); d != "" {
				t.Errorf("left out (-want +got):\n%s", d)
			}
			if d := cmp.Diff(append(slices.Clone(tt.files), "zz.txt"), c.Files); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			f.push(w, c.SHA)
			if got := f.remote("show", "thread-1:"+one) + f.remote("show", "thread-1:"+two); got != "goodgood" {
				t.Errorf("the workflows are %q", got)
			}
		})
	}
}

// TestReplacedDirectories: a child that can write to the pair's directory may put
// something else in the place of the checkout, or of what lies beside it.
func TestReplacedDirectories(t *testing.T) {
	for name, plant := range map[string]func(outside, at string) error{
		"link":    os.Symlink,
		"file":    func(_, at string) error { return os.WriteFile(at, []byte("x"), 0o600) },
		"pipe":    func(_, at string) error { return syscall.Mkfifo(at, 0o600) },
		"nothing": func(string, string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := setUpHostile(t)
			w := h.open(h.request("1", "c1"))
			head := w.Head()
			outside := t.TempDir()
			if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{w.Site(), w.Job(), w.Downloads()} {
				if err := errors.Join(os.RemoveAll(dir), plant(outside, dir)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x")}); err == nil || w.Intact() == nil {
				t.Error("it is used as the checkout")
			}
			w = h.open(h.request("1", "c1"))
			if err := w.EmptyJob(); err != nil {
				t.Error(err)
			}
			if !h.exists(w.Site(), "index.html") || w.Intact() != nil || w.Head() != head {
				t.Error("the checkout was not made again")
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
				t.Errorf("outside lies %v, %v", left, err)
			}
			if got := h.remote("branch", "--list", "thread-1"); got != "" {
				t.Errorf("what was not there was committed: %s", got)
			}
		})
	}
}

// TestOutputIsBounded: names of files are foreign, too.
func TestOutputIsBounded(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "x")
	talkative := filepath.Join(t.TempDir(), "git")
	script := "#!/bin/sh\ncase \"$*\" in *--others*) yes | head -c 40000000; exit;; esac\nexec git \"$@\"\n"
	if err := os.WriteFile(talkative, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(t), Git: talkative, Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host},
	})
	w = f.open(f.request("1", "c1"))
	_, err := w.Commit(t.Context(), workspace.CommitRequest{Message: message("x")})
	f.wantCode(err, "file_too_large")
	f.open(f.request("2", "c2")) // whoever comes next is not to blame for it
}

func TestHistory(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	history := func(w *workspace.Workspace) []string {
		t.Helper()
		lines, err := w.History(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range lines {
			lines[i] = line[len("2006-01-02 "):]
		}
		return lines
	}
	if got := history(w); got != nil {
		t.Errorf("of nothing: %q", got)
	}
	f.write(w, "a.txt", "a")
	c, err := w.Commit(t.Context(), workspace.CommitRequest{Message: func([]string) string { return "Make it blue\n\nCommand-Id: c1\n" }})
	if err != nil {
		t.Fatal(err)
	}
	f.push(w, c.SHA)
	f.Commit(t, "site.git", "thread-1", "By hand", map[string]string{"b.txt": "b"})
	f.Commit(t, "site.git", "main", "Not of this thread", map[string]string{"c.txt": "c"})
	w = f.open(f.request("1", "c2"))
	if d := cmp.Diff([]string{"By hand", "Make it blue (command c1)"}, history(w)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for i := range 30 {
		f.write(w, "a.txt", strconv.Itoa(i))
		f.commit(w, "change "+strconv.Itoa(i))
	}
	if got := history(w); len(got) != 21 || got[0] != "change 29" {
		t.Errorf("%d lines: %q", len(got), got)
	}
}

// memory is the largest that this process has been since it was reset, and the
// largest that a child was, in bytes.
func memory(t *testing.T) (own, child int64) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	kilobytes, err := strconv.ParseInt(strings.Fields(string(rest))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10, usage.Maxrss << 10
}

// TestLargeBlobTakesNoMemory: 400 MB of nothing, which is small on its way. It runs in
// a process of its own: the kernel counts a child as large as its parent once was.
func TestLargeBlobTakesNoMemory(t *testing.T) {
	if os.Getenv("ALONE") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "ALONE=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !bytes.Contains(out, []byte("PASS: "+t.Name())) {
			t.Error(err)
		}
		return
	}
	f := setUp(t)
	work := t.TempDir()
	gitserver.Git(t, f.Bare("site.git"), "config", "core.bigFileThreshold", "1m")
	gitserver.Git(t, work, "clone", "--quiet", f.Bare("site.git"), ".")
	big := filepath.Join(work, "big.bin")
	if err := errors.Join(os.WriteFile(big, nil, 0o600), os.Truncate(big, 400<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "."}, {"-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "big"}, {"push", "--quiet", "origin", "HEAD:main"}} {
		gitserver.Git(t, work, append([]string{"-c", "core.bigFileThreshold=1m", "-c", "core.compression=1"}, args...)...)
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := memory(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "a.txt", "x")
	f.push(w, f.commit(w, "a").SHA)
	own, child := memory(t)
	t.Logf("worker %d MB and %d MB more, its largest child %d MB", before>>20, (own-before)>>20, child>>20)
	if own-before > 64<<20 {
		t.Errorf("the worker took %d MB", (own-before)>>20)
	}
	if child > 300<<20 {
		t.Errorf("a child took %d MB", child>>20)
	}
	if info, err := os.Stat(filepath.Join(w.Site(), "big.bin")); err != nil || info.Size() != 400<<20 {
		t.Errorf("checked out: %v, %v", info, err)
	}
}

// TestEndlessListIsCut: a remote may go on telling its branches for ever.
func TestEndlessListIsCut(t *testing.T) {
	f := setUp(t)
	f.Fault(endlessRefs{})
	_, err := f.store.Open(t.Context(), f.request("1", "c1"))
	f.wantCode(err, "repo_unreachable")
	if errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

type endlessRefs struct{}

// ServeHTTP implements http.Handler.
func (endlessRefs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pkt := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	sha := strings.Repeat("1", 40)
	body := pkt("# service=git-upload-pack\n") + "0000" + pkt(sha+" HEAD\x00symref=HEAD:refs/heads/main\n")
	for i := 0; r.Context().Err() == nil; i++ {
		if _, err := io.WriteString(w, body); err != nil {
			return
		}
		body = pkt(fmt.Sprintf("%s refs/heads/%s%09d\n", sha, strings.Repeat("x", 200), i))
	}
}
