// Package scripts checks the shell scripts that people and CI call: that they do
// what they say, and that they fail when it fails. The programs they call are
// replaced by one that writes down how it was called.
package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// recorder is a program that notes its name and arguments, and ends with the code
// that a file beside it says for them.
const recorder = `#!/bin/sh
call="$(basename "$0") $*"
echo "$call" >> "$(dirname "$0")/calls"
while read -r code what; do
	case "$call" in $what) exit "$code";; esac
done < "$(dirname "$0")/codes"
exit 0
`

// result is what a script did.
type result struct {
	Code   int
	Calls  []string
	stdout string
	stderr string
}

// run runs a script with recorders in the place of some programs. codes are lines
// "code pattern" for calls that fail.
func run(t *testing.T, codes string, env []string, script string, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{"docker": recorder, "aws": recorder, "make": recorder, "codes": codes, "calls": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, script), args...)
	cmd.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	r := result{Code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	for line := range strings.Lines(string(calls)) {
		r.Calls = append(r.Calls, strings.TrimSpace(line))
	}
	return r
}

func git(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestBuildAndPush(t *testing.T) {
	env := []string{"AWS_ACCOUNT_ID=942734823970", "AWS_REGION=us-west-2"}
	const image = "942734823970.dkr.ecr.us-west-2.amazonaws.com/webordinary/claude-code"
	version := git(t, "describe", "--always", "--dirty")
	build := "docker build --platform linux/amd64 --build-arg REVISION=" + git(t, "rev-parse", "HEAD") +
		" --build-arg VERSION=" + version + " --tag " + image + ":" + version + " --tag " + image + ":latest ."
	password := "aws ecr get-login-password --region us-west-2"
	login := "docker login --username AWS --password-stdin 942734823970.dkr.ecr.us-west-2.amazonaws.com"
	push, latest := "docker push "+image+":"+version, "docker push "+image+":latest"

	dry := run(t, "", env, "build-and-push.sh", "--dry-run")
	want := "+ " + strings.Join([]string{build, password + " | " + login, push, latest}, "\n+ ") + "\n"
	if d := cmp.Diff(want, dry.stdout); d != "" || dry.Code != 0 || len(dry.Calls) > 0 {
		t.Errorf("--dry-run ended with %d, called %q, and said (-want +got):\n%s", dry.Code, dry.Calls, d)
	}

	got := run(t, "", env, "build-and-push.sh")
	both := map[string]bool{password: true, login: true} // a pipe: they start in any order
	if len(got.Calls) != 5 || got.Calls[0] != build || !both[got.Calls[1]] || !both[got.Calls[2]] || got.Calls[1] == got.Calls[2] ||
		got.Calls[3] != push || got.Calls[4] != latest || got.Code != 0 {
		t.Errorf("it ended with %d and called\n%s", got.Code, strings.Join(got.Calls, "\n"))
	}

	other := run(t, "", append(env, "ECR_REPOSITORY=mine/worker", "DOCKER=podman"), "build-and-push.sh", "--dry-run")
	if !strings.Contains(other.stdout, "+ podman push 942734823970.dkr.ecr.us-west-2.amazonaws.com/mine/worker:latest\n") {
		t.Errorf("with another repository: %s", other.stdout)
	}
}

// TestBuildAndPushStops where something fails: nothing is pushed after it.
func TestBuildAndPushStops(t *testing.T) {
	env := []string{"AWS_ACCOUNT_ID=942734823970", "AWS_REGION=us-west-2"}
	for codes, calls := range map[string]int{"1 docker build*": 1, "1 aws ecr*": 3, "1 docker login*": 3, "1 docker push*": 4} {
		if r := run(t, codes+"\n", env, "build-and-push.sh"); r.Code == 0 || len(r.Calls) != calls {
			t.Errorf("%s: it ended with %d and called %q", codes, r.Code, r.Calls)
		}
	}
	for _, tt := range []struct {
		env  []string
		args []string
		want string
	}{
		{env[:1], nil, "AWS_REGION is missing"},
		{env[1:], nil, "AWS_ACCOUNT_ID is missing"},
		{[]string{"AWS_ACCOUNT_ID=mine", "AWS_REGION=x"}, nil, "an account has 12 digits"},
		{env, []string{"--dry"}, "usage:"},
		{env, []string{"--dry-run", "now"}, "usage:"},
	} {
		if r := run(t, "", tt.env, "build-and-push.sh", tt.args...); r.Code != 2 || len(r.Calls) > 0 || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%v %v: it ended with %d, called %q, and said %q", tt.env, tt.args, r.Code, r.Calls, r.stderr)
		}
	}
}

