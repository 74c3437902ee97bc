package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/leftover"
	"github.com/webordinary/claude-code-container/internal/process"
)

// maxSummary is how much of a command's output is kept.
const maxSummary = 64 << 10

// Command runs a program of the operator's as the agent: it gets exactly the
// instruction on stdin and the checkout as its working directory, its stdout is
// the summary, and exit code 0 is success. Its HOME is the job's. It has no
// conversation and costs nothing.
type Command struct {
	Path   string // a name without a slash is looked up in Env's PATH
	Args   []string
	Runner *process.Runner
	Env    []string
	// Egress opens a way out for a run; nil means there is none.
	Egress  func(context.Context) (process.Egress, error)
	Timeout time.Duration // zero means 30 min
	Log     *slog.Logger  // nil means none
}

// Run carries an instruction out. The error is an *Error, the cause of ctx, or
// another one if the job's directory cannot be used or the worker was frozen
// (process.ErrSilence).
func (c *Command) Run(ctx context.Context, r Request) (Result, error) {
	began := time.Now()
	home, tmp := filepath.Join(r.Job, homeDir), filepath.Join(r.Job, tmpDir)
	if err := makeTemporary(r.Job); err != nil {
		return Result{}, fmt.Errorf("make temporary directory: %w", err)
	}
	out := process.Egress{}
	if c.Egress != nil {
		var err error
		if out, err = c.Egress(ctx); err != nil {
			return Result{}, fmt.Errorf("open a way out: %w", err)
		}
		if out.Close != nil {
			defer out.Close()
		}
	}
	timeout := orDefault(c.Timeout, defaultTimeout)
	work, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	stdout, stderr := &head{max: maxSummary}, &process.Tail{}
	_, err := c.Runner.Run(work, process.Command{
		Path: c.Path, Args: c.Args, Dir: r.Site, Env: process.With(process.With(c.Env, out.Env...), "HOME="+home, "TMPDIR="+tmp),
		Stdin: strings.NewReader(r.Instruction), Stdout: stdout, Stderr: stderr, Access: r.access(out.Address),
	})
	result := Result{Summary: strings.TrimSpace(clean(stdout.String())), Duration: time.Since(began)}
	var exit *process.ExitError
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil && !errors.As(err, &exit):
		return result, context.Cause(ctx)
	case errors.Is(err, process.ErrSilence):
		return result, err
	case errors.Is(err, process.ErrNotFound):
		return result, missing(err)
	case errors.Is(err, errTimeout):
		return result, tookTooLong(timeout)
	}
	if over, ok := errors.AsType[*process.LimitError](err); ok {
		return result, tookTooMuch(over)
	}
	e := outcome{err: err, stderr: stderr.String()}.byExit()
	e.Message = redact(clean(e.Message))
	return result, e
}

// makeTemporary makes an empty directory for temporary files below the job's.
func makeTemporary(job string) error {
	if err := os.MkdirAll(filepath.Dir(job), 0o700); err != nil {
		return err
	}
	if _, err := leftover.Directory(job, 0o770); err != nil {
		return err
	}
	root, err := leftover.Open(job)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // what was made is there or not
	return errors.Join(root.RemoveAll(tmpDir), root.Mkdir(tmpDir, 0o700), root.RemoveAll(homeDir), root.Mkdir(homeDir, 0o700))
}

// head is a writer that keeps the first bytes and takes the others too.
type head struct {
	max  int
	kept []byte
}

// Write implements io.Writer; it never fails.
func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), h.max-len(h.kept))]...)
	return len(p), nil
}

// String returns what is kept.
func (h *head) String() string { return string(h.kept) }
