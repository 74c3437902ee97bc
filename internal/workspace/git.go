package workspace

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5/osfs"
	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/webordinary/claude-code-container/internal/process"
)

// gitError is a git program that failed.
type gitError struct {
	command string
	stderr  string
	err     error
}

func (e *gitError) Error() string {
	return fmt.Sprintf("git %s: %v: %s", e.command, e.err, strings.TrimSpace(e.stderr))
}

func (e *gitError) Unwrap() error { return e.err }

// exitCode is the code of a git program that ran and failed, else -1.
func exitCode(err error) int {
	if e, ok := errors.AsType[*process.ExitError](err); ok {
		return e.Result.ExitCode
	}
	return -1
}

// git runs the git program on the repository and the checkout, and returns its
// standard output.
func (w *Workspace) git(ctx context.Context, args ...string) (string, error) {
	return w.gitRun(ctx, gitCall{}, args...)
}

// maxOutput bounds what a git program may say, in bytes. It is far more than the
// names of all files of a site.
const maxOutput = 32 << 20

func (w *Workspace) gitWith(ctx context.Context, settings []string, args ...string) (string, error) {
	return w.gitRun(ctx, gitCall{settings: settings}, args...)
}

// gitCall is what a call of git has besides its arguments.
type gitCall struct {
	settings []string // of its configuration, each followed by its value
	stdin    string
}

func (w *Workspace) gitRun(ctx context.Context, call gitCall, args ...string) (string, error) {
	if err := errors.Join(w.check(), w.Intact()); err != nil {
		return "", err
	}
	stdout := output{max: maxOutput}
	stderr := process.Tail{Max: 4096}
	all := append([]string{"--git-dir=" + w.gitDir(), "--work-tree=" + w.Site()}, args...)
	_, err := w.store.config.Runner.Run(ctx, process.Command{
		Path: w.store.config.Git, Args: all, Dir: filepath.Join(w.dir, "worker"), Env: w.gitEnv(call.settings),
		Stdin: strings.NewReader(call.stdin), Stdout: &stdout, Stderr: &stderr,
		MemoryLimit: w.store.config.GitMemory, CPULimit: w.store.config.GitTime,
	})
	if err == nil && stdout.over {
		err = errTooMuch
	}
	if err != nil && ctx.Err() == nil {
		err = &gitError{command: args[0], stderr: stderr.String(), err: err}
		if strings.Contains(stderr.String(), "ut of memory") {
			reason := fmt.Sprintf("the repository holds something that takes git more than %d MB of memory", w.store.config.GitMemory>>20)
			err = &Error{Code: "file_too_large", Reason: reason, Err: err}
		}
		if wasTooLong(err, stderr.String()) {
			err = fmt.Errorf("%w: %w", errTooLong, err)
		}
	}
	return stdout.kept.String(), err
}

// errTooMuch says that git names more files than a site can have.
var errTooMuch = &Error{Code: "file_too_large", Reason: "too many files were changed to be committed at once"}

// errTooLong says that a git program was ended for the time it took. A few patterns in
// .gitignore are enough, as git tries each way in which they may fit a path.
var errTooLong = &Error{Code: "file_too_large", Reason: "the repository holds something that takes git too long, such as patterns in .gitignore with many stars"}

// wasTooLong reports whether git, or a program that it had started, was ended so.
func wasTooLong(err error, stderr string) bool {
	e, ok := errors.AsType[*process.ExitError](err)
	return ok && (e.Result.Signal == syscall.SIGXCPU || strings.Contains(stderr, "died of signal "+strconv.Itoa(int(syscall.SIGXCPU))))
}

// output keeps what is written to it, up to a bound, and takes the rest too.
type output struct {
	kept bytes.Buffer // not embedded: it would read by itself, and all there is
	max  int
	over bool
}

// Write implements io.Writer; it never fails.
func (o *output) Write(p []byte) (int, error) {
	room := o.max - o.kept.Len()
	o.over = o.over || len(p) > room
	o.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}

// gitEnv makes git deaf to everything but us: no configuration of system, user
// or repository, no hooks, helpers, monitors, filters, prompts or redirects.
func (w *Workspace) gitEnv(settings []string) []string {
	settings = append([]string{
		"core.hooksPath", "/dev/null",
		"core.fsmonitor", "false",
		"core.attributesFile", "/dev/null",
		"core.quotePath", "false",
		"credential.helper", "",
		"http.followRedirects", "false",
		"submodule.recurse", "false",
		"fetch.recurseSubmodules", "false",
		"push.recurseSubmodules", "no",
		"diff.ignoreSubmodules", "all",
		"gc.auto", "0",
		// What is larger is streamed, and not held in memory.
		"core.bigFileThreshold", "16m",
		"core.packedGitWindowSize", "16m",
		"core.packedGitLimit", "128m",
		"core.deltaBaseCacheLimit", "32m",
		"pack.windowMemory", "32m",
		"pack.deltaCacheSize", "32m",
		"pack.threads", "1",
		"advice.addEmbeddedRepo", "false",
		"safe.directory", "*",
	}, settings...)
	set := []string{
		"HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_PARAMETERS=", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "GIT_NO_REPLACE_OBJECTS=1", "GIT_LITERAL_PATHSPECS=1",
		"GIT_ALLOW_PROTOCOL=" + w.scheme(),
		"GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings)/2),
	}
	if w.index != "" {
		set = append(set, "GIT_INDEX_FILE="+w.index)
	}
	for i := 0; i < len(settings); i += 2 {
		n := strconv.Itoa(i / 2)
		set = append(set, "GIT_CONFIG_KEY_"+n+"="+settings[i], "GIT_CONFIG_VALUE_"+n+"="+settings[i+1])
	}
	return process.With(w.store.config.Env, set...)
}

