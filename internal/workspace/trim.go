package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	asideLife    = 24 * time.Hour      // of a directory that was set aside
	sideLife     = 30 * 24 * time.Hour // of a side branch that is merged
	unwrittenAge = 24 * time.Hour      // of a file that was never finished
	// With more of either, the repository is packed anew.
	maxLoose = 1000
	maxPacks = 20
)

// TrimRequest says what to trim.
type TrimRequest struct {
	ProjectID, UserID string
	Dir               string // the pair's directory name
	// Rest trims what others keep in the workspace; nil means nobody does.
	Rest func(w *Workspace) error
}

// Trim bounds what a pair's directory holds besides its checkout: what was set aside
// and is looked through, a day; side branches of ours that are merged, here and on
// the remote, 30 days; files that a crash left unfinished, a day; and it packs the
// repository. It may be cut off at any time, and begun again. Nobody works in the
// workspace meanwhile.
func (s *Store) Trim(ctx context.Context, r TrimRequest) error {
	w, own, err := s.locate(r.ProjectID, r.UserID, r.Dir)
	if err != nil || own.ProjectID == "" {
		return err
	}
	w.url = own.RepoURL
	if w.self, err = os.Stat(w.dir); err != nil {
		return fmt.Errorf("trim workspace: %w", err)
	}
	steps := []func(context.Context) error{w.removeUnwritten, w.removeOldAsides, w.removeSideBranches, w.pack}
	if r.Rest != nil {
		steps = slices.Insert(steps, 0, func(context.Context) error { return r.Rest(w) })
	}
	var failed error
	for _, step := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.check(); err != nil {
			return err
		}
		failed = errors.Join(failed, step(ctx))
	}
	if failed != nil && ctx.Err() == nil {
		return fmt.Errorf("trim workspace: %w", failed)
	}
	return context.Cause(ctx)
}

