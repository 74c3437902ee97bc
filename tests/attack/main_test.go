package attack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs are what the tests run. TestMain makes them, where the worker's user
// can read them.
var programs struct{ dir, worker, keeper, hostile, claude string }

func TestMain(m *testing.M) {
	code, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		code = 1
	}
	os.Exit(code)
}

func prepare(m *testing.M) (int, error) {
	if os.Getuid() != 0 {
		return 0, errors.New("these tests start the worker as an unprivileged user, and install the keeper; run them as root, on a machine of their own")
	}
	var err error
	programs.claude, err = filepath.Abs("../../.tools/npm/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if err != nil {
		return 0, err
	}
	if programs.claude, err = filepath.EvalSymlinks(programs.claude); err != nil {
		return 0, fmt.Errorf("the Claude Code CLI is missing; `make setup` installs it (%w)", err)
	}
	for program, where := range map[string]string{
		"git": "git", "npm": "npm", "bwrap": "bubblewrap", "unshare": "util-linux", "setpriv": "util-linux",
	} {
		if _, err := exec.LookPath(program); err != nil {
			return 0, fmt.Errorf("%s is missing; `apt-get install %s` installs it (%w)", program, where, err)
		}
	}
	if programs.dir, err = os.MkdirTemp("", "attack-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(programs.dir) //nolint:errcheck // a temporary directory
	if err := os.Chmod(programs.dir, 0o755); err != nil {
		return 0, err
	}
	for _, p := range []struct {
		path *string
		name string
		from string
	}{
		{&programs.worker, "webordinary", "../../cmd/webordinary"},
		{&programs.keeper, "keeper", "../../cmd/keeper"},
		{&programs.hostile, "hostile", "./hostile"},
	} {
		*p.path = filepath.Join(programs.dir, p.name)
		cmd := exec.CommandContext(context.Background(), "go", "build", "-ldflags", "-s -w", "-o", *p.path, p.from)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the setuid keeper is built so
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("go build %s: %w\n%s", p.from, err, out)
		}
	}
	// The keeper is installed as in the image: setuid, for the worker's group.
	if err := errors.Join(os.Chown(programs.keeper, 0, workerUID), os.Chmod(programs.keeper, 0o750|os.ModeSetuid)); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
