// Command gitserver serves the example site as a repository, for people who try the
// worker on their machine. It is the git server of the tests: on loopback, with a
// token.
//
//	gitserver ADDRESS DIRECTORY
//
// ADDRESS is host:port. DIRECTORY keeps the repositories; bakery.git is made in it,
// unless it is there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/examples"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gitserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: gitserver ADDRESS DIRECTORY")
	}
	root, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	if err := create(ctx, filepath.Join(root, "bakery.git")); err != nil {
		return err
	}
	handler, err := gitserver.New(ctx, root)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "repoUrl http://%s/bakery.git, GITHUB_TOKEN %s\n", l.Addr(), gitserver.Token) //nolint:errcheck // it serves all the same
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	err = server.Close()
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// create makes a bare repository whose branch main holds the example site.
func create(ctx context.Context, bare string) error {
	if _, err := os.Stat(bare); err == nil {
		return nil
	}
	work, err := os.MkdirTemp("", "gitserver-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary directory
	site, err := fs.Sub(examples.Site, "site")
	if err != nil {
		return err
	}
	if err := os.CopyFS(work, site); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main", work},
		{"-C", work, "add", "--all"},
		{"-C", work, "-c", "user.name=WebOrdinary", "-c", "user.email=noreply@webordinary.com", "commit", "--quiet", "-m", "Begin the site"},
		{"clone", "--quiet", "--bare", work, bare},
		{"-C", bare, "config", "http.receivepack", "true"},
	} {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
	}
	return nil
}
