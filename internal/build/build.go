// Package build is a first form that the finished package replaces.
package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

type Request struct{ Site, Job, Cache string }

type Result struct {
	Installed, LockChanged bool
	Dist                   string
	Duration               time.Duration
}

type Builder struct {
	Runner  *process.Runner
	Env     []string
	Timeout time.Duration
	Log     *slog.Logger
}

type Error struct {
	Code, Message string
	Err           error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }
func (e *Error) Unwrap() error { return e.Err }

func (b *Builder) Run(ctx context.Context, r Request) (Result, error) {
	var tail process.Tail
	run := func(args ...string) error {
		_, err := b.Runner.Run(ctx, process.Command{Path: "npm", Args: args, Dir: r.Site, Env: process.With(b.Env, "HOME="+r.Job, "ASTRO_TELEMETRY_DISABLED=1", "npm_config_cache="+filepath.Join(r.Cache, "npm")), Stdout: &tail, Stderr: &tail})
		return err
	}
	var res Result
	if _, err := os.Stat(filepath.Join(r.Site, "node_modules")); err != nil {
		if err := run("ci"); err != nil {
			if ctx.Err() != nil {
				return res, context.Cause(ctx)
			}
			return res, &Error{Code: "install_failed", Message: tail.String(), Err: err}
		}
		res.Installed = true
	}
	if err := run("run", "build"); err != nil {
		var exit *process.ExitError
		if !errors.As(err, &exit) {
			return res, err
		}
		return res, &Error{Code: "build_failed", Message: tail.String(), Err: err}
	}
	res.Dist = filepath.Join(r.Site, "dist")
	return res, nil
}