func (w *Workspace) scheme() string {
	scheme, _, ok := strings.Cut(w.url, "://")
	if !ok {
		return "none"
	}
	return scheme
}

// mayHaveToken reports whether the remote may be sent our credential.
func (w *Workspace) mayHaveToken() bool {
	u, err := url.Parse(w.url)
	if err != nil || w.store.config.Token == "" || u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	for _, h := range w.store.config.AllowedHosts {
		if strings.EqualFold(h, u.Host) {
			return true
		}
	}
	return false
}

func (w *Workspace) auth() transport.AuthMethod {
	if !w.mayHaveToken() {
		return nil
	}
	return &githttp.BasicAuth{Username: "x-access-token", Password: w.store.config.Token}
}

// header gives the git program the credential for this remote only.
func (w *Workspace) header() []string {
	if !w.mayHaveToken() {
		return nil
	}
	secret := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + w.store.config.Token))
	return []string{"http." + w.url + ".extraHeader", "Authorization: Basic " + secret}
}

// repository opens the bare repository with go-git.
func (w *Workspace) repository() (*git.Repository, error) {
	storer := filesystem.NewStorageWithOptions(osfs.New(w.gitDir(), osfs.WithBoundOS()), cache.NewObjectLRUDefault(), filesystem.Options{KeepDescriptors: false})
	r, err := git.Open(objectStore{storer}, nil)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return r, nil
}

func headRef(branch string) plumbing.ReferenceName { return plumbing.NewBranchReferenceName(branch) }

// setRef moves a branch of the bare repository.
func (w *Workspace) setRef(branch, sha string) error {
	if err := w.check(); err != nil {
		return err
	}
	r, err := w.repository()
	if err != nil {
		return err
	}
	if err := r.Storer.SetReference(plumbing.NewHashReference(headRef(branch), plumbing.NewHash(sha))); err != nil {
		return fmt.Errorf("move %s: %w", branch, err)
	}
	return nil
}

// refs asks the remote for its branches.
func (w *Workspace) refs(ctx context.Context) (map[string]string, string, error) {
	remote := git.NewRemote(nil, &config.RemoteConfig{Name: "remote", URLs: []string{w.url}})
	list, err := remote.ListContext(ctx, &git.ListOptions{Auth: w.auth()})
	if err != nil {
		return nil, "", w.remoteError(ctx, err)
	}
	branches, start := map[string]string{}, ""
	for _, ref := range list {
		switch {
		case ref.Name() == plumbing.HEAD && ref.Type() == plumbing.SymbolicReference:
			start = ref.Target().Short()
		case ref.Name().IsBranch():
			branches[ref.Name().Short()] = ref.Hash().String()
		}
	}
	return branches, start, nil
}

// remoteError says in the platform's words why the remote did not serve us.
func (w *Workspace) remoteError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, process.ErrSilence) || errors.Is(err, ErrTaken) {
		return err // the remote has nothing to do with it
	}
	if own, ok := errors.AsType[*Error](err); ok {
		return own // as above
	}
	text := err.Error()
	host := "the repository's host"
	if u, perr := url.Parse(w.url); perr == nil && u.Host != "" {
		host = u.Host
	}
	denied := errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) ||
		strings.Contains(text, " 401") || strings.Contains(text, " 403") || strings.Contains(text, "could not read Username") ||
		strings.Contains(text, "Authentication failed")
	switch {
	case denied:
		return &Error{Code: "repo_auth", Reason: host + " refused our credential; check GITHUB_TOKEN and its rights on the repository", Err: err}
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return &Error{Code: "repo_unreachable", Reason: "the repository has no commit yet; push a first one", Err: err}
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return &Error{Code: "repo_unreachable", Reason: host + " knows no such repository, or does not show it to us", Err: err}
	}
	return &Error{Code: "repo_unreachable", Reason: host + " could not be reached", Err: err}
}

// NoRedirects makes go-git follow no redirect, so that no credential and no
// request reaches a host that is not allowed, and read no endless answer. go-git
// keeps its protocols in a global table; the program calls this once, before it
// starts.
func NoRedirects(install func(scheme string, c transport.Transport)) {
	c := githttp.NewClient(&http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the remote redirects elsewhere; that is not followed")
		},
		Transport: bounded{http.DefaultTransport},
	})
	install("https", c)
	install("http", c)
}

// bounded is a RoundTripper whose answers end early: go-git keeps the list of a
// remote's branches in memory.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxOutput), answer.Body}
	return answer, nil
}
