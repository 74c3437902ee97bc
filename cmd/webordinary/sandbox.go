package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/webordinary/claude-code-container/internal/process"
)

// sandboxes are the values of SANDBOX.
func sandboxes() []string {
	all := []string{"auto"}
	for _, wall := range process.Walls() {
		all = append(all, string(wall))
	}
	return append(all, string(process.WallOff))
}

// raiseWall gives the runner the wall that SANDBOX asks for, having seen that it
// holds. Probe is how the keeper is called as a probe; users tries whether the file
// system of the workspaces keeps owners, which the wall of users needs.
func (c *config) raiseWall(ctx context.Context, runner *process.Runner, probe []string, users func(context.Context, *process.Runner) error) error {
	candidates := process.Walls()
	switch c.Sandbox {
	case string(process.WallOff):
		runner.Wall = process.WallOff
		return nil
	case "auto":
	default:
		candidates = []process.Wall{process.Wall(c.Sandbox)}
	}
	var why []error
	for _, wall := range candidates {
		runner.Wall = wall
		err := runner.Probe(ctx, probe)
		if err == nil && wall == process.WallUsers {
			err = users(ctx, runner)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why = append(why, fmt.Errorf("  %s: %s", wall, strings.ReplaceAll(err.Error(), "\n", ": ")))
	}
	return fmt.Errorf("there is no wall around agent and npm (SANDBOX=%s):\n%w\n"+
		"Install bubblewrap where user namespaces are allowed, or the keeper setuid, or use Linux 6.12 with Landlock.\n"+
		"SANDBOX=off goes without, where instructions, repositories and packages are all trusted", c.Sandbox, errors.Join(why...))
}

// settleUsers makes the directory of the workspaces, and tries out its file system.
// What the worker makes from then on is closed to all but its group: a pair, which is
// let through to its repository's objects, is neither.
func settleUsers(workspaces string) func(context.Context, *process.Runner) error {
	return func(ctx context.Context, runner *process.Runner) error {
		if err := os.MkdirAll(workspaces, 0o755); err != nil { //nolint:gosec // the pairs pass through
			return err
		}
		if err := runner.ProbeUsers(ctx, workspaces); err != nil {
			return err
		}
		syscall.Umask(0o027)
		return nil
	}
}

// readable is what children may read besides what is below /usr: their programs,
// and the certificates that the environment names. It never holds the workspaces.
func (c *config) readable(childEnv []string, workspaces string) []string {
	path := variable(childEnv, "PATH")
	var all []string
	programs := []string{"node", "npm", "git"}
	if c.Agent == "command" {
		programs = append(programs, c.agentWords[0])
		for _, word := range c.agentWords[1:] { // such as the script of an interpreter
			if info, err := os.Stat(word); err == nil && filepath.IsAbs(word) && info.Mode().IsRegular() {
				all = append(all, packageOf(word)...)
			}
		}
	} else {
		programs = append(programs, c.ClaudePath)
	}
	all = append(all, filepath.SplitList(path)...)
	for _, name := range programs {
		if found, err := lookIn(path, name); err == nil {
			all = append(all, packageOf(found)...)
		}
	}
	for _, name := range []string{"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "npm_config_cafile"} {
		all = append(all, variable(childEnv, name))
	}
	all = append(all, filepath.SplitList(variable(childEnv, "SSL_CERT_DIR"))...)
	all = slices.DeleteFunc(all, func(path string) bool {
		return !filepath.IsAbs(path) || within(path, "/usr") || within(path, "/bin") || within(path, "/sbin") || within(workspaces, path)
	})
	slices.Sort(all)
	all = slices.Compact(all)
	// A link in a directory that is there cannot be put there once more.
	return slices.DeleteFunc(slices.Clone(all), func(path string) bool {
		return slices.ContainsFunc(all, func(dir string) bool {
			info, err := os.Lstat(dir)
			return dir != path && within(path, dir) && err == nil && info.IsDir()
		})
	})
}

// lookIn finds a program in a PATH; one with a slash is found as the worker does.
func lookIn(path, name string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return filepath.Abs(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(found) {
			return found, nil
		}
	}
	return "", exec.ErrNotFound
}

// packageOf is a program's file, what it is a link to, and the node_modules that
// this is in, where its packages are.
func packageOf(program string) []string {
	all := []string{program}
	target, err := filepath.EvalSymlinks(program)
	if err != nil {
		return all
	}
	all = append(all, target)
	const modules = "/node_modules/"
	if i := strings.Index(target, modules); i >= 0 {
		all = append(all, target[:i+len(modules)-1])
	}
	return all
}

// within reports whether a path is dir, or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
