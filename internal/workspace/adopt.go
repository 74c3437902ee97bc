package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// adopt looks through what TakeOver set aside: its commits and what lies
// uncommitted in its checkout become ours. A crash in between is made good by
// the next Open.
func (w *Workspace) adopt(ctx context.Context, n note, r Request) error {
	if len(n.Asides) == 0 {
		return nil
	}
	for len(n.Asides) > 0 {
		if err := w.adoptOne(ctx, n.Asides[0], r); err != nil {
			return fmt.Errorf("look through %s: %w", n.Asides[0], err)
		}
		n.Asides = n.Asides[1:]
		if err := w.writeState(noteFile, n); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(w.dir, "worker", noteFile)); err != nil {
		return fmt.Errorf("remove the note of the takeover: %w", err)
	}
	return nil
}

// adoptOne looks through one directory. To do so again changes nothing.
func (w *Workspace) adoptOne(ctx context.Context, name string, r Request) error {
	dir := filepath.Join(filepath.Dir(w.dir), filepath.Base(name))
	if _, err := os.Stat(filepath.Join(dir, "worker", "git")); errors.Is(err, fs.ErrNotExist) {
		w.store.config.Log.WarnContext(ctx, "what was set aside is gone", slog.String("aside", dir))
		return nil
	}
	if err := errors.Join(w.reclaim(ctx, dir, false), w.adoptBranches(ctx, dir)); err != nil {
		return err
	}
	var cur current
	if err := readState(dir, "current.json", &cur); err != nil {
		return err
	}
	own := cur.Owner == r.Owner && cur.Branch == r.Branch
	if cur.Base == "" || cur.Switching || own && cur.Base == r.Committed {
		return nil
	}
	left, err := w.adoptTree(ctx, dir, cur, r)
	if errors.Is(err, errTooMuch) || errors.Is(err, errTooLong) { // else no command would ever run here again
		w.store.config.Log.WarnContext(ctx, "what was set aside is too much to be saved", slog.String("aside", dir))
		return nil
	}
	if err != nil || left.sha == "" {
		return err
	}
	if err := w.setRef(left.branch, left.sha); err != nil {
		return err
	}
	if !own { // else it is pushed when the command is done
		w.pushSaved(ctx, left.branch, left.sha, cur.Owner)
	}
	return nil
}

// adoptBranches takes over the branches of a repository that was set aside,
// where it is ahead of ours.
func (w *Workspace) adoptBranches(ctx context.Context, dir string) error {
	const mine = "refs/adopt/"
	forget := func() error { return os.RemoveAll(filepath.Join(w.gitDir(), filepath.FromSlash(mine))) }
	if err := forget(); err != nil {
		return err
	}
	local := *w
	local.url = "file://" // nothing else is allowed to this one call
	from := filepath.Join(dir, "worker", "git")
	if _, err := local.git(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow", from, "+refs/heads/*:"+mine+"*"); err != nil {
		return err
	}
	list, err := w.git(ctx, "for-each-ref", "--format=%(objectname) %(refname)", mine)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := w.adoptBranch(ctx, strings.TrimPrefix(name, mine), sha); err != nil {
			return err
		}
	}
	return forget()
}

func (w *Workspace) adoptBranch(ctx context.Context, branch, sha string) error {
	have := *w
	have.branch = branch
	head, err := have.localHead()
	if err != nil {
		return err
	}
	if head != "" {
		if has, err := w.isAncestor(ctx, sha, head); has || err != nil {
			return err
		}
		behind, err := w.isAncestor(ctx, head, sha)
		if err != nil {
			return err
		}
		if !behind {
			branch += "-wip-" + sha[:8]
		}
	}
	return w.setRef(branch, sha)
}

// adoptTree commits what a checkout that was set aside holds.
func (w *Workspace) adoptTree(ctx context.Context, dir string, cur current, r Request) (saved, error) {
	if !w.hasCommit(cur.Base) {
		w.store.config.Log.WarnContext(ctx, "what was set aside has no base, and is not saved", slog.String("aside", dir))
		return saved{}, ctx.Err()
	}
	old := *w
	old.site, old.index = filepath.Join(dir, "site"), filepath.Join(w.gitDir(), "adopt.index")
	forget := func() error { return errors.Join(os.RemoveAll(old.index), os.RemoveAll(old.indexMark())) }
	if err := forget(); err != nil {
		return saved{}, err
	}
	defer forget() //nolint:errcheck // the next one is made anew
	if _, err := old.git(ctx, "read-tree", cur.Base); err != nil {
		return saved{}, err
	}
	return old.saveTree(ctx, cur, r)
}

// saveTree commits what a command left in the checkout, on that command's branch
// or, if it went on without this tree by a merge, beside it. No branch has the
// commit yet. Without anything left, sha is empty.
func (w *Workspace) saveTree(ctx context.Context, cur current, r Request) (saved, error) {
	old := *w
	old.branch = cur.Branch
	head, err := old.localHead()
	if err != nil {
		return saved{}, err
	}
	branch := cur.Branch
	if head != cur.Base {
		branch += "-wip-" + cur.Base[:8]
	}
	s, err := old.snapshot(ctx, cur.Base, true)
	if err != nil || len(s.files) == 0 {
		return saved{clean: s.clean}, err
	}
	for _, known := range []string{cur.Branch, branch} { // a crash may have come after the branch had it
		if has, err := old.hasTree(known, s.tree); has || err != nil {
			return saved{}, err
		}
	}
	sha, err := old.writeCommit(s.tree, r.Wip(cur.Owner), cur.Base)
	if err != nil {
		return saved{}, err
	}
	if r.Saved != nil {
		err = r.Saved(ctx, cur.Owner, sha)
	}
	return saved{branch: branch, sha: sha}, err
}

// saved is what became of what lay in a checkout.
type saved struct {
	branch, sha string // of the commit, if there is one
	clean       bool   // nothing lay there
}

// hasTree reports whether a branch's newest commit has exactly this tree.
func (w *Workspace) hasTree(branch, tree string) (bool, error) {
	at := *w
	at.branch = branch
	head, err := at.localHead()
	if err != nil || head == "" {
		return false, err
	}
	has, err := w.treeOf(head)
	return has == tree, err
}

// pushSaved tries to push what was saved of another command.
func (w *Workspace) pushSaved(ctx context.Context, branch, sha, owner string) {
	log := w.store.config.Log.With(slog.String("branch", branch))
	log.InfoContext(ctx, "unfinished work saved", slog.String("commit", sha))
	old := *w
	old.branch, old.head, old.remote = branch, sha, ""
	if _, err := old.Push(ctx, PushRequest{SHA: sha, CommandID: owner}); err != nil {
		log.WarnContext(ctx, "unfinished work not pushed yet", slog.Any("error", err))
	}
}
