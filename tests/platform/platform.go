package platform

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform/runlog"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// Options says what the workers are told. Its zero value works.
type Options struct {
	Lease      time.Duration // LEASE_DURATION; zero means 4 s
	Renewal    time.Duration // LEASE_RENEWAL; zero means 1 s
	Sweep      time.Duration // SWEEP_INTERVAL; zero means 1 s
	Visibility time.Duration // VISIBILITY_TIMEOUT; zero means 5 s
	Idle       time.Duration // IDLE_TIMEOUT; zero means 3 s
	Grace      time.Duration // SHUTDOWN_GRACE; zero means 12 s, so a job may finish within two
	// Policy is INTERRUPT_POLICY; empty means never.
	Policy string
	// Npm is set for builds by the real npm; else the site's own program
	// stands in for it, in a fraction of its time.
	Npm bool
	// Files are a new repository's; nil means those of package site.
	Files map[string]string
	// Program is the path of the workers' program; empty means one that is built
	// for the tests, with faults to order.
	Program string
	// Unread is set for tests that read the output queues themselves.
	Unread bool
	// Unlogged is set for children behind a wall, which cannot write to the log of
	// runs. Check does not look at them then.
	Unlogged bool
	// Env is set for every worker, and wins.
	Env []string
}

func (o Options) withDefaults() Options {
	for d, otherwise := range map[*time.Duration]time.Duration{
		&o.Lease: 4 * time.Second, &o.Renewal: time.Second, &o.Sweep: time.Second,
		&o.Visibility: 5 * time.Second, &o.Idle: 3 * time.Second, &o.Grace: 12 * time.Second,
	} {
		if *d == 0 {
			*d = otherwise
		}
	}
	if o.Policy == "" {
		o.Policy = "never"
	}
	if o.Files == nil {
		o.Files = site.Files()
	}
	return o
}

// Platform is the platform of one test, with names of its own on the emulators. Its
// methods may be called from several goroutines, but only fail the test in its own.
type Platform struct {
	Options      Options
	Set          *emulators.Set
	Git          *gitserver.Server
	Names        protocol.Names
	Table        string
	UnclaimedURL string
	// Workspaces is the directory that all workers share, as on EFS.
	Workspaces string

	tb     testing.TB
	sqs    *sqs.Client
	db     *dynamodb.Client
	s3     *s3.Client
	built  *builds
	front  *gitFront
	runLog string

	unclaimedDLQ string

	mu       sync.Mutex
	projects []*Project
	workers  []*Worker
	numbers  map[string]int
	history  history
}

// Project is a project and user with all that infrastructure made for them.
type Project struct {
	protocol.Pair
	Repo    string // name of the repository on the git server
	RepoURL string
	Bucket  string

	InputURL, OutputURL, DLQURL, InterruptsURL string
}

// New makes a platform that ends with the test.
func New(tb testing.TB, o Options) *Platform {
	tb.Helper()
	set := emulators.Shared(tb)
	id := emulators.Unique(tb, "p")
	p := &Platform{
		Options: o.withDefaults(), Set: set, Git: gitserver.Start(tb), tb: tb, numbers: map[string]int{},
		sqs: set.SQSClient(tb), db: set.DynamoDBClient(tb), s3: set.S3Client(tb), built: programs.get(tb),
		Table: id + "-ownership", Workspaces: tb.TempDir(), runLog: filepath.Join(tb.TempDir(), "runs.jsonl"),
		Names: protocol.Names{
			InputPattern: id + "-input-{projectId}-{userId}", OutputPattern: id + "-output-{projectId}-{userId}",
			DLQPattern: id + "-dlq-{projectId}-{userId}", InterruptsPattern: id + "-interrupts-{projectId}-{userId}",
			ProgressPattern: id + "-progress-{projectId}-{userId}", UnclaimedDLQ: id + "-unclaimed-dlq",
			BucketPattern: "edit.{projectId}." + id + ".test",
		},
	}
	p.history.start(p)
	p.front = startGitFront(tb, p.Git.URL)
	set.CreateClaimTable(tb, p.Table)
	p.unclaimedDLQ = set.CreateQueue(tb, p.Names.UnclaimedDLQ, "")
	p.UnclaimedURL = set.CreateQueue(tb, id+"-unclaimed", p.Names.UnclaimedDLQ)
	return p
}

// AddProject makes what infrastructure makes for a project and user, and begins to
// read their output queue. Users of one project share its bucket and repository.
func (p *Platform) AddProject(projectID, userID string) *Project {
	p.tb.Helper()
	pair := protocol.Pair{ProjectID: projectID, UserID: userID}
	dead := p.Names.DLQ(pair)
	j := &Project{
		Pair: pair, Repo: projectID + ".git", Bucket: p.Names.Bucket(projectID),
		DLQURL: p.Set.CreateQueue(p.tb, dead, ""),
	}
	j.InputURL = p.Set.CreateQueue(p.tb, p.Names.Input(pair), dead)
	j.OutputURL = p.Set.CreateQueue(p.tb, p.Names.Output(pair), dead)
	j.InterruptsURL = p.Set.CreateQueue(p.tb, p.Names.Interrupts(pair), dead)
	j.RepoURL = p.front.url() + "/" + j.Repo
	p.mu.Lock()
	known := false
	for _, other := range p.projects {
		known = known || other.ProjectID == projectID
	}
	p.projects = append(p.projects, j)
	p.mu.Unlock()
	if !known {
		p.Git.Create(p.tb, j.Repo, p.Options.Files)
		p.Set.CreateBucket(p.tb, j.Bucket)
	}
	if !p.Options.Unread {
		p.history.read(j)
	}
	return j
}

// Projects returns those added so far.
func (p *Platform) Projects() []*Project {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*Project{}, p.projects...)
}

// Runs returns what agents and builds have logged so far.
func (p *Platform) Runs() []runlog.Run {
	p.tb.Helper()
	runs, err := runlog.Read(p.runLog)
	if err != nil {
		p.tb.Fatal(err)
	}
	return runs
}