// TestTestScripts call what they are for, and fail when it does.
func TestTestScripts(t *testing.T) {
	const noDocker = "1 docker info*\n"
	const dockerRun = "docker run --rm --platform linux/amd64 --read-only "
	for _, tt := range []struct {
		script, codes string
		want          result
	}{
		{"git-ops", "", result{0, []string{"make test-git"}, "", ""}},
		{"git-ops", "2 make*\n", result{2, []string{"make test-git"}, "", ""}},
		{"s3-sync", "", result{0, []string{"make test-s3"}, "", ""}},
		{"s3-sync", "2 make*\n", result{2, []string{"make test-s3"}, "", ""}},
		{"local-container", noDocker, result{0, []string{"docker info", "make image-test"}, "", ""}},
		{"local-container", noDocker + "2 make*\n", result{2, []string{"docker info", "make image-test"}, "", ""}},
		{"local-container", "1 * health\n", result{0, []string{
			"docker info", "docker build --platform linux/amd64 --tag webordinary/claude-code:latest .",
			dockerRun + "webordinary/claude-code:latest version", dockerRun + "webordinary/claude-code:latest health",
			dockerRun + "-e ANTHROPIC_API_KEY= webordinary/claude-code:latest demo --output json --dir /workspace/demo",
		}, "", ""}},
		{"local-container", "", result{1, []string{ // health must not succeed
			"docker info", "docker build --platform linux/amd64 --tag webordinary/claude-code:latest .",
			dockerRun + "webordinary/claude-code:latest version", dockerRun + "webordinary/claude-code:latest health",
		}, "", ""}},
		{"local-container", "1 * version\n", result{1, []string{
			"docker info", "docker build --platform linux/amd64 --tag webordinary/claude-code:latest .",
			dockerRun + "webordinary/claude-code:latest version",
		}, "", ""}},
	} {
		got := run(t, tt.codes, nil, "tests/scripts/"+tt.script+".test.sh")
		got.stdout, got.stderr = "", ""
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(result{})); d != "" {
			t.Errorf("%s where %q (-want +got):\n%s", tt.script, tt.codes, d)
		}
	}
}

// TestTargetsSelect packages that are there, and the right ones.
func TestTargetsSelect(t *testing.T) {
	for target, want := range map[string][]string{
		"test-unit":        {"./handlers/...", "./internal/protocol/..."},
		"test-queue":       {"./router/..."},
		"test-s3":          {"./internal/deploy/..."},
		"test-git":         {"./internal/workspace/..."},
		"test-container":   {"./cmd/...", "./tests/compose/..."},
		"test-integration": {"./cmd/...", "./router/...", "./internal/deploy/...", "./internal/workspace/..."},
		"test-e2e":         {"./tests/e2e/...", "./tests/matrix/..."},
	} {
		cmd := exec.CommandContext(t.Context(), "make", "--dry-run", "--silent", target)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", target, err, out)
			continue
		}
		words := strings.Fields(string(out))
		for _, pattern := range want {
			if !strings.Contains(string(out), pattern) {
				t.Errorf("%s does not test %s", target, pattern)
			}
		}
		for _, w := range words {
			if dir, ok := strings.CutSuffix(w, "/..."); ok && dir != "." {
				if _, err := os.Stat(filepath.Join(root, dir)); err != nil {
					t.Errorf("%s tests %s, which is not there", target, w)
				}
			}
		}
	}
}
