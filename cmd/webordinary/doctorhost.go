package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/internal/process"
)

// model looks whether there are credentials for it. They are not tried: that costs.
func (d *doctor) model(ctx context.Context) []finding {
	c := d.config
	switch {
	case c.Agent == "command":
		return []finding{ok("model", "none is needed with AGENT=command")}
	case c.UseBedrock:
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		if _, err := c.bedrockSigner(ctx, c.bedrockRegion()); err != nil {
			return []finding{bad(levelFail, "model", "no AWS credentials for Bedrock", "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")}
		}
		if c.AnthropicModel == "" {
			return []finding{bad(levelWarn, "model", "Bedrock in "+c.bedrockRegion()+", and ANTHROPIC_MODEL is not set", "set it to a model that the account has")}
		}
		return []finding{ok("model", "%s of Bedrock in %s; not tried", c.AnthropicModel, c.bedrockRegion())}
	case c.AnthropicKey == "":
		return []finding{bad(levelFail, "model", "ANTHROPIC_API_KEY is missing", "set it, or CLAUDE_CODE_USE_BEDROCK=1")}
	}
	return []finding{ok("model", "ANTHROPIC_API_KEY is set, for %s; not tried", c.anthropicURL.Host)}
}

// agentProgram looks for the agent.
func (d *doctor) agentProgram(ctx context.Context) []finding {
	c := d.config
	if c.Agent == "command" {
		path, err := exec.LookPath(c.agentWords[0])
		if err != nil {
			return []finding{bad(levelFail, "agent", fmt.Sprintf("AGENT_COMMAND begins with %q, and there is no such program", c.agentWords[0]), "install it, or set AGENT_COMMAND right")}
		}
		return []finding{bad(levelWarn, "agent", path+" by AGENT=command", "nothing, if that is meant; AGENT=claude is the real one")}
	}
	version, err := d.version(ctx, c.ClaudePath)
	if err != nil {
		return []finding{bad(levelFail, "agent", fmt.Sprintf("CLAUDE_PATH is %q: %v", c.ClaudePath, err), "install the Claude Code CLI (npm package @anthropic-ai/claude-code)")}
	}
	return []finding{ok("agent", "%s %s", c.ClaudePath, version)}
}

// programs are what a site is built with. git merges without a checkout since 2.38;
// Astro 5 wants Node.js 18.20.
func (d *doctor) programs(ctx context.Context) []finding {
	var all []finding
	for _, p := range []struct {
		name, install string
		least         [2]int
	}{
		{"git", "apt-get install git", [2]int{2, 38}},
		{"node", "install Node.js 20", [2]int{18, 20}},
		{"npm", "it comes with Node.js", [2]int{0, 0}},
	} {
		version, err := d.version(ctx, p.name)
		switch {
		case err != nil:
			all = append(all, bad(levelFail, p.name, err.Error(), p.install))
		case !atLeast(version, p.least):
			all = append(all, bad(levelFail, p.name, fmt.Sprintf("%s; at least %d.%d is needed", version, p.least[0], p.least[1]), p.install))
		default:
			all = append(all, ok(p.name, "%s", version))
		}
	}
	return all
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// version asks a program for its version, as a child of the worker would run: without
// any of our secrets.
func (d *doctor) version(ctx context.Context, program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", errors.New("there is no such program in PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version") //nolint:gosec // it is the operator's own
	cmd.Env, cmd.Dir = process.Environ(d.sys.environ, nil), os.TempDir()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if v := versionNumber.FindString(string(out)); v != "" {
		return v, nil
	}
	return short(string(out), 40), nil
}

func atLeast(version string, least [2]int) bool {
	parts := append(strings.Split(version, "."), "0", "0")
	for i, want := range least {
		got, err := strconv.Atoi(parts[i])
		if err != nil {
			return least == [2]int{}
		}
		if got != want {
			return got > want
		}
	}
	return true
}

// lookAtWall tries the walls as the worker does when it starts, and says which one holds
// and what it leaves open.
func (c *config) lookAtWall(ctx context.Context) []finding {
	self, err := os.Executable()
	if err != nil {
		return []finding{bad(levelFail, "wall", lastLine(err), "start the program by its path")}
	}
	keeper := keeperOf(self)
	silence := c.LeaseDuration / 6
	runner := &process.Runner{
		Keeper: keeper, Setuid: setuidKeeper(self), Heartbeat: silence / 8, Silence: silence, Log: slog.New(slog.DiscardHandler),
	}
	users := func(ctx context.Context, r *process.Runner) error { return r.ProbeUsers(ctx, c.workspaces()) }
	if err := c.raiseWall(ctx, runner, keeper, users); err != nil {
		return []finding{bad(levelFail, "wall", strings.ReplaceAll(err.Error(), "\n", " "), "see SANDBOX")}
	}
	text := string(runner.Wall) + " holds. " + runner.Wall.Leaves()
	switch runner.Wall {
	case process.WallBubblewrap:
		return []finding{ok("wall", "%s", text)}
	case process.WallOff:
		return []finding{bad(levelWarn, "wall", "SANDBOX=off. "+runner.Wall.Leaves(), "leave SANDBOX out, unless instructions, repositories and packages are all trusted")}
	case process.WallUsers, process.WallLandlock:
	}
	return []finding{bad(levelWarn, "wall", text, "close the network outside; bubblewrap is better where user namespaces are allowed")}
}

// workspaces looks whether a file there belongs to whom it should. An EFS access point
// that enforces a user makes all files one user's.
func (d *doctor) workspaces(context.Context) []finding {
	dir := d.config.workspaces()
	f, done, err := probeFile(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return []finding{bad(levelFail, "workspaces", dir+" is not there", "mount it, or set EFS_MOUNT_PATH or WORKSPACE_PATH right")}
	case err != nil:
		return []finding{bad(levelFail, "workspaces", dir+" cannot be written: "+lastLine(err), "let this user write it")}
	}
	defer done()
	owner, err := ownerOf(f)
	switch {
	case err != nil:
		return []finding{bad(levelWarn, "workspaces", lastLine(err), "see what kind of file system "+dir+" is")}
	case owner != os.Geteuid():
		return []finding{bad(levelFail, "workspaces", fmt.Sprintf("a file of user %d in %s belongs to user %d", os.Geteuid(), dir, owner), "use an EFS access point that enforces no user: the wall of users needs one for each project")}
	case os.Geteuid() != 0:
		return []finding{ok("workspaces", "%s can be written, and keeps owners; whether it takes other owners only root can see", dir)}
	}
	const other = 65536 + 1 // of the range of the wall of users
	if err := f.Chown(other, other); err != nil {
		return []finding{bad(levelWarn, "workspaces", dir+" takes no other owner: "+lastLine(err), "use a file system that does, or the wall of users cannot hold")}
	}
	if owner, err = ownerOf(f); err != nil || owner != other {
		return []finding{bad(levelWarn, "workspaces", fmt.Sprintf("a file in %s that was given to user %d belongs to user %d", dir, other, owner), "use an EFS access point that enforces no user")}
	}
	return []finding{ok("workspaces", "%s can be written, and a file can have another owner", dir)}
}

// probeFile makes a file that has no name, or where the file system cannot do that, one
// that done takes away.
func probeFile(dir string) (f *os.File, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		f = os.NewFile(uintptr(fd), filepath.Join(dir, "probe"))
		return f, func() { f.Close() }, nil //nolint:errcheck // nothing was written
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, nil, &os.PathError{Op: "write", Path: dir, Err: err}
	}
	return namedFile(dir)
}

