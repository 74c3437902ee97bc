package handlers

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// deployWanted reports whether the bucket shall get the thread's head: it has
// something else, or something incomplete. A first command that changes nothing
// deploys nothing, and an older command does not undo a later one.
func (j *job) deployWanted(ctx context.Context) (bool, error) {
	site, known, err := j.h.Journal.LoadSite(ctx, j.bucketName())
	if err != nil {
		return false, err
	}
	if known && site.Complete && j.entry.Commit == site.Commit {
		j.out.BuildSuccess = true
		j.deployed(site.Deployed)
		return false, nil
	}
	switch {
	case j.failedAlready():
		return false, nil
	case j.isSuperseded(site):
		j.out.Superseded = true
		return false, nil
	case known:
		return true, nil
	}
	return j.changed(), nil
}

// isSuperseded reports whether a later command than this was deployed.
func (j *job) isSuperseded(site journal.Site) bool {
	own := site.ProjectKey == j.h.Lease.Key() && site.CommandID == j.in.CommandID
	return site.Complete && !own && site.Sent.After(j.in.Delivery.Sent)
}

// wantDeploy remembers that a bucket nobody deployed to yet shall get the thread,
// although its build failed: also when the next command changes nothing.
func (j *job) wantDeploy(ctx context.Context) error {
	if _, known, err := j.h.Journal.LoadSite(ctx, j.bucketName()); known || err != nil {
		return err // there is nothing to wait for
	}
	return j.inTurn(ctx, func(ctx context.Context, t *turn) error {
		if t.known {
			return nil
		}
		return j.saveSite(ctx, journal.Site{Bucket: j.bucketName()}, t.lease)
	})
}

func (j *job) bucketName() string { return j.h.Names.Bucket(j.in.ProjectID) }

// deployAndPush does both to their end, side by side. What one fails with does
// not stop the other.
func (j *job) deployAndPush(ctx context.Context) error {
	var pushErr error
	var wg sync.WaitGroup
	defer wg.Wait() // also when a deploy panics
	wg.Go(func() { pushErr = j.measure(ctx, "push", j.push) })
	deployErr := j.measure(ctx, "deploy", j.deploy)
	wg.Wait()
	return errors.Join(deployErr, pushErr)
}

func (j *job) deploy(ctx context.Context) error {
	if j.has(journal.Deployed) {
		return nil
	}
	err := j.inTurn(ctx, j.deployInTurn)
	var leaving sync.WaitGroup
	defer leaving.Wait()
	leaving.Go(func() { j.endTurn(ctx) }) // nobody need wait for the push, nor we for this
	if err != nil {
		return err
	}
	return j.record(ctx, journal.Deployed)
}

func (j *job) deployInTurn(ctx context.Context, t *turn) error {
	name := j.bucketName()
	if j.isSuperseded(t.site) { // since the build began
		j.mu.Lock()
		j.out.Superseded = true
		j.mu.Unlock()
		return nil
	}
	j.tell("deploy", "uploading to "+name)
	site, err := j.sync(ctx, t.lease, j.begun(name, t.site), t.site)
	if err != nil {
		if !j.blame(ctx, err) {
			return err
		}
		return nil
	}
	j.mu.Lock()
	j.deployed(site.Deployed)
	j.mu.Unlock()
	return nil
}

// sync makes the bucket hold the build, and the journal know what it holds: before,
// while the build is read, that something is begun, and after, what came of it.
func (j *job) sync(ctx context.Context, t *claim.Lease, site, before journal.Site) (journal.Site, error) {
	bucket, err := j.h.Bucket(site.Bucket)
	if err != nil {
		return site, err
	}
	var notBegun error
	begin := func(ctx context.Context) error {
		notBegun = j.saveSite(ctx, site, t)
		return notBegun
	}
	state, undisturbed := j.recallBucket(ctx, before)
	may := func() error { return j.mayDeploy(t) }
	result, err := deploy.Sync(ctx, turnBucket{bucket, may}, deploy.Options{
		Dir: j.dist, Grace: j.h.AssetGrace, Retired: site.Retired, Now: j.h.Now,
		Begin: begin, BeforePages: j.beforePages, State: state, Undisturbed: undisturbed, Rules: site.Rules,
	})
	if notBegun != nil {
		return site, notBegun
	}
	var refused *deploy.Error
	if errors.As(err, &refused) && refused.Code == deploy.CodeRefused { // the bucket was not touched
		before.Bucket = site.Bucket
		return site, cmp.Or(j.saveSite(ctx, before, t), err)
	}
	site.Retired = result.Retired
	if err == nil {
		site.Complete, site.Deployed, site.Rules = true, j.h.now(), deploy.HeaderRules
	}
	j.rememberBucket(ctx, site, result.State)
	// What the journal does not know of may be undone by an older command.
	return site, cmp.Or(err, j.saveSite(ctx, site, t))
}

