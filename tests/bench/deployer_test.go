package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

// deployerVariable makes the program of these tests the one that deploys: a process
// of its own, as the tools beside it are, so that processor time and memory are of
// the deploy alone.
const deployerVariable = "BENCH_DEPLOYER"

// deployRequest is a line on the deployer's input.
type deployRequest struct {
	S3, DynamoDB string // endpoints; with DynamoDB it deploys in turn and writes the journal, as a worker does
	Table        string
	Bucket       string
	Dir          string
	Memory       string // file of what is remembered of the bucket; empty means that nothing is
}

// deployed is the line that answers it.
type deployed struct {
	Error     string
	Wall, CPU time.Duration
	RSS       int64 // most resident bytes meanwhile
}

// runDeployer answers requests until its input ends, or one fails.
func runDeployer(in io.Reader, out io.Writer) error {
	d := &deployer{clients: map[string]*bucketClient{}}
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r deployRequest
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer := d.measure(r)
		if err := answers.Encode(answer); err != nil {
			return err
		}
		if answer.Error != "" {
			return errors.New(answer.Error)
		}
	}
}

// deployer is the part of the worker that deploys.
type deployer struct{ clients map[string]*bucketClient }

// bucketClient is the worker's clients of one pair of endpoints.
type bucketClient struct {
	open   func(name string) deploy.Bucket
	tables func(name string) *table.Tables
}

func (d *deployer) client(s3URL, dynamoURL string) *bucketClient {
	if c := d.clients[s3URL+dynamoURL]; c != nil {
		return c
	}
	cfg := aws.Config{Region: emulators.Region, Credentials: credentials.NewStaticCredentialsProvider(emulators.AccessKey, emulators.SecretKey, "")}
	at := cfg
	at.BaseEndpoint = &s3URL
	s3 := bucket.NewClient(at, true)
	cfg.BaseEndpoint = &dynamoURL
	dynamo := dynamodb.NewFromConfig(cfg)
	c := &bucketClient{
		open:   func(name string) deploy.Bucket { return bucket.Open(s3, name, bucket.Options{}) },
		tables: func(name string) *table.Tables { return table.New(dynamo, table.Config{Ownership: name}) },
	}
	d.clients[s3URL+dynamoURL] = c
	return c
}

func (d *deployer) measure(r deployRequest) deployed {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil { // forgets the peak
		return deployed{Error: err.Error()}
	}
	cpu, began := processorTime(syscall.RUSAGE_SELF), time.Now()
	err := d.deploy(context.Background(), r)
	answer := deployed{Wall: time.Since(began), CPU: processorTime(syscall.RUSAGE_SELF) - cpu}
	if err == nil {
		answer.RSS, err = peak("/proc/self/status")
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

func (d *deployer) deploy(ctx context.Context, r deployRequest) error {
	c := d.client(r.S3, r.DynamoDB)
	if r.DynamoDB == "" {
		return deploySite(ctx, c.open(r.Bucket), r, nil)
	}
	t := c.tables(r.Table)
	claims := &claim.Claims{Table: t.Claims(), ContainerID: "bench"}
	lease, err := claims.Await(ctx, "bucket:"+r.Bucket)
	if err != nil {
		return err
	}
	j := &journal.Journal{Store: t.Journal()}
	fence := journal.Fence{ProjectKey: lease.Key(), Number: lease.Fence()}
	for range 2 { // is it wanted; is it, still, in our turn
		if _, _, err := j.LoadSite(ctx, r.Bucket); err != nil {
			return err
		}
	}
	site := journal.Site{Bucket: r.Bucket, Commit: strings.Repeat("a", 40), ProjectKey: "amelia#scott", CommandID: "c-1"}
	begin := func(ctx context.Context) error { return j.SaveSite(ctx, site, fence) }
	if err := deploySite(ctx, c.open(r.Bucket), r, begin); err != nil {
		return err
	}
	site.Complete = true
	if err := j.SaveSite(ctx, site, fence); err != nil {
		return err
	}
	var leaving sync.WaitGroup
	var left error
	leaving.Go(func() { left = lease.Release(ctx) })
	entry := &journal.Entry{ProjectKey: "amelia#scott", CommandID: "c-1", Done: []journal.Mark{journal.Deployed}}
	err = j.Save(ctx, entry, fence) // Release leaves the fence as it is
	leaving.Wait()
	return errors.Join(err, left)
}

// deploySite deploys. What is remembered goes through a file, as in the worker.
func deploySite(ctx context.Context, b deploy.Bucket, r deployRequest, begin func(context.Context) error) error {
	o := deploy.Options{Dir: r.Dir, Rules: deploy.HeaderRules, Begin: begin}
	if raw, err := os.ReadFile(r.Memory); err == nil {
		if o.State, err = deploy.DecodeState(raw); err != nil {
			return err
		}
		o.Undisturbed = true
	}
	result, err := deploy.Sync(ctx, b, o)
	if err != nil || r.Memory == "" {
		return err
	}
	raw, err := result.State.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(r.Memory, raw, 0o600)
}

// processorTime is that of this process, or of its descendants that have ended.
func processorTime(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0 // it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is VmHWM, in bytes, in the status of a process.
func peak(status string) (int64, error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest + " none")[0], 10, 64)
	return kb << 10, err
}

// deployerProcess is a deployer that runs.
type deployerProcess struct {
	in  *json.Encoder
	out *json.Decoder
}

// deployerCommand is a deployer that is given its requests, or has a pipe instead.
func deployerCommand(tb testing.TB, requests string) *exec.Cmd {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c := exec.CommandContext(context.WithoutCancel(tb.Context()), self) // it ends with its input
	c.Env = []string{deployerVariable + "=1"}
	c.Stdin = strings.NewReader(requests)
	return c
}

func startDeployer(tb testing.TB) *deployerProcess {
	tb.Helper()
	cmd := deployerCommand(tb, "")
	cmd.Stdin, cmd.Stderr = nil, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := in.Close(); err != nil {
			tb.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			tb.Errorf("deployer: %v", err)
		}
	})
	return &deployerProcess{in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

// cost has one deploy made, and returns what it took.
func (p *deployerProcess) cost(r deployRequest) (cost, error) {
	var d deployed
	if err := p.in.Encode(r); err != nil {
		return cost{}, err
	}
	if err := p.out.Decode(&d); err != nil {
		return cost{}, err
	}
	if d.Error != "" {
		return cost{}, fmt.Errorf("deployer: %s", d.Error)
	}
	return cost{wall: d.Wall, cpu: d.CPU, rss: d.RSS}, nil
}
