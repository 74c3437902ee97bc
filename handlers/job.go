package handlers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// job is one run of one command.
type job struct {
	h  *Instruction
	in protocol.InputMessage
	ws *workspace.Workspace // nil until open
	// The build, and what is kept of the workspace besides its commits.
	dist, cache string

	turn *turn // nil until asked for

	mu     sync.Mutex // deploy, push and an interruption meet here
	entry  journal.Entry
	out    protocol.OutputMessage // the answer as far as it is known
	closed bool                   // an interruption comes too late, or has come
	began  map[string]time.Time   // the steps that were told
}

func newJob(h *Instruction, in protocol.InputMessage, e journal.Entry) (*job, error) {
	j := &job{h: h, in: in, entry: e, out: protocol.NewOutput(in), began: map[string]time.Time{}}
	if len(e.Draft) > 0 {
		if err := json.Unmarshal(e.Draft, &j.out); err != nil {
			return nil, fmt.Errorf("read the draft of the answer: %w", err)
		}
	}
	j.out.Attempt = e.Attempt
	return j, nil
}

// handle runs the steps that are left, and turns how they ended into an answer
// or an error.
func (j *job) handle(ctx context.Context) (protocol.Answer, error) {
	if j.entry.Interrupted { // decided before a crash
		if err := j.opened(ctx); err != nil {
			return protocol.Answer{}, err
		}
		return j.cutOff(ctx)
	}
	if !j.entry.Blamed { // an earlier run failed transiently; that is forgotten
		j.out.ErrorCode, j.out.Error = "", ""
	}
	work, stop := j.interruptible(ctx)
	defer stop()
	defer j.endTurn(ctx) // whatever happens: it would be renewed for ever
	err := j.steps(work)
	inTime := !j.closeWindow()
	cause := cutShort(work)
	stop()
	var i *InterruptError
	switch {
	case inTime:
		return j.cutOff(ctx)
	case err == nil:
		clean, cancel := j.h.detach(ctx)
		defer cancel()
		return j.finish(clean)
	case errors.As(cause, &i): // cannot be: it would have been in time
		return protocol.Answer{}, j.failed(ctx, err)
	case errors.Is(cause, ErrShutdown):
		j.handBack(ctx)
		return protocol.Answer{}, cause
	case cause != nil:
		return protocol.Answer{}, cause
	}
	return protocol.Answer{}, j.failed(ctx, err)
}

// steps is the whole of a command. Each step is recorded before the next one
// begins, and skipped if a former run recorded it.
func (j *job) steps(ctx context.Context) error {
	if err := j.measure(ctx, "workspace", j.begin); err != nil {
		return err
	}
	if err := j.measure(ctx, "install", j.prepare); err != nil {
		return err
	}
	if err := j.measure(ctx, "agent", j.runAgent); err != nil {
		return err
	}
	if err := j.measure(ctx, "commit", j.commit); err != nil {
		return err
	}
	if err := j.measure(ctx, "build", j.build); err != nil {
		return err
	}
	return j.deployAndPush(ctx)
}

// opened has the journal know of this run.
func (j *job) opened(ctx context.Context) error {
	if err := j.record(ctx, journal.Opened); err != nil {
		return j.h.internal(ctx, err)
	}
	return nil
}

// begin opens the workspace while the journal takes note of the run. Before both are
// done nothing of the command is.
func (j *job) begin(ctx context.Context) error {
	j.tell("workspace", "opening branch "+protocol.Branch(j.in.ThreadID))
	var noted error
	var wg sync.WaitGroup
	defer wg.Wait() // also when opening panics
	wg.Go(func() { noted = j.opened(ctx) })
	err := j.openWorkspace(ctx)
	wg.Wait()
	return cmp.Or(noted, err)
}

