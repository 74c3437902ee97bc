package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// listing is what the remote says that it has.
type listing struct {
	branches map[string]string // by name, each its newest commit
	start    string            // the default branch
	err      error
}

// list asks the remote, and does not wait for the answer.
func (w *Workspace) list(ctx context.Context) <-chan listing {
	answer := make(chan listing, 1)
	at := *w // what goes on meanwhile does not change this one
	go func() {
		var l listing
		l.branches, l.start, l.err = at.refs(ctx)
		answer <- l
	}()
	return answer
}

// refresh fetches what is new of the thread and of the default branch.
func (w *Workspace) refresh(ctx context.Context, l listing) error {
	if l.err != nil {
		return l.err
	}
	branches, start := l.branches, l.start
	w.remote, w.start = branches[w.branch], branches[start]
	if w.start == "" && w.remote == "" {
		return &Error{Code: "repo_unreachable", Reason: "the repository has no default branch; push one"}
	}
	var missing []string
	for _, b := range []struct{ name, sha string }{{start, w.start}, {w.branch, w.remote}} {
		if b.sha != "" && !w.hasCommit(b.sha) {
			missing = append(missing, "+refs/heads/"+b.name+":refs/remotes/origin/"+b.name)
		}
	}
	if len(missing) > 0 {
		if !w.hasRefs() {
			missing = append([]string{"--depth=" + strconv.Itoa(depth)}, missing...)
		}
		if err := w.fetch(ctx, missing...); err != nil {
			return err
		}
	}
	return w.refreshed(ctx)
}

// refreshed looks whether what the remote has can be checked out here. What we pushed
// ourselves can.
func (w *Workspace) refreshed(ctx context.Context) error {
	local, err := w.localHead()
	if err != nil {
		return err
	}
	for _, sha := range []string{w.remote, w.start} {
		if sha == "" || sha == local {
			continue
		}
		if err := w.fits(ctx, sha); err != nil {
			return err
		}
	}
	return nil
}

// depth is how many commits of a branch a new workspace gets. What needs more gets
// all; see related.
const depth = 50

// hasRefs reports whether anything was ever fetched or committed.
func (w *Workspace) hasRefs() bool {
	repo, err := w.repository()
	if err != nil {
		return false
	}
	refs, err := repo.References()
	if err != nil {
		return false
	}
	defer refs.Close()
	for {
		ref, err := refs.Next()
		if err != nil {
			return false
		}
		if ref.Type() == plumbing.HashReference {
			return true
		}
	}
}

func (w *Workspace) shallowFile() string { return filepath.Join(w.gitDir(), "shallow") }

