// Package compose checks docker-compose.local.yml without Docker: each service's
// command and health check are run as they are written.
package compose

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

const root = "../.."

// service is what we use of Compose's language. Another field is an error, so that
// nothing in the file goes unnoticed here.
type service struct {
	Image    string
	Platform string
	Build    struct {
		Context   string
		Platforms []string
	}
	Command     []string
	WorkingDir  string                       `yaml:"working_dir"`
	NetworkMode string                       `yaml:"network_mode"`
	DependsOn   map[string]map[string]string `yaml:"depends_on"`
	EnvFile     []struct {
		Path     string
		Required bool
	} `yaml:"env_file"`
	Environment     map[string]string
	ReadOnly        bool          `yaml:"read_only"`
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	Healthcheck     struct {
		Test        []string
		Interval    time.Duration
		StartPeriod time.Duration `yaml:"start_period"`
	}
	Volumes []string
}

func load(t *testing.T) map[string]service {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, "docker-compose.local.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Name     string
		Services map[string]service
		Volumes  map[string]any
	}
	d := yaml.NewDecoder(bytes.NewReader(body))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, ok := file.Volumes[source]; !ok && source != "." {
				t.Errorf("service %s mounts the volume %q, which is not declared", name, source)
			}
		}
		for other := range s.DependsOn {
			if _, ok := file.Services[other]; !ok {
				t.Errorf("service %s depends on %q, which is not there", name, other)
			}
		}
		if context := s.Build.Context; context != "" {
			if _, err := os.Stat(filepath.Join(root, context, "Dockerfile")); err != nil {
				t.Errorf("service %s: %v", name, err)
			}
		}
		if n, ok := strings.CutPrefix(s.NetworkMode, "service:"); ok && file.Services[n].Command == nil {
			t.Errorf("service %s shares the network of %q, which is not there", name, n)
		}
	}
	return file.Services
}

func TestServices(t *testing.T) {
	services := load(t)
	var names []string
	for name := range services {
		names = append(names, name)
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"claude-container", "emulators", "git"}, names); d != "" {
		t.Fatal(d)
	}
	c := services["claude-container"]
	if c.Platform != "linux/amd64" || !c.ReadOnly || c.StopGracePeriod < 26*time.Second {
		t.Errorf("the worker's platform is %q, read-only %v, grace %v", c.Platform, c.ReadOnly, c.StopGracePeriod)
	}
	for _, want := range []string{"workspace:/workspace", "efs:/mnt/efs", "tmp:/tmp"} { // all that the image writes to
		if !slices.Contains(c.Volumes, want) {
			t.Errorf("the worker lacks the volume %s", want)
		}
	}
}

// started is a service that runs here.
type started struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes what the service says.
func (s *started) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *started) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// wait returns what the service said when it has said the text.
func (s *started) wait(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.said(), text) {
		select {
		case <-deadline:
			t.Fatalf("it did not say %q: %s", text, s.said())
		case <-tick.C:
		}
	}
	return s.said()
}

// start runs a service's command as it is written, in the repository in the place
// of its working directory, and ends it with the test.
func start(t *testing.T, s service) *started {
	t.Helper()
	r := &started{cmd: exec.Command(s.Command[0], s.Command[1:]...)} //nolint:noctx // signals end it
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = root, r, r
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.WaitDelay = 5 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM) //nolint:errcheck // it may have ended
		if err := r.cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
			t.Errorf("it did not end: %s", r.said())
		}
	})
	return r
}

// healthy waits until the service's own check says so.
func healthy(t *testing.T, name string, s service, r *started) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		check := exec.CommandContext(ctx, s.Healthcheck.Test[1], s.Healthcheck.Test[2:]...)
		check.Dir = root
		out, err := check.CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is not healthy: %s\n%s", name, out, r.said())
		case <-tick.C:
		}
	}
}

// TestCommands starts the services in their order, and the worker last, with the
// environment that it has in the file.
func TestCommands(t *testing.T) {
	services := load(t)
	running := map[string]*started{}
	for _, name := range []string{"emulators", "git"} {
		s := services[name]
		if s.Healthcheck.Test[0] != "CMD" {
			t.Fatalf("the health check of %s is %q", name, s.Healthcheck.Test)
		}
		running[name] = start(t, s)
		healthy(t, name, s, running[name])
	}
	c := services["claude-container"]

	// What the emulators say of themselves is what the worker is told.
	said := running["emulators"].wait(t, "# Ctrl-C ends them")
	for line := range strings.Lines(said) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok && strings.HasPrefix(line, "export ") {
			if got := c.Environment[name]; got != strings.TrimSpace(value) {
				t.Errorf("the worker has %s=%s, the emulators say %s", name, got, value)
			}
		}
	}

	// The repository can be had with the token that the worker has.
	remote := "http://x-access-token:" + c.Environment["GITHUB_TOKEN"] + "@" + c.Environment["ALLOWED_REPO_HOSTS"] + "/bakery.git"
	if refs := gitserver.Git(t, t.TempDir(), "ls-remote", remote); !strings.Contains(refs, "refs/heads/main") {
		t.Errorf("the git server has %q", refs)
	}

	runWorker(t, c)
}

// runWorker runs the image's program with the service's command and environment
// until the image's health check says that it lives.
func runWorker(t *testing.T, c service) {
	t.Helper()
	program := processtest.Build(t, "github.com/webordinary/claude-code-container/cmd/webordinary")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "CLAUDE_PATH=/bin/true"}
	env = append(env, "ANTHROPIC_API_KEY=as-in-.env.local")
	for name, value := range c.Environment {
		env = append(env, name+"="+value)
	}
	env = append(env, "EFS_MOUNT_PATH="+t.TempDir())
	r := &started{cmd: exec.CommandContext(t.Context(), program, c.Command...)}
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = t.TempDir(), env, r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for alive := false; !alive; {
		check := exec.CommandContext(t.Context(), program, "health")
		check.Dir, check.Env = r.cmd.Dir, env
		alive = check.Run() == nil
		select {
		case <-deadline:
			t.Fatalf("the worker does not live: %s", r.said())
		case <-tick.C:
		}
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the worker ended with %v: %s", err, r.said())
	}
}

// TestExampleEnvironment has every variable of the platform's description, and none
// that the worker does not know.
func TestExampleEnvironment(t *testing.T) {
	body, err := os.ReadFile(filepath.Join(root, ".env.local.example"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(body)) {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	want := []string{
		"AWS_ACCOUNT_ID", "AWS_BEDROCK_REGION", "AWS_REGION", "CLAUDE_CODE_USE_BEDROCK", "CONTAINER_ID", "CONTAINER_OWNERSHIP_TABLE",
		"EFS_MOUNT_PATH", "GITHUB_TOKEN", "S3_BUCKET_PATTERN", "SESSION_TABLE", "THREAD_MAPPINGS_TABLE", "UNCLAIMED_QUEUE_URL", "WORKSPACE_PATH",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	help, err := os.ReadFile(filepath.Join(root, "cmd", "webordinary", "testdata", "run-help.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(string(help), "  "+name+" ") {
			t.Errorf("the worker does not know %s", name)
		}
	}
}