func (j *job) openWorkspace(ctx context.Context) error {
	if err := j.h.Lease.Check(); err != nil {
		return err
	}
	ws, err := j.h.Workspaces.Open(ctx, workspace.Request{
		ProjectID: j.in.ProjectID, UserID: j.in.UserID, Dir: j.h.Pair.Dir(), RepoURL: j.in.RepoURL,
		Branch: protocol.Branch(j.in.ThreadID), Owner: j.in.CommandID, Committed: j.committed(),
		Wip:   func(owner string) string { return "WIP: unfinished work\n\nWip-For: " + owner + "\n" },
		Saved: j.saved,
	})
	if err != nil {
		return err
	}
	j.ws, j.dist, j.cache = ws, filepath.Join(ws.Site(), "dist"), ws.Cache()
	if err := agent.Rescue(ws.Job(), ws.Conversations()); err != nil {
		return err
	}
	if err := ws.EmptyJob(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.missWork(ctx); err != nil {
		return err
	}
	if j.entry.Base == "" {
		j.entry.Base = ws.Head()
	}
	j.out.Branch, j.out.CommitID = ws.Branch(), ws.Head()
	if own := cmp.Or(j.entry.Twin, j.entry.Commit); own != "" {
		j.out.CommitID = own
	}
	return nil
}

// committed is the command's commit; empty if it has none.
func (j *job) committed() string {
	if j.has(journal.Committed) {
		return j.entry.Commit
	}
	return ""
}

// saved lets the journal know of the commit that a command's unfinished work went
// to: when it is run again, it ends in a commit of its own.
func (j *job) saved(ctx context.Context, owner, sha string) error {
	if owner == j.in.CommandID {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.entry.Wip = sha
		return j.saveLocked(ctx)
	}
	e, found, err := j.h.Journal.Load(ctx, j.h.Lease.Key(), owner)
	if err != nil || !found || e.Has(journal.Finished) {
		return err
	}
	e.Wip = sha
	return j.h.save(ctx, &e)
}

// missWork begins again if the directory was lost with a commit that nobody else
// had. If the commit was amended, and a crash came before the journal knew, the
// amendment is the command's.
func (j *job) missWork(ctx context.Context) error {
	if !j.entry.Has(journal.Committed) || j.entry.Has(journal.Pushed) {
		return nil
	}
	has, err := j.ws.Contains(ctx, j.entry.Commit)
	if has || err != nil {
		return err
	}
	amended, err := j.ws.Replaces(j.entry.Commit)
	if err != nil {
		return err
	}
	if amended && j.changed() {
		files, err := j.ws.Files(ctx, j.entry.Base, j.ws.Head())
		if err != nil {
			return err
		}
		j.setCommitLocked(j.ws.Head(), files)
		return nil
	}
	j.h.log().WarnContext(ctx, "recorded work is gone, running the agent again", slog.String("command_id", j.in.CommandID))
	j.entry.Forget(journal.Agent, journal.Committed, journal.Built, journal.Deployed)
	j.entry.Base, j.entry.Twin = "", ""
	return nil
}

// prepare installs a fresh checkout's packages before an agent has worked in it: it
// would be done later anyway, and only such a tree is kept for other checkouts.
// What goes wrong here goes wrong again in the build, which tells the user.
func (j *job) prepare(ctx context.Context) error {
	if !j.ws.Untouched() || !j.ws.Has("package-lock.json") {
		return nil
	}
	j.tell("install", "installing packages into a fresh checkout")
	err := j.h.Builder.Prepare(ctx, j.buildRequest())
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, process.ErrSilence):
		return err
	case err != nil:
		j.h.log().WarnContext(ctx, "packages not installed before the agent's work", slog.String("command_id", j.in.CommandID), slog.Any("error", err))
	}
	return nil
}

func (j *job) buildRequest() build.Request {
	return build.Request{
		Pair: j.ws.Pair(), Site: j.ws.Site(), Job: j.ws.Job(), Cache: j.ws.Cache(), Downloads: j.ws.Downloads(),
		Read: []string{j.ws.Objects()},
	}
}

