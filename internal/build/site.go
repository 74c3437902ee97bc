package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/internal/leftover"
	"github.com/webordinary/claude-code-container/internal/process"
)

const (
	distDir = "dist"
	// maxFile bounds a file that is read whole, in bytes: large lock files have a
	// few megabytes.
	maxFile = 64 << 20
	// maxManifest bounds package.json, which takes many times its size when it is
	// read; large ones have a tenth of it.
	maxManifest = 1 << 20
)

var errTimeout = errors.New("the step took too long")

// site is one checkout while it is built.
type site struct {
	*Builder
	request Request
	root    *os.Root // Request.Site
	env     []string // of every child
	out     process.Egress
}

// open prepares the directories of a build. HOME is fresh each time, so that
// nothing an agent left in its own configures npm.
func (b *Builder) open(r Request) (*site, error) {
	home, tmp := filepath.Join(r.Job, "build", "home"), filepath.Join(r.Job, "build", "tmp")
	job, err := leftover.Open(r.Job)
	if err != nil {
		return nil, fmt.Errorf("prepare the build: %w", err)
	}
	defer job.Close() //nolint:errcheck // what was made is there or not
	err = errors.Join(job.RemoveAll("build"), job.MkdirAll("build/home", 0o770), job.MkdirAll("build/tmp", 0o770))
	if err == nil {
		err = os.MkdirAll(r.Cache, 0o700)
	}
	if err == nil {
		_, err = leftover.Directory(r.Downloads, 0o770)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare the build: %w", err)
	}
	root, err := leftover.Open(r.Site)
	if err != nil {
		return nil, fmt.Errorf("prepare the build: %w", err)
	}
	var env []string
	for _, kv := range b.Env {
		// With NODE_ENV=production npm leaves out the tools that build.
		if !strings.HasPrefix(kv, "NODE_ENV=") {
			env = append(env, kv)
		}
	}
	env = process.With(
		env, "HOME="+home, "TMPDIR="+tmp, "TZ=UTC", "CI=1", "NO_COLOR=1", "ASTRO_TELEMETRY_DISABLED=1",
		"npm_config_cache="+r.Downloads, "npm_config_update_notifier=false", "npm_config_logs_max=0",
	)
	return &site{Builder: b, request: r, root: root, env: env}, nil
}

func (s *site) dist() string { return filepath.Join(s.request.Site, distDir) }

// openOut opens the children's way out; the func that it returns closes it.
func (s *site) openOut(ctx context.Context) (func(), error) {
	if s.Egress == nil {
		return func() {}, nil
	}
	out, err := s.Egress(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a way out: %w", err)
	}
	s.out = out
	if out.Close == nil {
		return func() {}, nil
	}
	return out.Close, nil
}

// check refuses what cannot be built, and what must not be: Astro copies what a
// link in public/ points to, whatever that is, into the site.
func (s *site) check() error {
	pkg, err := s.manifest()
	if err != nil {
		return err
	}
	var scripts map[string]string
	if json.Unmarshal(pkg["scripts"], &scripts) != nil || strings.TrimSpace(scripts["build"]) == "" {
		return &Error{CodeFailed, `package.json has no "build" script, so the site cannot be built.`}
	}
	if err := s.checkLinks(); err != nil {
		return err
	}
	links, err := s.links("public")
	if err != nil {
		return fmt.Errorf("look for links in public: %w", err)
	}
	if len(links) == 0 {
		return nil
	}
	const most = 10
	named := strings.Join(links[:min(len(links), most)], ", ")
	if more := len(links) - most; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return &Error{CodeRefused, "Links in public/ are not deployed; put the files themselves there: " + named}
}

// checkLinks refuses links that npm would write through, or whose target it would
// empty.
func (s *site) checkLinks() error {
	for _, name := range []string{lockFile, shrinkwrapFile, "node_modules"} {
		if info, err := s.root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return &Error{CodeFailed, name + " is a link, so the site cannot be built."}
		}
	}
	return nil
}

// manifest is package.json, by its top-level names.
func (s *site) manifest() (map[string]json.RawMessage, error) {
	raw, err := leftover.ReadFile(s.root, "package.json", maxManifest)
	switch {
	case errors.Is(err, leftover.ErrTooLarge):
		return nil, &Error{CodeFailed, "package.json is larger than 1 MB, so the site cannot be built."}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{CodeFailed, "The repository has no package.json, so the site cannot be built."}
	case errors.Is(err, leftover.ErrIrregular):
		return nil, &Error{CodeFailed, "package.json is not a regular file, so the site cannot be built."}
	case err != nil:
		return nil, fmt.Errorf("read package.json: %w", err)
	}
	var pkg map[string]json.RawMessage
	err = json.Unmarshal(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")), &pkg)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil, &Error{CodeFailed, "package.json is not valid: it is not an object."}
	}
	if err != nil {
		return nil, &Error{CodeFailed, "package.json is not valid: " + err.Error()}
	}
	return pkg, nil
}

