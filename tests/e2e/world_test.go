package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/examples"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
	"github.com/webordinary/claude-code-container/tests/program"
)

const (
	repoName = "bakery.git"
	apiKey   = "sk-ant-test-0123456789abcdef"
	patience = 3 * time.Minute // for an answer: npm and the machine decide
)

// world is all that is around the worker.
type world struct {
	git   *gitserver.Server
	model *Server
	repo  string // URL
	dir   string // of the worker
	env   []string
	as    []string // the words before the worker's program that make it another user
}

// newWorld is a world whose worker has kept the site's packages: its project has
// moved to the repository from another one.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := coldWorld(t)
	cache := w.cache()
	owner := filepath.Join(filepath.Dir(cache), "owner.json")
	if err := errors.Join(
		os.MkdirAll(cache, 0o750), os.CopyFS(cache, os.DirFS(keptPackages(t))),
		os.WriteFile(owner, []byte(`{"projectId":"amelia","userId":"scott","repoUrl":"https://moved.invalid/site.git"}`), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return w
}

// cache is where the worker keeps what it may lose.
func (w *world) cache() string {
	return filepath.Join(w.dir, "workspace", "amelia-scott", "worker", "cache")
}

var keep struct {
	once sync.Once
	dir  string
}

// keptPackages is a directory with the site's packages, as the first worker to be
// asked kept them.
func keptPackages(t *testing.T) string {
	t.Helper()
	keep.once.Do(func() {
		w := coldWorld(t)
		w.model.Play("look", Say("Looked."))
		p := w.start(t)
		if out := p.do(w.message("t-1", "c-1", "look")); !out.Success {
			t.Fatalf("answer %+v", out)
		}
		p.finish()
		kept, err := filepath.Glob(filepath.Join(w.cache(), "node_modules-*.tar"))
		if err != nil || len(kept) != 1 {
			t.Fatalf("the worker kept %v, %v; want one tree of packages", kept, err)
		}
		dir := filepath.Join(programs.dir, "packages")
		if err := errors.Join(os.Mkdir(dir, 0o750), os.Rename(kept[0], filepath.Join(dir, filepath.Base(kept[0])))); err != nil {
			t.Fatal(err)
		}
		keep.dir = dir
	})
	if keep.dir == "" {
		t.Fatal("no packages were kept")
	}
	return keep.dir
}

// coldWorld is a world whose worker has to have npm fetch all packages.
func coldWorld(t *testing.T) *world {
	t.Helper()
	w := &world{git: gitserver.Start(t), model: Start(t), dir: filepath.Join(t.TempDir(), "demo")}
	files := map[string]string{}
	site, err := fs.Sub(examples.Site, "site")
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(site, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := fs.ReadFile(site, name)
		files[name] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.repo = w.git.Create(t, repoName, files)
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(),
		"ALLOWED_REPO_HOSTS=" + w.git.Host, "GITHUB_TOKEN=" + gitserver.Token,
		"ANTHROPIC_BASE_URL=" + w.model.URL(), "ANTHROPIC_API_KEY=" + apiKey, "CLAUDE_PATH=" + programs.claude,
		"LOG_LEVEL=debug",
	}
	for _, name := range []string{"npm_config_registry", "NPM_CONFIG_REGISTRY", "NODE_EXTRA_CA_CERTS", "npm_config_cafile"} {
		if v := os.Getenv(name); v != "" {
			w.env = append(w.env, name+"="+v)
		}
	}
	return w
}

// unprivileged makes the worker a user that is not root, beside a keeper that is
// installed setuid for it, and returns its program.
func (w *world) unprivileged(t *testing.T) string {
	t.Helper()
	u := processtest.NewUsers(t)
	binary := filepath.Join(filepath.Dir(u.Keeper), "webordinary")
	u.Install(t, programs.binary, binary, 0o755)
	// In a container of its own, so that its keeper ends nobody else's amelia.
	w.as = append([]string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}, processtest.As(processtest.WorkerID)...)
	w.dir = filepath.Join(u.Dir, "demo")
	w.env = process.With(w.env, "HOME="+u.Mkdir(t, "home", 0o700), "TMPDIR="+u.Mkdir(t, "tmp", 0o755))
	return binary
}

// message is an InputMessage of amelia and scott with the fields that tests vary.
func (w *world) message(thread, command, instruction string) map[string]any {
	return map[string]any{
		"type": "work", "sessionId": "session-1", "projectId": "amelia", "userId": "scott", "repoUrl": w.repo,
		"threadId": thread, "commandId": command, "instruction": instruction, "timestamp": time.Now().UnixMilli(),
	}
}

