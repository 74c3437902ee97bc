package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// refresh learns what the remote has of the thread and of the default branch.
func (w *Workspace) refresh(ctx context.Context) error {
	branches, start, err := w.refs(ctx)
	if err != nil {
		return err
	}
	w.remote, w.start = branches[w.branch], branches[start]
	if w.start == "" && w.remote == "" {
		return &Error{Code: "repo_unreachable", Reason: "the repository has no default branch; push one"}
	}
	var missing []string
	for _, b := range []struct{ name, sha string }{{start, w.start}, {w.branch, w.remote}} {
		if b.sha != "" && !w.hasCommit(ctx, b.sha) {
			missing = append(missing, "+refs/heads/"+b.name+":refs/remotes/origin/"+b.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return w.fetch(ctx, missing...)
}

func (w *Workspace) fetch(ctx context.Context, refspecs ...string) error {
	args := append([]string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", w.url}, refspecs...)
	if _, err := w.gitWith(ctx, w.header(), args...); err != nil {
		return w.remoteError(ctx, err)
	}
	return nil
}

func (w *Workspace) hasCommit(ctx context.Context, sha string) bool {
	_, err := w.git(ctx, "cat-file", "-e", sha+"^{commit}")
	return err == nil
}

// isAncestor reports whether a is b or one of its ancestors.
func (w *Workspace) isAncestor(ctx context.Context, a, b string) (bool, error) {
	_, err := w.git(ctx, "merge-base", "--is-ancestor", a, b)
	if err != nil && exitCode(err) != 1 {
		return false, err
	}
	return err == nil, nil
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
func (w *Workspace) Replaces(ctx context.Context, sha string) (bool, error) {
	out, err := w.git(ctx, "rev-parse", "--verify", "--quiet", sha+"^")
	if exitCode(err) > 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	head, err := w.git(ctx, "rev-parse", w.head+"^")
	return sha != w.head && head == out, err
}

// Unpushed reports whether the branch has commits that the remote did not have
// when the workspace was opened.
func (w *Workspace) Unpushed() bool {
	return w.head != w.remote && (w.remote != "" || w.head != w.start)
}

// localHead is the branch in our repository; empty if it is not there.
func (w *Workspace) localHead(ctx context.Context) (string, error) {
	out, err := w.git(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+w.branch)
	if err != nil && exitCode(err) != 1 {
		return "", err
	}
	return strings.TrimSpace(out), nil
}

// pickHead decides where the thread continues. Commits of ours that the remote
// does not have are kept: the push merges them.
func (w *Workspace) pickHead(ctx context.Context) error {
	local, err := w.localHead(ctx)
	if err != nil {
		return err
	}
	switch {
	case local == "" && w.remote == "":
		w.head = w.start
	case local == "":
		w.head = w.remote
	case w.remote == "":
		w.head = local
	default:
		behind, err := w.isAncestor(ctx, local, w.remote)
		if err != nil {
			return err
		}
		w.head = local
		if behind {
			w.head = w.remote
		}
	}
	return w.setRef(w.branch, w.head)
}

// checkout makes the tree what the head has. Ignored files, such as
// node_modules, stay.
func (w *Workspace) checkout(ctx context.Context, owner string) error {
	if err := w.writeState("current.json", current{Branch: w.branch, Base: w.head, Switching: true}); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(w.gitDir(), "HEAD"), []byte("ref: refs/heads/"+w.branch+"\n")); err != nil {
		return err
	}
	if err := w.removeChildGit(); err != nil {
		return err
	}
	if _, err := w.git(ctx, "reset", "--quiet", "--hard", w.head); err != nil {
		return err
	}
	if _, err := w.git(ctx, "clean", "-ffdq"); err != nil {
		return err
	}
	w.base = w.head
	if err := w.writeChildGit(); err != nil {
		return err
	}
	return w.writeState("current.json", current{Branch: w.branch, Owner: owner, Base: w.base})
}

// saveLeftovers commits what another command left in the checkout, on that
// command's branch, and tries to push it.
func (w *Workspace) saveLeftovers(ctx context.Context, cur current, r Request) error {
	if cur.Base == "" || cur.Switching {
		return nil
	}
	branch, sha, err := w.saveTree(ctx, cur, r)
	if errors.Is(err, errTooMuch) { // else no command would ever run here again
		w.store.config.Log.WarnContext(ctx, "what another command left is too much to be saved", slog.String("owner", cur.Owner))
		return nil
	}
	if err != nil {
		return fmt.Errorf("save what another command left: %w", err)
	}
	if sha == "" {
		return nil
	}
	if err := w.setRef(branch, sha); err != nil {
		return err
	}
	w.pushSaved(ctx, branch, sha, cur.Owner)
	return nil
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
	return copyIndex(filepath.Join(w.gitDir(), "index"), site)
}

func copyIndex(from string, site *os.Root) (err error) {
	in, err := os.Open(from) //nolint:gosec // a name of ours, where no child can write
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := site.OpenFile(".git/index", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o660)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
