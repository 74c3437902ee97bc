package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// keeper is the path of the keeper program. TestMain builds it.
var keeper string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "handlers-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	keeper = filepath.Join(dir, "keeper")
	out, err := exec.Command("go", "build", "-o", keeper, "../cmd/keeper").CombinedOutput() //nolint:noctx // a test's main has no context
	if err != nil {
		panic(fmt.Sprintf("go build keeper: %v\n%s", err, out))
	}
	m.Run()
}

const repoName = "site.git"

// site is a repository that builds without a package: page.html becomes
// index.html. A page that says BREAK does not build, one that says WAIT takes
// a minute to.
func site() map[string]string {
	return map[string]string{
		"package.json":      `{"name":"site","version":"1.0.0","scripts":{"build":"node build.cjs"}}` + "\n",
		"package-lock.json": `{"name":"site","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"site","version":"1.0.0"}}}` + "\n",
		"build.cjs": `const fs = require('fs'), page = fs.readFileSync('page.html', 'utf8');
if (page.includes('BREAK')) { console.error('page.html: cannot be built'); process.exit(1); }
function write() {
  fs.mkdirSync('dist', {recursive: true});
  fs.writeFileSync('dist/index.html', page);
  fs.writeFileSync('dist/style.css', '/* ' + page + ' */');
}
if (page.includes('WAIT')) setTimeout(write, 60000); else write();
`,
		"page.html": "start\n",
	}
}

// world is all that the handler needs, with real parts but for the agent.
type world struct {
	t       *testing.T
	git     *gitserver.Server
	url     string
	table   *claim.Memory
	records *journal.Directory
	agent   *script
	runner  *process.Runner
	env     []string
	sites   string
	disk    string                // of the worker at present
	h       *handlers.Instruction // the worker at present

	frozen atomic.Int64 // how long the worker was frozen, in ns

	mu    sync.Mutex
	sent  time.Time
	steps []string                                    // told so far
	step  func(name string)                           // called at each step, may be nil
	put   func(ctx context.Context, key string) error // called before each upload, may be nil
	lists atomic.Int64                                // how often a bucket was listed
	write func(r journal.Record) error                // called before each write of the journal, may be nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{
		t: t, git: gitserver.Start(t), table: &claim.Memory{}, runner: &process.Runner{Keeper: []string{keeper}},
		env: processtest.Env(t), sites: t.TempDir(), sent: time.Unix(1_800_000_000, 0).UTC(),
	}
	w.url = w.git.Create(t, repoName, site())
	w.agent = &script{play: map[string]agentFunc{}}
	var err error
	w.records, err = journal.NewDirectory(journal.DirectoryConfig{Root: t.TempDir(), Current: func(ctx context.Context, key string) (int64, error) {
		row, err := w.table.Get(ctx, key)
		return row.Fence, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	names := protocol.Names{}
	w.h = &handlers.Instruction{
		Pair:    protocol.Pair{ProjectID: "amelia", UserID: "scott"},
		Journal: &journal.Journal{Store: w},
		Agent:   w.agent, Builder: &build.Builder{Runner: w.runner, Env: w.env},
		Bucket: w.bucket, Names: names, Buckets: &claim.Claims{Table: w.table, ContainerID: "worker"},
		Rules: protocol.Rules{AllowedRepoHosts: []string{w.git.Host}, Names: names},
		Step:  w.tell,
	}
	w.h.Workspaces = w.workspaces()
	w.h.Lease = w.acquire()
	return w
}

// workspaces is the store of a worker that has seen nothing yet.
func (w *world) workspaces() *workspace.Store {
	w.t.Helper()
	w.disk = w.t.TempDir()
	return workspace.New(workspace.Config{
		Root: w.disk, Runner: w.runner, Env: w.env, Token: gitserver.Token, AllowedHosts: []string{w.git.Host},
	})
}

func (w *world) acquire() *claim.Lease {
	w.t.Helper()
	l, err := (&claim.Claims{Table: w.table, ContainerID: "worker", Now: w.leaseNow}).Acquire(w.t.Context(), w.h.Pair.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(l.Abandon)
	return l
}

// nextWorker replaces the worker by one on another machine: with a lease and a
// disk of its own.
func (w *world) nextWorker() {
	w.t.Helper()
	if err := w.h.Lease.Release(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	next := *w.h
	next.Workspaces, next.Lease = w.workspaces(), w.acquire()
	w.h = &next
}

// leaseNow is the clock of the leases.
func (w *world) leaseNow() time.Time { return time.Now().Add(time.Duration(w.frozen.Load())) }

// stolen gives the project to somebody else, unnoticed.
func (w *world) stolen() {
	w.t.Helper()
	seen, err := w.table.Get(w.t.Context(), w.h.Pair.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	next := seen
	next.Fence, next.Rev, next.ContainerID = seen.Fence+1, seen.Rev+1, "thief"
	if err := w.table.Put(w.t.Context(), next, seen); err != nil {
		w.t.Fatal(err)
	}
}

// Get implements journal.Store.
func (w *world) Get(ctx context.Context, key string) (journal.Record, error) {
	return w.records.Get(ctx, key)
}

// Put implements journal.Store.
func (w *world) Put(ctx context.Context, r journal.Record, f journal.Fence) error {
	if w.write != nil {
		if err := w.write(r); err != nil {
			return err
		}
	}
	return w.records.Put(ctx, r, f)
}

func (w *world) bucket(name string) (deploy.Bucket, error) {
	d, err := deploy.OpenDirectory(filepath.Join(w.sites, name), nil)
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { d.Close() }) //nolint:errcheck // it is a test's
	return hooked{Bucket: d, put: w.put, lists: &w.lists}, nil
}

// hooked is a bucket that tells before it takes.
type hooked struct {
	deploy.Bucket
	put   func(ctx context.Context, key string) error
	lists *atomic.Int64
}

// List implements deploy.Bucket.
func (b hooked) List(ctx context.Context) ([]deploy.Object, error) {
	b.lists.Add(1)
	return b.Bucket.List(ctx)
}

// Put implements deploy.Bucket.
func (b hooked) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	if b.put != nil {
		if err := b.put(ctx, o.Key); err != nil {
			return "", err
		}
	}
	return b.Bucket.Put(ctx, o, body, c)
}

func (w *world) tell(s handlers.Step) {
	w.mu.Lock()
	w.steps = append(w.steps, s.Name)
	w.mu.Unlock()
	if w.step != nil {
		w.step(s.Name)
	}
}

// stepped returns the steps told since it was last asked.
func (w *world) stepped() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	steps := w.steps
	w.steps = nil
	return steps
}

type agentFunc func(ctx context.Context, r agent.Request) (agent.Result, error)

// script is an agent that does what was ordered for an instruction. Else it
// makes what follows "page " the page, and does nothing for other instructions.
type script struct {
	mu       sync.Mutex
	requests []agent.Request
	play     map[string]agentFunc
}

// Run implements handlers.Agent.
func (s *script) Run(ctx context.Context, r agent.Request) (agent.Result, error) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	play := s.play[r.Instruction]
	s.mu.Unlock()
	if play != nil {
		return play(ctx, r)
	}
	result := agent.Result{Summary: "Did: " + r.Instruction, Turns: 2, CostUSD: 0.5, Model: "model-1"}
	if text, ok := strings.CutPrefix(r.Instruction, "page "); ok {
		return result, write(r, "page.html", text)
	}
	return result, nil
}

// ran is how often the agent was asked.
func (s *script) ran() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// last is what the agent was asked last.
func (s *script) last() agent.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1]
}