// removeUnwritten removes what replaceFile did not come to rename.
func (w *Workspace) removeUnwritten(context.Context) error {
	var failed error
	for _, dir := range []string{"worker", "worker/cache", "worker/git", "worker/git/info"} {
		files, err := filepath.Glob(filepath.Join(w.dir, dir, ".new-*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			info, err := os.Lstat(file)
			if err == nil && w.store.config.Now().Sub(info.ModTime()) > unwrittenAge {
				failed = errors.Join(failed, os.Remove(file))
			}
		}
	}
	return failed
}

// removeOldAsides removes workspaces that were set aside more than a day ago and
// are looked through.
func (w *Workspace) removeOldAsides(ctx context.Context) error {
	var n note
	if err := w.readState(noteFile, &n); err != nil {
		return err
	}
	old, err := filepath.Glob(w.dir + asideMark + "*")
	if err != nil {
		return err
	}
	for _, dir := range old {
		seconds, _, _ := strings.Cut(dir[len(w.dir)+len(asideMark):], "-")
		since, err := strconv.ParseInt(seconds, 10, 64)
		wanted := slices.Contains(n.Asides, filepath.Base(dir))
		if err != nil || wanted || w.store.config.Now().Sub(time.Unix(since, 0)) <= asideLife {
			continue
		}
		if err := errors.Join(w.reclaim(ctx, dir, true), removeTree(ctx, dir)); err != nil {
			return fmt.Errorf("remove what was set aside: %w", err)
		}
	}
	return nil
}

// removeTree removes a directory that children of a frozen worker may write to. It
// leaves it half removed when ctx ends.
func removeTree(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // what is removed is gone or not
	if err := removeWithin(ctx, root, "."); err != nil {
		return err
	}
	return os.Remove(dir)
}

func removeWithin(ctx context.Context, root *os.Root, name string) error {
	entries, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case e.IsDir():
			err = removeWithin(ctx, root, child)
		}
		if err == nil {
			err = root.Remove(child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sideBranch is a branch that we put beside a thread's.
type sideBranch struct{ name, thread, sha string }

// oldSideBranches lists the side branches of ours whose newest commit is older than
// sideLife. Ours are those in our repository whose name is that of the command in
// the commit's message: a thread may be called as one of them is.
func (w *Workspace) oldSideBranches(ctx context.Context) ([]sideBranch, error) {
	out, err := w.git(ctx, "for-each-ref", "refs/heads/thread-*-conflict-*", "refs/heads/thread-*-wip-*", "--format="+
		"%(refname:short)%00%(objectname)%00%(committerdate:unix)%00%(parent)%00"+
		"%(trailers:key=Command-Id,key=Wip-For,valueonly,separator=%20)")
	if err != nil {
		return nil, err
	}
	var old []sideBranch
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\x00")
		if len(f) != 5 {
			continue
		}
		seconds, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || w.store.config.Now().Sub(time.Unix(seconds, 0)) <= sideLife {
			continue
		}
		for mark, ids := range map[string][]string{
			"-conflict-": {refSafe(f[4])},
			"-wip-":      {f[1][:8], f[3][:min(len(f[3]), 8)]},
		} {
			i := strings.LastIndex(f[0], mark)
			if i > 0 && f[4] != "" && slices.Contains(ids, f[0][i+len(mark):]) {
				old = append(old, sideBranch{name: f[0], thread: f[0][:i], sha: f[1]})
			}
		}
	}
	return old, nil
}

// removeSideBranches removes the old ones that are part of the thread's branch or of
// the default one. What the remote has of them must be what we have.
func (w *Workspace) removeSideBranches(ctx context.Context) error {
	old, err := w.oldSideBranches(ctx)
	if err != nil || len(old) == 0 {
		return err
	}
	branches, start, err := w.refs(ctx)
	if err != nil {
		return err
	}
	for _, b := range old {
		merged, err := w.isMerged(ctx, b, branches, start)
		if err != nil {
			return err
		}
		there, onRemote := branches[b.name]
		if !merged || onRemote && there != b.sha {
			continue
		}
		ref := headRef(b.name).String()
		if onRemote {
			_, err := w.gitWith(ctx, w.header(), "push", "--quiet", "--no-verify", "--force-with-lease="+ref+":"+b.sha, w.url, ":"+ref)
			if err != nil {
				return fmt.Errorf("remove %s: %w", b.name, err)
			}
		}
		if _, err := w.git(ctx, "update-ref", "-d", ref, b.sha); err != nil {
			return err
		}
		w.store.config.Log.InfoContext(ctx, "merged side branch removed", slog.String("branch", b.name), slog.String("commit", b.sha))
	}
	return nil
}

// isMerged reports whether the remote's thread or default branch has a side branch's
// commit.
func (w *Workspace) isMerged(ctx context.Context, b sideBranch, branches map[string]string, start string) (bool, error) {
	for _, name := range []string{b.thread, start} {
		sha := branches[name]
		if sha == "" {
			continue
		}
		if !w.hasCommit(sha) {
			if err := w.fetch(ctx, "+refs/heads/"+name+":refs/remotes/origin/"+name); err != nil {
				return false, err
			}
		}
		if has, err := w.isAncestor(ctx, b.sha, sha); has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// pack lets git pack the repository if it has become many files. What nothing refers
// to is removed after two weeks.
func (w *Workspace) pack(ctx context.Context) error {
	loose, err := filepath.Glob(filepath.Join(w.gitDir(), "objects", "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		return err
	}
	packs, err := filepath.Glob(filepath.Join(w.gitDir(), "objects", "pack", "*.pack"))
	if err != nil {
		return err
	}
	if len(loose) <= maxLoose && len(packs) <= maxPacks {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(w.gitDir(), "gc.pid")); err != nil { // of one that was cut off
		return err
	}
	_, err = w.git(ctx, "gc", "--quiet", "--prune=2.weeks.ago")
	return err
}
