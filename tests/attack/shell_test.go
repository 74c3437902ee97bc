package attack

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// These attacks are not the wall's to stop: they aim at what the worker does with
// what a child has left. So the child here is a shell without a wall that runs the
// instruction. Each attack is shown to work on whoever does the same plainly.

// shell starts a worker whose agent is a shell.
func (w *world) shell(env ...string) *worker {
	w.t.Helper()
	return w.start(append([]string{"AGENT=command", "AGENT_COMMAND=sh", "SANDBOX=off", "MAX_ATTEMPTS=1"}, env...)...)
}

// marker is a file that an attack makes if it works.
func (w *world) marker(name string) string { return filepath.Join(w.tmp(), "marker-"+name) }

// marked reports whether an attack made its marker, and removes it.
func marked(path string) bool { return os.Remove(path) == nil }

// plainly runs a script as an unsuspecting person would, in a directory, as the
// worker's user. What it says is returned.
func (w *world) plainly(dir, script string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "nsenter", "--net=/proc/self/fd/3", "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script)
	cmd.Dir, cmd.ExtraFiles = dir, []*os.File{w.network}
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + w.tmp(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

// plainClone is a checkout that somebody made of a repository, as the worker's
// user.
func (w *world) plainClone(repo string) string {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.tmp(), "plain-")
	w.must(err)
	gitserver.Git(w.t, dir, "clone", "--quiet", w.git.Bare(repo), "site")
	gitserver.Git(w.t, filepath.Join(dir, "site"), "remote", "set-url", "origin", w.front.url(repo))
	if out, err := exec.CommandContext(w.t.Context(), "chown", "-R", "1000:1000", dir).CombinedOutput(); err != nil {
		w.t.Fatalf("%s", out)
	}
	return filepath.Join(dir, "site")
}

// evil is a host of the attacker's. It keeps what it is asked.
type evil struct {
	url      string
	mu       sync.Mutex
	requests []*http.Request
	answer   http.Handler // nil answers 404
}

func (w *world) startEvil(answer http.Handler) *evil {
	w.t.Helper()
	e := &evil{answer: answer}
	s := httptest.NewServer(e)
	w.t.Cleanup(s.Close)
	e.url = s.URL
	return e
}

// ServeHTTP implements http.Handler.
func (e *evil) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.requests = append(e.requests, r.Clone(r.Context()))
	e.mu.Unlock()
	if e.answer == nil {
		http.NotFound(w, r)
		return
	}
	e.answer.ServeHTTP(w, r)
}

// asked returns what came since it was asked last.
func (e *evil) asked() []*http.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.requests
	e.requests = nil
	return all
}

// wantCode fails the test if an answer is not as wanted; an empty code means
// success.
func wantCode(t *testing.T, out protocol.OutputMessage, code string) {
	t.Helper()
	if string(out.ErrorCode) != code || out.Success != (code == "") {
		t.Errorf("%s: success %v, code %q (%s); want %q", out.CommandID, out.Success, out.ErrorCode, strings.TrimSpace(out.Error), code)
	}
}