// links returns the links at and below a directory, quoted.
func (s *site) links(dir string) ([]string, error) {
	var links []string
	// WalkDir itself would follow a link at its root.
	if info, err := s.root.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return []string{strconv.Quote(dir)}, nil
	}
	err := fs.WalkDir(s.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			links = append(links, strconv.Quote(p))
		}
		if err == nil && d.IsDir() && leftover.TooDeep(p) {
			return fs.SkipDir
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return links, err
}

// read returns a file of the checkout. What is not a regular file, a link too,
// is leftover.ErrIrregular. No child runs meanwhile.
func (s *site) read(name string) ([]byte, error) { return leftover.ReadFile(s.root, name, maxFile) }

// output is what a child wrote: the end of each stream.
type output struct{ stdout, stderr process.Tail }

// run runs a program in the checkout. A step that takes too long or runs out of
// memory is an *Error; other failures of the program are *process.ExitError.
func (s *site) run(ctx context.Context, program string, args ...string) (*output, error) {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	var out output
	result, err := s.Runner.Run(ctx, process.Command{
		Path: program, Args: args, Dir: s.request.Site, Env: process.With(s.env, s.out.Env...), Stdout: &out.stdout, Stderr: &out.stderr,
		Access: &process.Access{
			Pair: s.request.Pair, Write: []string{s.request.Site, s.request.Job, s.request.Downloads},
			Read: s.request.Read, Proxy: s.out.Address,
		},
	})
	command := program + " " + strings.Join(args, " ")
	var (
		exit *process.ExitError
		over *process.LimitError
	)
	switch {
	case err == nil:
		s.logger().DebugContext(ctx, "build step done", slog.String("command", command), slog.Duration("duration", result.Duration))
		return &out, nil
	case errors.Is(err, errTimeout):
		return &out, &Error{CodeTimeout, fmt.Sprintf("%q was stopped: it took longer than %s.", command, timeout)}
	case errors.As(err, &over):
		code := CodeFailed
		if over.What == process.LimitMemory {
			code = CodeOutOfMemory
		}
		return &out, &Error{code, fmt.Sprintf("%q was ended, with all that it had started: %s.", command, over)}
	case errors.As(err, &exit) && outOfMemory(exit.Result, &out):
		return &out, &Error{CodeOutOfMemory, fmt.Sprintf("%q ran out of memory.", command)}
	}
	return &out, fmt.Errorf("%s: %w", command, err)
}

// outOfMemory recognises V8's own end (abort), the kernel's (kill), and both as
// a shell in between reports them. Nobody else kills: at the end of a context it
// is its cause that comes back.
func outOfMemory(r process.Result, out *output) bool {
	return r.Signal == syscall.SIGKILL || r.Signal == syscall.SIGABRT ||
		r.ExitCode == 128+int(syscall.SIGKILL) || r.ExitCode == 128+int(syscall.SIGABRT) ||
		strings.Contains(out.stderr.String(), "JavaScript heap out of memory")
}

// build runs the build script and checks what it left.
func (s *site) build(ctx context.Context) error {
	// An old dist must not pass for the new one.
	if err := s.root.RemoveAll(distDir); err != nil {
		return fmt.Errorf("remove the old dist: %w", err)
	}
	out, err := s.run(ctx, "npm", "run", "build")
	var exit *process.ExitError
	switch {
	case errors.As(err, &exit):
		message := explain(out, s.request)
		if exit.Result.ExitCode == 127 || lacksPackage(message) {
			s.forget(ctx) // a damaged node_modules heals with the next build
		}
		return &Error{CodeFailed, message}
	case err != nil:
		return err
	}
	info, err := s.root.Lstat(distDir)
	if err == nil && !info.IsDir() {
		return &Error{CodeFailed, "The build left something at dist that is not a directory."}
	}
	index, err := s.root.Lstat(distDir + "/index.html")
	if err != nil || !index.Mode().IsRegular() || index.Size() == 0 {
		return &Error{CodeFailed, "The build ended without an error, but left no dist/index.html, or an empty one."}
	}
	return nil
}

func (s *site) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *site) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}