// What the agent is told besides the instruction.
const (
	noteRerun = "You began this same instruction before and were cut off without being asked; the files are as you left them. Look at what is done already, then finish it."
)

func (j *job) runAgent(ctx context.Context) error {
	if j.entry.Has(journal.Agent) {
		return nil
	}
	if err := j.forgetDist(); err != nil {
		return err
	}
	j.tell("agent", "carrying out the instruction")
	r := agent.Request{
		ProjectID: j.in.ProjectID, UserID: j.in.UserID, ThreadID: j.in.ThreadID, Instruction: j.in.Instruction,
		Pair: j.ws.Pair(), Site: j.ws.Site(), Job: j.ws.Job(), Conversations: j.ws.Conversations(), Read: []string{j.ws.Objects()}, Spent: j.spent(),
		History: j.ws.History, Progress: j.tellTool,
	}
	if j.entry.Began {
		r.Notes = append(r.Notes, noteRerun)
	}
	j.mu.Lock()
	j.entry.Began = true
	j.mu.Unlock()
	if err := errors.Join(j.ws.Touch(), j.save(ctx)); err != nil {
		return err
	}
	began := j.h.now()
	result, err := j.h.Agent.Run(ctx, r)
	j.account(result, j.h.now().Sub(began))
	if err != nil && !j.blame(ctx, err) {
		return err
	}
	if err == nil {
		j.out.Summary = result.Summary
	}
	for _, d := range result.Denials {
		j.h.log().WarnContext(ctx, "agent was denied a tool", slog.String("tool", d))
	}
	return j.record(ctx, journal.Agent)
}

// blame takes what the user, the agent or the repository caused into the
// answer; false if the error is something else.
func (j *job) blame(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	f := failureOf(err)
	if !f.Permanent || f.Code == protocol.Internal {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.out.ErrorCode == "" {
		j.out.ErrorCode, j.out.Error = f.Code, f.Reason
	}
	j.entry.Blamed = true
	return true
}

func (j *job) failedAlready() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.ErrorCode != ""
}

func (j *job) build(ctx context.Context) error {
	if j.entry.Has(journal.Built) && (j.entry.Has(journal.Deployed) || j.isDist()) {
		return nil
	}
	wanted, err := j.deployWanted(ctx)
	if err != nil {
		return err
	}
	if !wanted {
		j.mu.Lock()
		j.entry.Add(journal.Deployed)
		j.mu.Unlock()
		return j.record(ctx, journal.Built)
	}
	if err := j.forgetDist(); err != nil {
		return err
	}
	j.askTurn(ctx)
	j.tell("build", "building the site")
	result, err := j.h.Builder.Run(ctx, j.buildRequest())
	if err == nil {
		err = j.ws.Intact()
	}
	if result.LockChanged && err == nil {
		err = j.amend(ctx)
	}
	if err != nil {
		if !j.blame(ctx, err) {
			return err
		}
		if err := j.wantDeploy(ctx); err != nil {
			return err
		}
		j.mu.Lock()
		j.entry.Add(journal.Deployed) // nothing will be
		j.mu.Unlock()
	} else {
		j.out.BuildSuccess = true
		if err := os.WriteFile(j.distStamp(), []byte(j.entry.Commit), 0o600); err != nil {
			return fmt.Errorf("remember what was built: %w", err)
		}
	}
	return j.record(ctx, journal.Built)
}

// distStamp is the file that holds the commit which dist was built from. No
// child can write where it lies.
func (j *job) distStamp() string { return filepath.Join(j.cache, "dist-commit") }

// isDist reports whether dist is what a former run of this command built: since
// a crash, another command may have used the checkout.
func (j *job) isDist() bool {
	commit, err := os.ReadFile(j.distStamp())
	return err == nil && string(commit) == j.entry.Commit
}

// forgetDist comes before whatever may change dist.
func (j *job) forgetDist() error {
	if err := os.Remove(j.distStamp()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget what was built: %w", err)
	}
	return nil
}
