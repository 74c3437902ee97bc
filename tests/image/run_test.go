//go:build image

package image

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/apicall"
	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

func TestMain(m *testing.M) { os.Exit(emulators.Main(m)) }

// site builds without packages.
func site() map[string]string {
	return map[string]string{
		"package.json":      `{"name":"site","version":"1.0.0","scripts":{"build":"mkdir -p dist && cp -R public/. dist/"}}`,
		"package-lock.json": `{"name":"site","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"site","version":"1.0.0"}}}`,
		".gitignore":        "node_modules/\ndist/\n",
		"public/index.html": "<!doctype html><title>Bakery</title><p>Bread",
	}
}

// output is what a program said so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// TestRun has the worker in the container claim a project, carry out a command and
// deploy it to S3, on the emulators, and leave on SIGTERM.
func TestRun(t *testing.T) {
	c, set, git := newContainer(t), emulators.Shared(t), gitserver.Start(t)
	project := strings.ReplaceAll(emulators.Unique(t, "p"), "_", "-")
	pair := protocol.Pair{ProjectID: project, UserID: "scott"}
	var names protocol.Names
	bucket := names.Bucket(project)
	set.CreateBucket(t, bucket)
	dead := names.DLQ(pair)
	set.CreateQueue(t, dead, "")
	set.CreateQueue(t, names.Input(pair), dead)
	answers := set.CreateQueue(t, names.Output(pair), "")
	unclaimed := set.CreateQueue(t, emulators.Unique(t, "unclaimed"), "")
	table := emulators.Unique(t, "claims")
	set.CreateClaimTable(t, table)

	var calls apicall.Recorder
	cmd := c.command([]string{
		"AWS_ENDPOINT_URL_SQS=" + calls.Proxy(t, set.SQS), "AWS_ENDPOINT_URL_DYNAMODB=" + calls.Proxy(t, set.DynamoDB),
		"AWS_ENDPOINT_URL_S3=" + calls.Proxy(t, set.S3), "S3_FORCE_PATH_STYLE=true", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_REGION=" + emulators.Region, "AWS_ACCESS_KEY_ID=" + emulators.AccessKey, "AWS_SECRET_ACCESS_KEY=" + emulators.SecretKey,
		"UNCLAIMED_QUEUE_URL=" + unclaimed, "CONTAINER_OWNERSHIP_TABLE=" + table, "EFS_MOUNT_PATH=/mnt/efs",
		"ALLOWED_REPO_HOSTS=" + git.Host, "GITHUB_TOKEN=" + gitserver.Token,
		"AGENT=command", "AGENT_COMMAND=" + c.add("agent", []byte("#!/bin/sh\ncat > public/note.txt\necho done\n"), 0o755),
	}, "webordinary", "run")
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(said.String())
		}
	})

	body, err := json.Marshal(map[string]any{
		"type": "work", "sessionId": "s1", "threadId": "t1", "projectId": project, "userId": "scott", "commandId": "c1",
		"repoUrl": git.Create(t, "bakery.git", site()), "instruction": "Bake",
	})
	if err != nil {
		t.Fatal(err)
	}
	queues := set.SQSClient(t)
	if _, err := queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &unclaimed, MessageBody: aws.String(string(body))}); err != nil {
		t.Fatal(err)
	}
	out := answer(t, queues, answers)
	if !out.Success || out.S3Bucket != bucket {
		t.Fatalf("the answer is %+v", out)
	}
	got, err := set.S3Client(t).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("note.txt")})
	if err != nil || *got.ContentLength != int64(len("Bake")) {
		t.Errorf("what was deployed: %v, %v", got, err)
	}
	leave(t, c, cmd.Wait)
	t.Logf("the worker called %v", calls.Calls())
}

// answer waits for the one answer.
func answer(t *testing.T, queues *sqs.Client, url string) protocol.OutputMessage {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		in, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 5})
		if err != nil {
			t.Fatal(err)
		}
		if len(in.Messages) > 0 {
			var out protocol.OutputMessage
			if err := json.Unmarshal([]byte(*in.Messages[0].Body), &out); err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	t.Fatal("no answer")
	return protocol.OutputMessage{}
}

// leave asks the worker's own health, sends it SIGTERM as ECS does, and waits until
// it ended with 0. It is the one process below the runner that is process 1 of its
// namespace.
func leave(t *testing.T, c *container, wait func() error) {
	t.Helper()
	code, stdout, stderr := c.run(nil, "webordinary", "health")
	if code != 0 || !strings.HasPrefix(stdout, "the worker lives: ") {
		t.Errorf("health while it works: %d, %q %q", code, stdout, stderr)
	}
	pid := workerOf(t, c)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
}