// doubt is how long a worker that was cut off while it deployed is expected to come
// back and finish a call. Calls have deadlines; this is for what was sent and is
// under way.
const doubt = time.Hour

// begun is what the journal says of the bucket while it is being deployed to.
func (j *job) begun(bucket string, before journal.Site) journal.Site {
	site := journal.Site{
		Bucket: bucket, Commit: j.entry.Commit, ProjectKey: j.h.Lease.Key(), CommandID: j.in.CommandID,
		Sent: j.in.Delivery.Sent, Retired: before.Retired, Doubt: before.Doubt,
	}
	if before.Commit != "" && !before.Complete {
		site.Doubt = j.h.now().Add(doubt)
	}
	if site.Retired == nil { // none, rather than not known: what is replaced now was in use until now
		site.Retired = map[string]time.Time{}
	}
	if before.Rules == deploy.HeaderRules {
		site.Rules = before.Rules // else it takes a whole deploy
	}
	return site
}

// beforePages is the last moment for an interruption: once a page is uploaded
// the deploy is finished.
func (j *job) beforePages(ctx context.Context) error {
	if !j.closeWindow() {
		return context.Cause(ctx)
	}
	return nil
}

// deployed says where the site is.
func (j *job) deployed(at time.Time) {
	j.out.DeploySuccess, j.out.Superseded, j.out.DeploymentTime = true, false, at.UnixMilli()
	j.out.S3Bucket = j.bucketName()
	j.out.S3URL = j.h.Names.SiteURL(j.out.S3Bucket)
	j.out.PreviewURL = j.out.S3URL
}

func (j *job) push(ctx context.Context) error {
	if j.has(journal.Pushed) {
		return nil
	}
	if !j.changed() && !j.ws.Unpushed() {
		return nil
	}
	j.tell("push", "pushing "+j.ws.Branch())
	if err := j.h.Lease.Check(); err != nil {
		return err
	}
	pushed, err := j.ws.Push(ctx, workspace.PushRequest{
		SHA: j.entry.Commit, CommandID: j.in.CommandID,
		IsTwin: func(message string) bool { return isTwin(message, j.in, j.h.Lease.Fence()) },
	})
	var conflict *workspace.ConflictError
	switch {
	case errors.As(err, &conflict):
		j.blame(ctx, &StepError{Code: protocol.MergeConflict, Permanent: true, Reason: conflict.Error(), Err: err})
		j.mu.Lock()
		j.out.Branch = conflict.Branch
		j.mu.Unlock()
	case err != nil:
		return err
	case pushed.Twin != "":
		if err := j.adoptTwin(ctx, pushed); err != nil {
			return err
		}
	}
	return j.record(ctx, journal.Pushed)
}

// adoptTwin answers with what an earlier owner, which was frozen, pushed late.
func (j *job) adoptTwin(ctx context.Context, p workspace.Push) error {
	files, err := j.ws.Files(ctx, p.Twin+"^", p.Twin)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entry.Twin, j.out.CommitID = p.Twin, p.Twin
	j.out.SetFiles(files)
	if p.Side != "" {
		j.out.Summary = strings.TrimSpace(j.out.Summary + "\n\nThis instruction was carried out twice, as a worker was cut off and came back. " +
			"The branch has what that one did. What is told here is kept on the branch " + p.Side +
			"; if it was deployed, the site shows it until the next instruction.")
	}
	return nil
}

func (j *job) has(m journal.Mark) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entry.Has(m)
}
