//go:build image

// Package image runs programs in the image that tools/image/build made, as a
// container would: as process 1, as appuser, on a read-only root. `make image-test`
// builds the image first, which takes minutes and root; so these tests have a build
// tag.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// container is where one container's volumes are.
type container struct {
	t       *testing.T
	volumes string
}

func newContainer(t *testing.T) *container {
	t.Helper()
	c := &container{t: t, volumes: t.TempDir()}
	if err := os.Mkdir(filepath.Join(c.volumes, "add"), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// add puts a file where programs in the container can read it, and returns its
// path there.
func (c *container) add(name string, body []byte, perm fs.FileMode) string {
	c.t.Helper()
	path := filepath.Join(c.volumes, "add", name)
	if err := os.WriteFile(path, body, perm); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil { // whatever the umask is
		c.t.Fatal(err)
	}
	return "/media/" + name
}

// command is what runs a program in the container.
func (c *container) command(env []string, args ...string) *exec.Cmd {
	words := append(append([]string{c.volumes}, env...), "--")
	return exec.CommandContext(c.t.Context(), "../../tools/image/run", append(words, args...)...)
}

// run returns the exit code and what was written.
func (c *container) run(env []string, args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	cmd := c.command(env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must returns what a program that succeeds wrote.
func (c *container) must(args ...string) string {
	c.t.Helper()
	code, stdout, stderr := c.run(nil, args...)
	if code != 0 {
		c.t.Fatalf("%v ended with %d: %s", args, code, stderr)
	}
	return strings.TrimSpace(stdout)
}

// npmEnv is what npm needs to reach its registry from this machine.
func (c *container) npmEnv() []string {
	c.t.Helper()
	var env []string
	if v := os.Getenv("npm_config_registry"); v != "" {
		env = append(env, "npm_config_registry="+v)
	}
	if file := os.Getenv("NODE_EXTRA_CA_CERTS"); file != "" {
		body, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		env = append(env, "NODE_EXTRA_CA_CERTS="+c.add("ca.crt", body, 0o644))
	}
	return env
}

func TestConfiguration(t *testing.T) {
	body, err := os.ReadFile("../../.image/image.json")
	if err != nil {
		t.Fatalf("there is no image; `make image-test` builds it (%v)", err)
	}
	type health struct {
		Test                  []string
		Interval, StartPeriod time.Duration
		Retries               int
	}
	type config struct {
		User                   string
		Env, Entrypoint, Cmd   []string
		Volumes                map[string]struct{}
		WorkingDir, StopSignal string
		Healthcheck            health
		ExposedPorts           map[string]struct{}
		Labels                 map[string]string
	}
	var image struct {
		Docker struct {
			OS           string `json:"os"`
			Architecture string `json:"architecture"`
			Config       config `json:"config"`
		}
	}
	if err := json.Unmarshal(body, &image); err != nil {
		t.Fatal(err)
	}
	got := image.Docker.Config
	labels := got.Labels
	got.Labels = nil
	want := config{
		User: "appuser", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/home/appuser"},
		Entrypoint: []string{"/usr/local/bin/webordinary"}, Cmd: []string{"run"},
		Volumes:    map[string]struct{}{"/workspace": {}, "/mnt/efs": {}, "/tmp": {}},
		WorkingDir: "/", StopSignal: "SIGTERM",
		Healthcheck: health{
			Test: []string{"CMD", "/usr/local/bin/webordinary", "health"}, Interval: 30 * time.Second, StartPeriod: time.Minute, Retries: 3,
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("configuration (-want +got):\n%s", d)
	}
	if image.Docker.OS != "linux" || image.Docker.Architecture != "amd64" {
		t.Errorf("the image is for %s/%s, want linux/amd64", image.Docker.OS, image.Docker.Architecture)
	}
	for _, name := range []string{"title", "description", "source", "vendor", "licenses", "version", "revision"} {
		if v := labels["org.opencontainers.image."+name]; v == "" || v == "unknown" {
			t.Errorf("label %s is %q", name, v)
		}
	}
}

func TestPrograms(t *testing.T) {
	c := newContainer(t)
	for _, tt := range []struct{ program, want string }{
		{"/usr/local/bin/webordinary version", "linux/amd64"},
		{"claude --version", cliVersion(t) + " (Claude Code)"},
		{"node --version", "v22."},
		{"npm --version", "10."},
		{"git --version", "git version 2.39."},
		{"bwrap --version", "bubblewrap 0.8."},
		{"id", "uid=1000(appuser) gid=1000(appuser) groups=1000(appuser)"},
	} {
		if got := c.must(strings.Fields(tt.program)...); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.program, got, tt.want)
		}
	}
}

// cliVersion is the one that the tests of the agent use too.
func cliVersion(t *testing.T) string {
	t.Helper()
	body, err := os.ReadFile("../../tools/npm/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Dependencies map[string]string }
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatal(err)
	}
	return p.Dependencies["@anthropic-ai/claude-code-linux-x64"]
}

func TestOnlyTheVolumesAreWritable(t *testing.T) {
	c := newContainer(t)
	got := c.must("sh", "-c", `for d in / /etc /usr/local/bin /home/appuser /var/tmp /run /workspace /mnt/efs /tmp; do
		if touch $d/x 2>/dev/null; then echo $d yes; else echo $d no; fi
	done`)
	want := "/ no\n/etc no\n/usr/local/bin no\n/home/appuser no\n/var/tmp no\n/run no\n/workspace yes\n/mnt/efs yes\n/tmp yes"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestHealth(t *testing.T) {
	c := newContainer(t)
	if code, _, stderr := c.run(nil, "webordinary", "health"); code != 1 || !strings.Contains(stderr, "/tmp/webordinary-heartbeat.json is not there") {
		t.Errorf("without a worker: %d, %q", code, stderr)
	}
	pulse := c.add("pulse", []byte(`{"time":"2999-01-01T00:00:00Z","claims":[]}`), 0o644)
	if code, stdout, stderr := c.run([]string{"HEARTBEAT_FILE=" + pulse}, "webordinary", "health"); code != 0 {
		t.Errorf("with a pulse: %d, %q %q", code, stdout, stderr)
	}
}

// agent changes a file, and says which processes nobody has collected.
const agent = `#!/bin/sh
cat >/dev/null
echo green > public/note.txt
echo "zombies: $(grep -h '^State:' /proc/[0-9]*/status | grep -c Z); process 1: $(cat /proc/1/comm)"
`

// TestOneWholeCommand has git, an agent, npm and Astro work in the container, and
// the worker as process 1, with a child that it did not start.
func TestOneWholeCommand(t *testing.T) {
	c := newContainer(t)
	// Without a wall, so that the agent sees process 1.
	env := append(c.npmEnv(), "SANDBOX=off", "AGENT=command", "AGENT_COMMAND="+c.add("agent", []byte(agent), 0o755))
	code, stdout, stderr := c.run(env, "sh", "-c", "true & exec webordinary demo --output json --dir /workspace/demo 'Make it green'")
	var out protocol.OutputMessage
	if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != 0 || !out.Success {
		t.Fatalf("the demo ended with %d, %v:\n%s\n%s", code, err, stdout, stderr)
	}
	if d := cmp.Diff([]string{"public/note.txt"}, out.FilesChanged); d != "" {
		t.Errorf("files changed (-want +got):\n%s", d)
	}
	if out.Summary != "zombies: 0; process 1: webordinary" {
		t.Errorf("the agent saw %q", out.Summary)
	}
	note, err := os.ReadFile(filepath.Join(c.volumes, "workspace", "demo", "sites", out.S3Bucket, "note.txt"))
	if err != nil || string(note) != "green\n" {
		t.Errorf("what was deployed: %q, %v", note, err)
	}
}

// intruder tries what the wall of users stands against, and changes a file.
const intruder = `#!/bin/sh
cat >/dev/null
echo blue > public/note.txt
grep -qs DEMO_SECRET /proc/1/environ && echo "it reads the worker's environment"
kill -0 1 2>/dev/null && echo "it signals the worker"
/usr/local/bin/keeper users </dev/null 2>/dev/null; [ $? = 126 ] || echo "it executes the keeper"
ls ../worker >/dev/null 2>&1 && echo "it lists the worker's directory"
[ "$(id -u)" -ge 65536 ] && [ "$(id -u)" = "$(id -G)" ] && echo "it is the pair"
`

// TestWallOfUsers has the keeper as it is installed in the image keep the agent from
// the worker, in a whole command.
func TestWallOfUsers(t *testing.T) {
	c := newContainer(t)
	if got := c.must("stat", "-c", "%U:%G %a", "/usr/local/bin/keeper"); got != "root:appuser 4750" {
		t.Errorf("the keeper is installed as %s", got)
	}
	env := append(c.npmEnv(), "SANDBOX=users", "DEMO_SECRET=hunter2", "AGENT=command", "AGENT_COMMAND="+c.add("agent", []byte(intruder), 0o755))
	code, stdout, stderr := c.run(env, "webordinary", "demo", "--output", "json", "--dir", "/workspace/demo", "Make it blue")
	var out protocol.OutputMessage
	if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != 0 || !out.Success {
		t.Fatalf("the demo ended with %d, %v:\n%s\n%s", code, err, stdout, stderr)
	}
	if out.Summary != "it is the pair" {
		t.Errorf("the agent says %q", out.Summary)
	}
	note, err := os.ReadFile(filepath.Join(c.volumes, "workspace", "demo", "sites", out.S3Bucket, "note.txt"))
	if err != nil || string(note) != "blue\n" {
		t.Errorf("what was deployed: %q, %v", note, err)
	}
}