// namedFile is probeFile where a file needs a name, as on NFS.
func namedFile(dir string) (f *os.File, done func(), err error) {
	if f, err = os.CreateTemp(dir, ".doctor-*"); err != nil {
		return nil, nil, err
	}
	return f, func() {
		f.Close()           //nolint:errcheck // nothing was written
		os.Remove(f.Name()) //nolint:errcheck // it is empty
	}, nil
}

func ownerOf(f *os.File) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("the file system does not say whom a file belongs to")
	}
	return int(st.Uid), nil
}

// The free space below which builds begin to fail, and soon will.
const (
	leastDisk = 1 << 30
	fewDisk   = 5 << 30
)

func (d *doctor) disk(context.Context) []finding {
	var all []finding
	seen := map[[2]int32]bool{}
	for _, dir := range []string{d.config.workspaces(), os.TempDir()} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || seen[st.Fsid.Val] {
			continue // that it is not there was said
		}
		seen[st.Fsid.Val] = true
		free := st.Bavail * uint64(st.Bsize) //nolint:gosec // a size is positive
		text := fmt.Sprintf("%.1f GB free in %s", float64(free)/(1<<30), dir)
		switch {
		case free < leastDisk:
			all = append(all, bad(levelFail, "disk", text, "make room: a site with its packages needs about 1 GB"))
		case free < fewDisk:
			all = append(all, bad(levelWarn, "disk", text, "make room: each project needs about 1 GB"))
		default:
			all = append(all, ok("disk", "%s", text))
		}
	}
	return all
}

// settings are what is set and better were not.
func (d *doctor) settings(context.Context) []finding {
	c := d.config
	var all []finding
	if c.CreateResources {
		all = append(all, bad(levelWarn, "settings", "CREATE_RESOURCES=true", "leave it out in AWS: infrastructure makes queues, tables and buckets"))
	}
	if c.AllowWorkflows {
		all = append(all, bad(levelWarn, "settings", "ALLOW_WORKFLOW_CHANGES=true: an agent can change what GitHub runs", "leave it out, unless that is meant"))
	}
	if c.registry != "" && !c.hosts.Allow(c.registry) {
		all = append(all, bad(levelWarn, "settings", "AGENT_ALLOWED_HOSTS does not list "+c.registry, "list it, or npm cannot install packages"))
	}
	return all
}
