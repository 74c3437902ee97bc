package emulators

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

// running is what Start started.
type running struct {
	dir      string
	lock     *os.File // the directory, locked as long as this process lives
	ports    [4]port  // SQS, DynamoDB, S3, website
	runner   process.Runner
	cancel   []context.CancelFunc
	children []*child
}

// child is an emulator that runs.
type child struct {
	program
	log  string
	done chan struct{}
	err  error // once done
}

const dirPrefix = "webordinary-emulators-"

func newRunning(ctx context.Context, tools tools, first int) (*running, error) {
	sweep()
	r := &running{}
	if err := r.prepare(ctx, tools, first); err != nil {
		r.stop() //nolint:errcheck // the first error counts
		return nil, err
	}
	return r, nil
}

func (r *running) prepare(ctx context.Context, tools tools, first int) (err error) {
	if r.dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return err
	}
	if r.lock, err = lockDir(r.dir); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(r.dir, "buckets"), 0o700); err != nil {
		return err
	}
	for i := range r.ports {
		if first != 0 {
			r.ports[i], err = claimPort(ctx, first+i)
		} else {
			r.ports[i], err = takePort(ctx)
		}
		if err != nil {
			return err
		}
	}
	keeper := filepath.Join(r.dir, "keeper")
	build := exec.CommandContext(ctx, "go", "build", "-o", keeper, "./cmd/keeper")
	build.Dir = tools.root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the keeper: %w\n%s", err, out)
	}
	r.runner.Keeper = []string{keeper}
	return nil
}

// start starts a program under a keeper: when this process dies, even by KILL,
// the keeper kills the program.
func (r *running) start(ctx context.Context, p program) error {
	c := &child{program: p, log: filepath.Join(r.dir, p.name+".log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return err
	}
	p.command.Dir = r.dir
	p.command.Stdout, p.command.Stderr = log, log
	p.command.Grace = time.Millisecond // nothing of theirs is worth a wait
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = append(r.cancel, cancel)
	r.children = append(r.children, c)
	go func() {
		defer close(c.done)
		defer log.Close() //nolint:errcheck // the child has written it
		_, c.err = r.runner.Run(ctx, p.command)
	}()
	return nil
}

// ended returns an error with the end of the log if the child has ended.
func (c *child) ended() error {
	select {
	case <-c.done:
		return fmt.Errorf("emulator of %s %w: %w%s", c.name, errEnded, c.err, c.logTail())
	default:
		return nil
	}
}

func (c *child) logTail() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-4096):])
}

func (r *running) stop() error {
	var errs []error
	for _, c := range r.children {
		if err := c.ended(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, cancel := range r.cancel {
		cancel()
	}
	for _, c := range r.children {
		<-c.done
	}
	for _, p := range r.ports {
		if p.mine != nil {
			errs = append(errs, p.mine.Close())
		}
	}
	errs = append(errs, os.RemoveAll(r.dir))
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	r.children, r.ports = nil, [4]port{}
	return errors.Join(errs...)
}

// lockDir locks a directory until the file is closed, or this process dies.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // it was only read
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// sweep removes what processes left that were killed. A directory that is not
// locked belongs to a dead one, or is so young that it is not locked yet.
func sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return // the pattern is good
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		os.RemoveAll(dir) //nolint:errcheck // somebody sweeps again
		lock.Close()      //nolint:errcheck // it was only read
	}
}