func write(r agent.Request, name, text string) error {
	path := filepath.Join(r.Site, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text+"\n"), 0o600)
}

// message is a command of amelia and scott, sent a second after the one before.
func (w *world) message(thread, command, instruction string) protocol.InputMessage {
	w.sent = w.sent.Add(time.Second)
	return protocol.InputMessage{
		ProjectID: "amelia", UserID: "scott", ThreadID: thread, SessionID: "session-1", CommandID: command,
		Instruction: instruction, RepoURL: w.url,
		Delivery: protocol.Delivery{MessageID: "m-" + command, Sent: w.sent, Receives: 1},
	}
}

// under is the same message under another id of the queue.
func under(m protocol.InputMessage, id string) protocol.InputMessage {
	m.Delivery.MessageID = id
	return m
}

// output reads an answer.
func output(t *testing.T, a protocol.Answer) protocol.OutputMessage {
	t.Helper()
	var out protocol.OutputMessage
	if err := json.Unmarshal(a.Body, &out); err != nil {
		t.Fatalf("answer %q: %v", a.Body, err)
	}
	return out
}

// do carries a command out as the router does: what fails for good is given to
// Fail, and the answer is recorded as published.
func (w *world) do(m protocol.InputMessage) protocol.OutputMessage {
	w.t.Helper()
	return w.doWith(w.t.Context(), m)
}

func (w *world) doWith(ctx context.Context, m protocol.InputMessage) protocol.OutputMessage {
	w.t.Helper()
	a, err := w.h.Handle(ctx, m)
	var f *handlers.StepError
	if errors.As(err, &f) && f.Permanent {
		a, err = w.h.Fail(ctx, m, err)
	}
	if err != nil {
		w.t.Fatalf("%s: %v", m.CommandID, err)
	}
	if err := w.h.Answered(ctx, m); err != nil {
		w.t.Fatal(err)
	}
	return output(w.t, a)
}

// succeed is do for a command that has to succeed.
func (w *world) succeed(m protocol.InputMessage) protocol.OutputMessage {
	w.t.Helper()
	out := w.do(m)
	if !out.Success {
		w.t.Fatalf("%s failed: %+v", m.CommandID, out)
	}
	return out
}

// refuse is Handle for a command that has to fail.
func (w *world) refuse(m protocol.InputMessage) *handlers.StepError {
	w.t.Helper()
	a, err := w.h.Handle(w.t.Context(), m)
	var f *handlers.StepError
	if !errors.As(err, &f) || a.Body != nil {
		w.t.Fatalf("%s: got %s and %v, want a *StepError", m.CommandID, a.Body, err)
	}
	return f
}

// entry is what the journal has of the command c-1; the zero Entry if it has
// nothing.
func (w *world) entry() journal.Entry {
	w.t.Helper()
	e, _, err := w.h.Journal.Load(w.t.Context(), "amelia#scott", "c-1")
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// live is the page in the project's bucket; empty if there is none.
func (w *world) live() string {
	b, err := os.ReadFile(filepath.Join(w.sites, "edit.amelia.webordinary.com", "index.html"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// log returns the subjects of a branch's commits since main, newest first.
func (w *world) log(branch string) []string {
	w.t.Helper()
	if gitserver.Git(w.t, w.git.Bare(repoName), "branch", "--list", branch) == "" {
		return nil
	}
	out := gitserver.Git(w.t, w.git.Bare(repoName), "log", "--format=%s", "main.."+branch)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

func (w *world) head(branch string) string {
	w.t.Helper()
	return gitserver.Git(w.t, w.git.Bare(repoName), "rev-parse", branch)
}

// page returns the page on a branch of the remote.
func (w *world) page(branch string) string {
	w.t.Helper()
	return gitserver.Git(w.t, w.git.Bare(repoName), "show", branch+":page.html")
}
