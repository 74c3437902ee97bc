package workspace

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// PushRequest says what to push.
type PushRequest struct {
	SHA       string // a commit of the branch; what is on top of it goes along
	CommandID string // names the side branch
	// IsTwin reports, by its message, whether a commit that the remote has and
	// we have not is what an earlier owner made of the same command; nil means
	// that none is. Then the remote's branch is kept as it is.
	IsTwin func(message string) bool
}

// Push is what the remote's branch became.
type Push struct {
	SHA string // it contains the commit, unless there is a twin; it may be a merge
	// Twin is the remote's commit of the same command, if it was found there.
	Twin string
	// Side is the branch beside it that holds our commit, if there is a twin
	// and it lacks something of ours.
	Side string
}

// ConflictError says that the remote's branch has changes that contradict ours.
// Ours are on the remote, on a branch of their own, and the thread continues
// from the remote's.
type ConflictError struct {
	Files  []string
	Branch string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("somebody else changed the same lines of %s in the meantime; this instruction's changes are kept on the branch %s",
		strings.Join(e.Files, ", "), e.Branch)
}

// tries is how often a push is begun when the remote moves at the same time.
const tries = 3

// Push makes the remote's branch contain a commit. A push whose answer was lost
// is recognised: the remote has the commit. If the remote moved, both lines are
// merged, without touching the checkout. It returns a *ConflictError if they
// cannot be, an *Error, or the cause of ctx.
func (w *Workspace) Push(ctx context.Context, r PushRequest) (Push, error) {
	tip, err := w.newest(ctx, r.SHA)
	if err != nil {
		return Push{}, err
	}
	// Mostly the remote is where it was, which is seen in pushing.
	last := w.pushOnto(ctx, tip, w.remote)
	for range tries {
		if last == nil {
			return Push{SHA: tip}, w.follow(tip)
		}
		if ctx.Err() != nil {
			return Push{}, context.Cause(ctx)
		}
		branches, _, err := w.refs(ctx)
		if err != nil {
			return Push{}, err
		}
		theirs := branches[w.branch]
		done, merged, err := w.unite(ctx, tip, theirs, r)
		if err != nil {
			return Push{}, err
		}
		if done != nil {
			return *done, w.follow(theirs)
		}
		tip = merged
		last = w.pushOnto(ctx, tip, theirs)
	}
	if last == nil {
		return Push{SHA: tip}, w.follow(tip)
	}
	return Push{}, last
}

// pushOnto makes a commit the branch's newest, here and at the remote, if the
// remote's branch is at theirs and the commit contains that.
func (w *Workspace) pushOnto(ctx context.Context, tip, theirs string) error {
	if theirs != "" {
		if !w.hasCommit(theirs) {
			return errMoved
		}
		if ahead, err := w.isAncestor(ctx, theirs, tip); err != nil || !ahead {
			return cmp.Or(err, errMoved)
		}
	}
	if err := w.setRef(w.branch, tip); err != nil {
		return err
	}
	return w.pushRef(ctx, w.branch, theirs)
}

// newest is the branch's head, if it has the commit, else the commit. A command that
// is taken up again may find a later one's commit on top of its own, and must not
// move the branch back.
func (w *Workspace) newest(ctx context.Context, sha string) (string, error) {
	head, err := w.localHead()
	if err != nil || head == "" {
		return sha, err
	}
	if has, err := w.isAncestor(ctx, sha, head); !has || err != nil {
		return sha, err
	}
	return head, nil
}

// follow remembers where the remote's branch is.
func (w *Workspace) follow(sha string) error {
	w.remote, w.head = sha, sha
	return w.setRef(w.branch, sha)
}

// unite returns the commit to push: ours, or a merge of ours and theirs; or what has
// been done, if theirs stays as it is.
func (w *Workspace) unite(ctx context.Context, ours, theirs string, r PushRequest) (done *Push, tip string, err error) {
	if theirs == "" {
		return nil, ours, nil
	}
	if !w.hasCommit(theirs) {
		if err := w.fetch(ctx, "+refs/heads/"+w.branch+":refs/remotes/origin/"+w.branch); err != nil {
			return nil, "", err
		}
	}
	ahead, err := w.isAncestor(ctx, theirs, ours)
	if err != nil || ahead && theirs != ours {
		return nil, ours, err
	}
	if err := w.fits(ctx, theirs); err != nil {
		return nil, "", err
	}
	if has, err := w.isAncestor(ctx, ours, theirs); has || err != nil {
		return &Push{SHA: theirs}, "", err
	}
	twin, err := w.findTwin(ctx, ours, theirs, r)
	if err != nil {
		return nil, "", err
	}
	tree, files, err := w.mergeTree(ctx, theirs, ours)
	switch {
	case err != nil:
		return nil, "", err
	case twin != "":
		side, err := w.stepAside(ctx, r, theirs, tree)
		return &Push{SHA: theirs, Twin: twin, Side: side}, "", err
	case tree == "":
		return nil, "", w.giveWay(ctx, ours, theirs, files, r)
	}
	tip, err = w.writeCommit(tree, "Merge the remote's changes into "+w.branch+"\n", theirs, ours)
	return nil, tip, err
}

// mergeTree merges two commits; without a tree, the files are in conflict.
func (w *Workspace) mergeTree(ctx context.Context, theirs, ours string) (tree string, files []string, err error) {
	out, err := w.git(ctx, "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", theirs, ours)
	if exitCode(err) == 1 {
		return "", split(out)[1:], nil
	}
	if err != nil {
		return "", nil, err
	}
	tree, _, _ = strings.Cut(out, "\x00")
	return strings.TrimSpace(tree), nil, nil
}

// findTwin looks through what is new at the remote.
func (w *Workspace) findTwin(ctx context.Context, ours, theirs string, r PushRequest) (string, error) {
	if r.IsTwin == nil {
		return "", nil
	}
	out, err := w.git(ctx, "log", "-z", "--no-show-signature", "--format=%H%n%B", ours+".."+theirs)
	if err != nil {
		return "", err
	}
	for _, commit := range split(out) {
		if sha, message, _ := strings.Cut(commit, "\n"); r.IsTwin(message) {
			return sha, nil
		}
	}
	return "", nil
}

// stepAside keeps our commit beside the branch, and pushes it if theirs lacks
// something of it: a merge, if there is one, has another tree.
func (w *Workspace) stepAside(ctx context.Context, r PushRequest, theirs, merged string) (side string, err error) {
	side = w.sideBranch(r)
	if err := w.setRef(side, r.SHA); err != nil {
		return "", err
	}
	if merged != "" {
		files, err := w.Files(ctx, theirs, merged)
		if err != nil || len(files) == 0 {
			return "", err
		}
	}
	return side, w.pushRef(ctx, side, anywhere)
}

func (w *Workspace) sideBranch(r PushRequest) string {
	return w.branch + "-conflict-" + refSafe(r.CommandID)
}

// giveWay puts our commit beside the branch and continues from theirs.
func (w *Workspace) giveWay(ctx context.Context, ours, theirs string, files []string, r PushRequest) error {
	side := w.sideBranch(r)
	if err := w.setRef(side, ours); err != nil {
		return err
	}
	if err := w.pushRef(ctx, side, anywhere); err != nil {
		return err
	}
	if err := w.follow(theirs); err != nil {
		return err
	}
	return &ConflictError{Files: files, Branch: side}
}

// refSafe makes a part of a branch name of an id.
func refSafe(id string) string {
	safe := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, id)
	if safe == id && len(id) <= 64 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return safe[:min(len(safe), 64)] + "-" + hex.EncodeToString(sum[:5])
}
