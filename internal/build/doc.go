// Package build turns a checkout into a built site: it installs packages when
// that is needed, runs the site's build script, and cuts what went wrong down to
// the few lines a person needs.
//
// The checkout, its packages and its scripts are not trusted. They run as
// children with an environment that is given to them, and what they leave behind
// is read without following links.
package build

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

// The codes of an Error.
const (
	CodeFailed      = "build_failed"        // the site does not build
	CodeTimeout     = "build_timeout"       // installing or building took too long
	CodeOutOfMemory = "build_out_of_memory" // a child ran out of memory or was killed for it
	CodeInstall     = "install_failed"      // npm could not install the packages
	CodeRefused     = "deploy_refused"      // public/ holds a link
)

// maxMessage bounds an Error's message, in bytes.
const maxMessage = 8 << 10

const defaultTimeout = 10 * time.Minute

// Error is a build that failed for a reason that lies in the site. Trying again
// without a change brings the same.
type Error struct {
	Code string
	// Message is for the person who asked for the change: a few lines, at most
	// 8 KB, paths relative to the checkout.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Request says what to build.
type Request struct {
	// Pair is whose site it is, as the workspace names it.
	Pair string
	// Site is the checkout; node_modules and dist are made in it.
	Site string
	// Job is a directory for temporary files; what the build leaves there may
	// be deleted after it.
	Job string
	// Cache is kept from build to build of the same project and user, and no
	// child may write to it. Lost, it costs an install.
	Cache string
	// Read is what else a build may read.
	Read []string
	// Downloads is npm's download cache, and kept as well. Children write to it:
	// npm compares what it takes from there with the lock file.
	Downloads string
}

// Result is what a build did.
type Result struct {
	// Installed says that packages were installed.
	Installed bool
	// LockChanged says that this install changed package-lock.json or created
	// it, which belongs into the commit.
	LockChanged bool
	// Dist is the directory of the built site: Site and dist.
	Dist     string
	Duration time.Duration
}

// Builder builds sites. Its methods may be called concurrently for different
// checkouts.
type Builder struct {
	Runner *process.Runner
	// Env is what children get, besides what the build sets: PATH and the
	// variables npm needs to reach its registry.
	Env []string
	// Egress opens a way out for a build; nil means there is none.
	Egress func(context.Context) (process.Egress, error)
	// Timeout bounds installing and building, each; zero means 10 minutes.
	Timeout time.Duration
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // nil means none

	mu       sync.Mutex
	versions map[nodeProgram]string // by node --version
}

// Prepare installs what the lock file asks for into a checkout in which no agent
// has worked yet, or copies it from what an earlier Prepare of the same project and
// user kept of such a one. Without a lock file it does nothing. Errors are as
// those of Run; a site that cannot be prepared may be built nevertheless.
func (b *Builder) Prepare(ctx context.Context, r Request) error {
	s, err := b.open(r)
	if err != nil {
		return err
	}
	defer s.root.Close() //nolint:errcheck // nothing was written through it that matters
	if err := s.checkLinks(); err != nil {
		return err
	}
	closeOut, err := s.openOut(ctx)
	if err != nil {
		return err
	}
	defer closeOut()
	return s.prepare(ctx)
}

// Run installs what is missing and builds the site. When it returns nil, Dist
// holds a site with a non-empty index.html that this call built.
//
// Errors are *Error; the cause of ctx when it ended; or, when it is not the
// site's fault (npm missing, a disk that fails), others.
func (b *Builder) Run(ctx context.Context, r Request) (Result, error) {
	began := time.Now()
	s, err := b.open(r)
	if err != nil {
		return Result{}, err
	}
	defer s.root.Close() //nolint:errcheck // nothing was written through it that matters
	if err := s.check(); err != nil {
		return Result{}, err
	}
	closeOut, err := s.openOut(ctx)
	if err != nil {
		return Result{}, err
	}
	defer closeOut()
	result := Result{Dist: s.dist()}
	if err := s.install(ctx, &result); err != nil {
		return Result{}, err
	}
	if err := s.build(ctx); err != nil {
		return Result{}, err
	}
	result.Duration = time.Since(began)
	return result, nil
}
