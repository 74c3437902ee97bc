package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/terminal"
)

// patience bounds each wait. The machine decides how much of it is needed.
const patience = 90 * time.Second

// world is a platform with one project, and somebody at a terminal.
type world struct {
	*platform.Platform
	t   *testing.T
	j   *platform.Project
	sqs *sqs.Client
	env []string // of the command line
}

func newWorld(t *testing.T, o platform.Options) *world {
	t.Helper()
	t.Parallel()
	o.Program = binary
	o.Env = append(o.Env, "MAX_ATTEMPTS=1", "SANDBOX=off") // walls are not what is tested here
	w := &world{Platform: platform.New(t, o), t: t}
	w.j = w.AddProject("amelia", "scott")
	w.sqs = w.Set.SQSClient(t)
	w.env = w.environ()
	return w
}

// environ is the worker's, as far as it has to do with the platform.
func (w *world) environ() []string {
	n := w.Names
	hosts := strings.TrimPrefix(strings.TrimSuffix(w.j.RepoURL, "/"+w.j.Repo), "http://") + "," + w.Git.Host
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.t.TempDir(), "TMPDIR=" + w.t.TempDir(),
		"AWS_REGION=" + emulators.Region, "AWS_ACCESS_KEY_ID=" + emulators.AccessKey, "AWS_SECRET_ACCESS_KEY=" + emulators.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "S3_FORCE_PATH_STYLE=true",
		"AWS_ENDPOINT_URL_SQS=" + calls.Proxy(w.t, w.Set.SQS), "AWS_ENDPOINT_URL_DYNAMODB=" + calls.Proxy(w.t, w.Set.DynamoDB),
		"AWS_ENDPOINT_URL_S3=" + calls.Proxy(w.t, w.Set.S3),
		"UNCLAIMED_QUEUE_URL=" + w.UnclaimedURL, "UNCLAIMED_DLQ_URL=" + w.url(n.UnclaimedDLQ), "CONTAINER_OWNERSHIP_TABLE=" + w.Table,
		"INPUT_QUEUE_PATTERN=" + n.InputPattern, "OUTPUT_QUEUE_PATTERN=" + n.OutputPattern, "DLQ_QUEUE_PATTERN=" + n.DLQPattern,
		"INTERRUPTS_QUEUE_PATTERN=" + n.InterruptsPattern, "PROGRESS_QUEUE_PATTERN=" + n.ProgressPattern, "S3_BUCKET_PATTERN=" + n.BucketPattern,
		"ALLOWED_REPO_HOSTS=" + hosts, "GITHUB_TOKEN=" + gitserver.Token, "WORKSPACE_PATH=" + w.Workspaces,
		"AGENT=command", "AGENT_COMMAND=/bin/true", "LEASE_DURATION=" + w.Options.Lease.String(), "LEASE_RENEWAL=" + w.Options.Renewal.String(),
	}
}

func (w *world) url(name string) string {
	w.t.Helper()
	out, err := w.sqs.GetQueueUrl(w.t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.QueueUrl
}

// outcome is how a run of the program ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs the program to its end.
func (w *world) run(args ...string) outcome {
	w.t.Helper()
	return w.runWith("", nil, args...)
}

func (w *world) runWith(stdin string, env []string, args ...string) outcome {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = append(append([]string{}, w.env...), env...), w.t.TempDir(), strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		w.t.Fatalf("webordinary %v: %v\n%s%s", args, err, stdout.String(), stderr.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// well is run that must end with code 0; it returns stdout.
func (w *world) well(args ...string) string {
	w.t.Helper()
	o := w.run(args...)
	if o.code != 0 {
		w.t.Fatalf("webordinary %v ended with %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// fails is run that must end with code 1 and say something on stderr.
func (w *world) fails(says string, args ...string) outcome {
	w.t.Helper()
	o := w.run(args...)
	if o.code != 1 || !strings.Contains(o.stderr, says) {
		w.t.Fatalf("webordinary %v ended with %d, want 1 and %q\n%s%s", args, o.code, says, o.stdout, o.stderr)
	}
	return o
}

// onTerminal is run at a terminal, where a person waits for some words and then types.
// It returns all that was shown, and the exit code.
func (w *world) onTerminal(words, typed string, args ...string) (shown string, code int) {
	w.t.Helper()
	person, program := terminal.Open(w.t)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = w.env, w.t.TempDir(), program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // Ctrl-C is a signal
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}

	program.Close() //nolint:errcheck // the program has its own
	if err := person.SetReadDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	var screen bytes.Buffer
	for buffer := make([]byte, 1024); ; {
		n, err := person.Read(buffer)
		screen.Write(buffer[:n])
		if typed != "" && strings.Contains(screen.String(), words) {
			if _, err := person.WriteString(typed); err != nil {
				w.t.Fatal(err)
			}
			typed = ""
		}
		if err != nil { // EIO: nobody has the other end any more
			break
		}
	}
	cmd.Wait() //nolint:errcheck // the code says it
	if !strings.Contains(screen.String(), words) {
		w.t.Fatalf("webordinary %v did not show %q, but\n%s", args, words, &screen)
	}
	return screen.String(), cmd.ProcessState.ExitCode()
}

// read reads the JSON that a run prints.
func (w *world) read(v any, args ...string) {
	w.t.Helper()
	out := w.well(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("webordinary %v printed %q: %v", args, out, err)
	}
}

// await waits until something is so.
func (w *world) await(what string, is func() bool) {
	w.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-late.C:
			w.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// has checks how many messages a queue has that can be received, and that nobody holds
// another.
func (w *world) has(url string, n int) {
	w.t.Helper()
	q, err := w.Queue(url)
	if err != nil {
		w.t.Fatal(err)
	}
	if q.Visible != n || q.InFlight+q.Delayed != 0 {
		w.t.Errorf("%s has %+v, want %d visible and no other", url, q, n)
	}
}

// take receives all messages of a queue that are visible, and deletes them.
func (w *world) take(url string) []types.Message {
	w.t.Helper()
	var all []types.Message
	for {
		out, err := w.sqs.ReceiveMessage(w.t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return all
		}
		for _, m := range out.Messages {
			if _, err := w.sqs.DeleteMessage(w.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				w.t.Fatal(err)
			}
		}
		all = append(all, out.Messages...)
	}
}

// file writes a file, and returns its path.
func (w *world) file(body string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "batch.jsonl")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// before starts a server before an emulator. It passes on what answers does not answer
// itself, which it then reports.
func before(t *testing.T, emulator string, answers func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	to, err := url.Parse(emulator)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }, Transport: &http.Transport{},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) }, // who was killed has hung up
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !answers(rw, r) {
			proxy.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// line finds the line of a text that has all words.
func line(text string, words ...string) string {
next:
	for l := range strings.Lines(text) {
		for _, word := range words {
			if !strings.Contains(l, word) {
				continue next
			}
		}
		return strings.TrimSpace(l)
	}
	return ""
}
