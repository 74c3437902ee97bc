// Package gitserver is a real git server for tests: git's own http-backend
// behind a loopback address, with a token, and with faults to order.
package gitserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Token is the password that the server accepts for x-access-token.
const Token = "ghp_test_0123456789abcdefghij"

// Server serves the repositories below Root.
type Server struct {
	URL  string // http://127.0.0.1:port
	Host string // 127.0.0.1:port
	Root string

	backend  http.Handler
	fault    atomic.Pointer[http.Handler]
	token    atomic.Pointer[string]
	mu       sync.Mutex
	accepted map[string]bool // tokens, besides token
	requests []string
}

// Start starts a server that ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := New(tb.Context(), tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(s)
	tb.Cleanup(server.Close)
	s.URL, s.Host = server.URL, strings.TrimPrefix(server.URL, "http://")
	return s
}

// New returns a server of the repositories below root that does not listen yet:
// it is an http.Handler.
func New(ctx context.Context, root string) (*Server, error) {
	out, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, serr := os.Stat(backend); err != nil || serr != nil {
		return nil, fmt.Errorf("git http-backend is missing; apt-get install git (%w)", errors.Join(err, serr))
	}
	s := &Server{Root: root, accepted: map[string]bool{}}
	token := Token
	s.token.Store(&token)
	s.backend = &cgi.Handler{
		Path: backend, Stderr: discard{},
		Env: []string{"GIT_PROJECT_ROOT=" + s.Root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	user, password, _ := r.BasicAuth()
	accepted := password == *s.token.Load() || s.accepted[password]
	s.mu.Unlock()
	if f := s.fault.Load(); f != nil {
		(*f).ServeHTTP(w, r)
		return
	}
	if user != "x-access-token" || !accepted {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	s.backend.ServeHTTP(w, r)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Fault answers every request by h until it is called with nil.
func (s *Server) Fault(h http.Handler) {
	if h == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&h)
}

// SetToken changes the token that is accepted.
func (s *Server) SetToken(token string) { s.token.Store(&token) }

// Accept accepts one more token.
func (s *Server) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted[token] = true
}

// Refuse accepts a token no longer.
func (s *Server) Refuse(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.accepted, token)
}

// Requests returns what was asked so far: method and path.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.requests...)
}

// Create makes a repository whose branch main holds the files, and returns its
// URL.
func (s *Server) Create(tb testing.TB, name string, files map[string]string) string {
	tb.Helper()
	bare := filepath.Join(s.Root, name)
	Git(tb, s.Root, "init", "--quiet", "--bare", "--initial-branch=main", bare)
	Git(tb, bare, "config", "http.receivepack", "true")
	s.Commit(tb, name, "main", "first", files)
	return s.URL + "/" + name
}

// Commit adds a commit to a branch as somebody else would. An empty content
// removes the file.
func (s *Server) Commit(tb testing.TB, name, branch, message string, files map[string]string) string {
	tb.Helper()
	bare, work := filepath.Join(s.Root, name), tb.TempDir()
	Git(tb, work, "clone", "--quiet", bare, ".")
	if out := Git(tb, work, "branch", "--remotes", "--list", "origin/"+branch); out != "" {
		Git(tb, work, "checkout", "--quiet", branch)
	} else {
		Git(tb, work, "checkout", "--quiet", "-B", branch)
	}
	for file, content := range files {
		path := filepath.Join(work, file)
		if content == "" {
			if err := os.Remove(path); err != nil {
				tb.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	Git(tb, work, "add", "--all")
	Git(tb, work, "-c", "user.name=Other", "-c", "user.email=other@example.com", "commit", "--quiet", "--allow-empty", "-m", message)
	Git(tb, work, "push", "--quiet", "origin", "HEAD:refs/heads/"+branch)
	return Git(tb, work, "rev-parse", "HEAD")
}

// Bare is the path of a repository on the server.
func (s *Server) Bare(name string) string { return filepath.Join(s.Root, name) }

// Git runs git in a directory and returns its output, trimmed.
func Git(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