// related makes sure that what two commits have in common is here, if they have
// something in common.
func (w *Workspace) related(ctx context.Context, a, b string) error {
	if _, err := os.Lstat(w.shallowFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := w.git(ctx, "merge-base", a, b); exitCode(err) != 1 {
		return err
	}
	return w.fetch(ctx, "--unshallow")
}

func (w *Workspace) fetch(ctx context.Context, refspecs ...string) error {
	args := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"}
	for len(refspecs) > 0 && strings.HasPrefix(refspecs[0], "--") {
		args, refspecs = append(args, refspecs[0]), refspecs[1:]
	}
	args = append(append(args, w.url), refspecs...)
	if _, err := w.gitWith(ctx, w.header(), args...); err != nil {
		return w.remoteError(ctx, err)
	}
	return nil
}

// Contains reports whether a commit is part of the thread's branch, or of one that
// was put beside it. An error means that nobody knows.
func (w *Workspace) Contains(ctx context.Context, sha string) (bool, error) {
	ok, err := w.isAncestor(ctx, sha, w.head)
	if exitCode(err) > 0 { // git knows no such commit
		return false, nil
	}
	if ok || err != nil {
		return ok, err
	}
	out, err := w.git(ctx, "for-each-ref", "--count=1", "--contains="+sha, "refs/heads/"+w.branch+"-conflict-*")
	return out != "", err
}

// Replaces reports whether the head is an amendment of a commit.
func (w *Workspace) Replaces(sha string) (bool, error) {
	replaced, err := w.parentOf(sha)
	if err != nil || replaced == "" || sha == w.head {
		return false, err
	}
	parent, err := w.parentOf(w.head)
	return parent == replaced, err
}

// Unpushed reports whether the branch has commits that the remote did not have
// when the workspace was opened.
func (w *Workspace) Unpushed() bool {
	return w.head != w.remote && (w.remote != "" || w.head != w.start)
}

// pickHead decides where the thread continues. Commits of ours that the remote
// does not have are kept: the push merges them.
func (w *Workspace) pickHead(ctx context.Context) error {
	local, err := w.localHead()
	if err != nil {
		return err
	}
	switch {
	case local == "" && w.remote == "":
		w.head = w.start
	case local == "":
		w.head = w.remote
	case w.remote == "" || local == w.remote:
		w.head = local
	default:
		w.head = local
		// Ours is ahead more often than behind.
		ahead, err := w.isAncestor(ctx, w.remote, local)
		if ahead || err != nil {
			return err
		}
		behind, err := w.isAncestor(ctx, local, w.remote)
		if err != nil {
			return err
		}
		if behind {
			w.head = w.remote
		}
	}
	if local == w.head {
		return nil
	}
	return w.setRef(w.branch, w.head)
}

// checkout makes the tree what the head has. Ignored files, such as node_modules,
// stay. If the tree is known to be that of a commit, only what differs is looked at.
func (w *Workspace) checkout(ctx context.Context, owner, from string) error {
	if from != w.head {
		if err := w.writeState("current.json", current{Branch: w.branch, Base: w.head, Switching: true}); err != nil {
			return err
		}
	}
	if err := keepFile(filepath.Join(w.gitDir(), "HEAD"), []byte("ref: refs/heads/"+w.branch+"\n")); err != nil {
		return err
	}
	if err := w.removeChildGit(); err != nil {
		return err
	}
	if err := w.switchTree(ctx, from); err != nil {
		return err
	}
	w.base = w.head
	if err := w.writeChildGit(); err != nil {
		return err
	}
	return w.writeState("current.json", current{Branch: w.branch, Owner: owner, Base: w.base})
}

func (w *Workspace) switchTree(ctx context.Context, from string) error {
	if from == w.head {
		return nil
	}
	var err error
	if from != "" {
		_, err = w.git(ctx, "read-tree", "-m", "-u", from, w.head)
	}
	if from == "" || exitCode(err) > 0 { // such as for an ignored file that is in the way
		_, err = w.git(ctx, "reset", "--quiet", "--hard", w.head)
	}
	if err != nil {
		return err
	}
	// What one thread ignores may be new to another.
	_, err = w.git(ctx, "clean", "-ffdq")
	if errors.Is(err, errTooLong) || exitCode(err) > 0 { // such as for paths that are too long for git
		err = w.checkoutAnew(ctx)
	}
	if err != nil {
		return err
	}
	return w.unmarkIndex()
}

// checkoutAnew removes all that lies in the checkout, packages too, and makes it once
// more.
func (w *Workspace) checkoutAnew(ctx context.Context) error {
	w.store.config.Log.WarnContext(ctx, "checkout made anew, as git cannot clean what lies there")
	site, err := leftover.Open(w.Site())
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer site.Close() //nolint:errcheck // what is removed is gone or not
	entries, err := fs.ReadDir(site.FS(), ".")
	for _, e := range entries {
		err = errors.Join(err, site.RemoveAll(e.Name()))
	}
	if err = errors.Join(err, w.heal()); err != nil {
		return fmt.Errorf("empty checkout: %w", err)
	}
	_, err = w.git(ctx, "reset", "--quiet", "--hard", w.head)
	return err
}

// saveLeftovers commits what another command left in the checkout, on that
// command's branch, and tries to push it. If nothing is left, it returns the commit
// that the checkout is equal to.
func (w *Workspace) saveLeftovers(ctx context.Context, cur current, r Request) (equal string, err error) {
	if cur.Base == "" || cur.Switching {
		return "", nil
	}
	left, err := w.saveTree(ctx, cur, r)
	if errors.Is(err, errTooMuch) || errors.Is(err, errTooLong) { // else no command would ever run here again
		w.store.config.Log.WarnContext(ctx, "what another command left is too much to be saved", slog.String("owner", cur.Owner))
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("save what another command left: %w", err)
	}
	if left.clean {
		return cur.Base, nil
	}
	if left.sha == "" {
		return "", nil
	}
	if err := w.setRef(left.branch, left.sha); err != nil {
		return "", err
	}
	w.pushSaved(ctx, left.branch, left.sha, cur.Owner)
	return "", nil
}

func (w *Workspace) removeChildGit() error {
	root, err := leftover.Open(w.Site())
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	if err := root.RemoveAll(".git"); err != nil {
		return fmt.Errorf("remove the old site/.git: %w", err)
	}
	return nil
}

// writeChildGit gives the children a repository to look at: our objects by
// reference, the branch, and the index. Nothing of it is read by us.
func (w *Workspace) writeChildGit() error {
	if err := w.check(); err != nil {
		return err
	}
	if err := w.removeChildGit(); err != nil {
		return err
	}
	site, err := leftover.Open(w.Site())
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer site.Close() //nolint:errcheck // what is written is closed by itself
	for name, body := range map[string]string{
		"HEAD":                    "ref: refs/heads/" + w.branch + "\n",
		"config":                  "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfilemode = true\n",
		"objects/info/alternates": "../../../worker/git/objects\n",
		"info/exclude":            excluded,
		"refs/heads/" + w.branch:  w.head + "\n",
	} {
		name = path.Join(".git", name)
		if err := site.MkdirAll(path.Dir(name), childMode); err != nil {
			return err
		}
		if err := site.WriteFile(name, []byte(body), 0o660); err != nil {
			return err
		}
	}
	if err := copyOut(w.shallowFile(), site, ".git/shallow"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyOut(filepath.Join(w.gitDir(), "index"), site, ".git/index")
}

// copyOut copies a file of ours into the checkout.
func copyOut(from string, site *os.Root, to string) (err error) {
	in, err := os.Open(from) //nolint:gosec // a name of ours, where no child can write
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := site.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o660)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
