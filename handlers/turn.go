package handlers

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// bucketKey is the key of the claim on a bucket. No project and user have a key
// with a colon.
const bucketKey = "bucket:"

// IsBucket reports whether a claim's key is that of a bucket.
func IsBucket(key string) bool { return strings.HasPrefix(key, bucketKey) }

// turn is the right to deploy to a bucket. The users of a project share one
// bucket, and their workers deploy to it in turn.
type turn struct {
	cancel context.CancelFunc
	asked  chan struct{} // closed when lease and site, or err, are there
	lease  *claim.Lease
	err    error
	// site is what the journal knows of the bucket. Until the turn ends nobody else
	// can write that.
	site  journal.Site
	known bool
}

// askTurn asks for the bucket. What comes until it is needed, such as a build, goes
// on meanwhile.
func (j *job) askTurn(ctx context.Context) *turn {
	if j.turn != nil {
		return j.turn
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &turn{cancel: cancel, asked: make(chan struct{})}
	j.turn = t
	go func() {
		defer close(t.asked)
		if t.lease, t.err = j.h.Buckets.Await(ctx, bucketKey+j.bucketName()); t.err == nil {
			t.site, t.known, t.err = j.h.Journal.LoadSite(ctx, j.bucketName())
		}
	}()
	return t
}

// awaitTurn returns when the bucket is ours.
func (j *job) awaitTurn(ctx context.Context) (*turn, error) {
	t := j.askTurn(ctx)
	<-t.asked
	return t, t.err
}

// endTurn lets the next one deploy. A turn that cannot be given up ends like that
// of a dead worker.
func (j *job) endTurn(ctx context.Context) {
	t := j.turn
	if t == nil {
		return
	}
	j.turn = nil
	t.cancel()
	<-t.asked
	if t.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := t.lease.Release(ctx); err != nil && !errors.Is(err, claim.ErrLeaseLost) {
		j.h.log().WarnContext(ctx, "bucket not given up; others wait until the lease ends", slog.Any("error", err))
	}
}

// errTurnLost is a failure of the deploy, not the loss of the project.
var errTurnLost = errors.New("the turn on the bucket was lost")

// inTurn runs a part of a deploy that only one worker at a time may do. It ends
// when the turn is lost.
func (j *job) inTurn(ctx context.Context, do func(ctx context.Context, t *turn) error) error {
	t, err := j.awaitTurn(ctx)
	if err != nil {
		return err
	}
	bound, unbind := t.lease.Bind(ctx)
	defer unbind()
	err = do(bound, t)
	if err != nil && ctx.Err() == nil && (t.lease.Check() != nil || errors.Is(err, errTurnLost)) {
		j.endTurn(ctx) // another try asks anew
		return &StepError{Code: protocol.DeployFailed, Reason: "another worker took over the bucket of this site in the meantime", Err: errTurnLost}
	}
	return err
}

// mayDeploy is asked before each call that changes the bucket or what the journal
// says of it.
func (j *job) mayDeploy(t *claim.Lease) error {
	if err := j.h.Lease.Check(); err != nil {
		return err
	}
	if t.Check() != nil {
		return errTurnLost
	}
	return nil
}

// saveSite writes what a bucket holds, while it is our turn.
func (j *job) saveSite(ctx context.Context, s journal.Site, t *claim.Lease) error {
	if err := j.mayDeploy(t); err != nil {
		return err
	}
	err := j.h.Journal.SaveSite(ctx, s, journal.Fence{ProjectKey: t.Key(), Number: t.Fence()})
	if errors.Is(err, journal.ErrFenced) { // of the bucket, not of the project
		return errTurnLost
	}
	return err
}

// turnBucket is a bucket that is changed in turn only. A worker that was frozen
// may come back between any two calls, before its context has ended.
type turnBucket struct {
	deploy.Bucket
	may func() error
}

// Put implements deploy.Bucket.
func (b turnBucket) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	if err := b.may(); err != nil {
		return "", err
	}
	return b.Bucket.Put(ctx, o, body, c)
}

// Delete implements deploy.Bucket.
func (b turnBucket) Delete(ctx context.Context, keys ...string) error {
	if err := b.may(); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, keys...)
}