// worker is a running `demo --stdin`.
type worker struct {
	t       *testing.T
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan []byte
	ended   chan error
	stderr  program.Output
}

func (w *world) start(t *testing.T, env ...string) *worker {
	t.Helper()
	return w.startBinary(t, programs.binary, env...)
}

func (w *world) startBinary(t *testing.T, binary string, env ...string) *worker {
	t.Helper()
	p := &worker{t: t, answers: make(chan []byte, 100), ended: make(chan error, 1)}
	words := append(append([]string{}, w.as...), binary, "demo", "--stdin", "--dir", w.dir)
	p.cmd = exec.CommandContext(t.Context(), words[0], words[1:]...)
	p.cmd.Env = append(append([]string{}, w.env...), env...)
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = time.Second
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		in := bufio.NewReader(stdout)
		for {
			line, err := in.ReadBytes('\n')
			if len(line) > 0 {
				p.answers <- line
			}
			if err != nil {
				break
			}
		}
		close(p.answers)
		p.ended <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("what the worker said:\n%s", p.said())
			t.Logf("its log:\n%s", program.Tail(filepath.Join(w.dir, "log.jsonl"), 6000))
		}
	})
	return p
}

func (p *worker) said() string { return p.stderr.String() }

// send sends messages, one JSON object a line. A string is sent as it is.
func (p *worker) send(messages ...any) {
	p.t.Helper()
	for _, m := range messages {
		line, raw := m.(string)
		if !raw {
			b, err := json.Marshal(m)
			if err != nil {
				p.t.Fatal(err)
			}
			line = string(b)
		}
		if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
}

// raw waits for the next answer's bytes.
func (p *worker) raw() []byte {
	p.t.Helper()
	select {
	case line, ok := <-p.answers:
		if !ok {
			p.t.Fatal("the worker ended without an answer")
		}
		return line
	case <-time.After(patience):
		p.t.Fatalf("no answer after %v", patience)
	}
	return nil
}

// answer waits for the next answer.
func (p *worker) answer() protocol.OutputMessage {
	p.t.Helper()
	var out protocol.OutputMessage
	if err := json.Unmarshal(p.raw(), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// do sends one message and waits for its answer.
func (p *worker) do(m map[string]any) protocol.OutputMessage {
	p.t.Helper()
	p.send(m)
	out := p.answer()
	if out.CommandID != m["commandId"] {
		p.t.Fatalf("an answer for %q, want one for %q", out.CommandID, m["commandId"])
	}
	return out
}

// finish ends the input and waits until everything sent is worked off.
func (p *worker) finish() {
	p.t.Helper()
	if err := p.stdin.Close(); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Fatalf("the worker ended with %v", err)
		}
		p.ended <- nil
	case <-time.After(patience):
		p.t.Fatal("the worker does not end")
	}
	if line, more := <-p.answers; more {
		p.t.Fatalf("an answer too many: %s", line)
	}
}

// kill ends the worker as a crash would, and waits.
func (p *worker) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	err := <-p.ended
	p.ended <- err
}

// killed waits until the worker ended itself by SIGKILL.
func (p *worker) killed() {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			p.t.Fatalf("the worker ended with %v, want SIGKILL", err)
		}
	case <-time.After(patience):
		p.t.Fatal("the worker was not killed")
	}
}

// page returns the live site's first page; empty if there is none.
func (w *world) page() string {
	b, err := os.ReadFile(filepath.Join(w.dir, "sites", "edit.amelia.webordinary.com", "index.html"))
	if err != nil {
		return ""
	}
	return string(b)
}

// log returns the subjects of a branch's commits since main, newest first.
func (w *world) log(t *testing.T, branch string) []string {
	t.Helper()
	out := gitserver.Git(t, w.git.Bare(repoName), "log", "--format=%s", "main.."+branch)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

func (w *world) head(t *testing.T, branch string) string {
	t.Helper()
	return gitserver.Git(t, w.git.Bare(repoName), "rev-parse", branch)
}

// commitMessage returns a commit's author, message and trailers.
func (w *world) commitMessage(t *testing.T, sha string) string {
	t.Helper()
	return gitserver.Git(t, w.git.Bare(repoName), "log", "-1", "--format=%an <%ae>%n%B", sha)
}
