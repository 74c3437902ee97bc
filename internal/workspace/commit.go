package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// ErrNoChange is returned when there is nothing to commit.
var ErrNoChange = errors.New("nothing has changed")

// maxBlob is the largest file that is committed, in bytes.
const maxBlob = 100 << 20

// CommitRequest says how to commit what the checkout holds.
type CommitRequest struct {
	// Message makes the message, given the files that the commit changes.
	Message func(files []string) string
	// Amend replaces the newest commit, which must be ours and not pushed.
	Amend bool
	// AllowEmpty makes a commit even if nothing changed.
	AllowEmpty bool
}

// Commit is a new commit.
type Commit struct {
	SHA   string
	Files []string // what it changes, sorted
	Left  []string // what was changed and not committed, since it is not allowed
}

// Commit records the state of the checkout on the branch. It returns ErrNoChange
// if there is none to record, and an *Error with file_too_large for a file that
// no remote would take.
func (w *Workspace) Commit(ctx context.Context, r CommitRequest) (Commit, error) {
	s, err := w.snapshot(ctx, w.base, false)
	if err != nil {
		return Commit{}, err
	}
	parent := w.head
	if r.Amend {
		if parent, err = w.parentOf(w.head); err != nil {
			return Commit{}, err
		}
	}
	if parent != w.base {
		if s.files, err = w.Files(ctx, parent, s.tree); err != nil {
			return Commit{}, err
		}
	}
	if len(s.files) == 0 && !r.AllowEmpty && !r.Amend {
		return Commit{Left: s.left}, ErrNoChange
	}
	sha, err := w.writeCommit(s.tree, r.Message(s.files), parent)
	if err != nil {
		return Commit{}, err
	}
	return Commit{SHA: sha, Files: s.files, Left: s.left}, w.moveTo(sha)
}

// moveTo makes a commit of the checkout's tree the head.
func (w *Workspace) moveTo(sha string) error {
	if err := w.setRef(w.branch, sha); err != nil {
		return err
	}
	w.head, w.base = sha, sha
	var cur current
	if err := w.readState("current.json", &cur); err != nil {
		return err
	}
	if cur.Branch == w.branch {
		cur.Base = sha
		if err := w.writeState("current.json", cur); err != nil {
			return err
		}
	}
	if err := w.unmarkIndex(); err != nil {
		return err
	}
	return w.writeChildGit()
}

// Files lists what differs between two commits or trees, sorted.
func (w *Workspace) Files(ctx context.Context, from, to string) ([]string, error) {
	out, err := w.git(ctx, "diff-tree", "-r", "--name-only", "--no-renames", "-z", from, to)
	if err != nil {
		return nil, err
	}
	return split(out), nil
}

// maxHistory bounds History, in commits.
const maxHistory = 21

// History tells what was done on the thread's branch since it left the default
// branch, newest first: a line for each commit, with its day, its subject, and the
// command that its message names.
func (w *Workspace) History(ctx context.Context) ([]string, error) {
	since := w.head
	if w.start != "" {
		since = w.start + ".." + w.head
	}
	out, err := w.git(ctx, "log", "-z", "--no-show-signature", "--max-count="+strconv.Itoa(maxHistory),
		"--format=%cs %s%x00%(trailers:key=Command-Id,valueonly,separator=%x20)", since)
	if err != nil {
		return nil, err
	}
	var lines []string
	for pair := range slices.Chunk(split(out), 2) {
		line := pair[0]
		if len(pair) > 1 && pair[1] != "" {
			line += " (command " + pair[1] + ")"
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// CommandIDs lists what the trailers Command-Id say of the branch's commits after a
// given one. They are no evidence. Nothing is said of commits after one that is not
// there.
func (w *Workspace) CommandIDs(ctx context.Context, after string) ([]string, error) {
	out, err := w.git(ctx, "log", "-z", "--format=%(trailers:key=Command-Id,valueonly,separator=%x00)", after+".."+w.head)
	if exitCode(err) > 0 { // git knows no such commit
		return nil, nil
	}
	return split(out), err
}

func split(out string) []string {
	out = strings.TrimSuffix(out, "\x00")
	if out == "" {
		return nil
	}
	return strings.Split(out, "\x00")
}

// flatten removes the repositories that were made inside the checkout: git would
// record only a link to them and their files would be lost. Where it has recorded
// such a link, it would run by itself in there, under that repository's own
// configuration. Repositories that are known of are removed wherever they are.
func (w *Workspace) flatten(ctx context.Context, known ...string) error {
	root, err := leftover.Open(w.Site())
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	out, err := w.git(ctx, "ls-files", "--stage", "-z")
	if err != nil {
		return err
	}
	for _, entry := range split(out) {
		if mode, name, _ := strings.Cut(entry, "\t"); strings.HasPrefix(mode, "160000 ") {
			known = append(known, name)
		}
	}
	for _, name := range known {
		if err := root.RemoveAll(path.Join(name, ".git")); err != nil && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("flatten %s: %w", name, err)
		}
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Name() == ".git" && path.Dir(name) != ".":
			if err := root.RemoveAll(name); err != nil {
				return fmt.Errorf("flatten %s: %w", path.Dir(name), err)
			}
			return skip(d)
		case d.IsDir() && (leftover.TooDeep(name) || name == ".git" || d.Name() == "node_modules" || name == "dist" || name == ".astro"):
			return fs.SkipDir
		}
		return unlock(root, name, d)
	})
}

// unlock makes a directory ours to read and to change, whatever the child has shut:
// else git could neither take what is in it nor, for the next thread, remove it.
func unlock(root *os.Root, name string, d fs.DirEntry) error {
	const all = 0o700
	info, err := d.Info()
	if !d.IsDir() || err != nil || info.Mode()&all == all {
		return nil //nolint:nilerr // it is gone, and nothing is to be done
	}
	if err := root.Chmod(name, info.Mode().Perm()|all); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// removeFiles removes files of the checkout, without following its links.
func (w *Workspace) removeFiles(names []string) error {
	root, err := leftover.Open(w.Site())
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	for _, name := range names {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// writeCommit writes a commit object; it moves nothing.
func (w *Workspace) writeCommit(tree, message string, parents ...string) (string, error) {
	repo, err := w.repository()
	if err != nil {
		return "", err
	}
	who := object.Signature{Name: w.store.config.AuthorName, Email: w.store.config.AuthorEmail, When: w.store.config.Now()}
	c := object.Commit{Author: who, Committer: who, Message: message, TreeHash: plumbing.NewHash(tree)}
	for _, p := range parents {
		c.ParentHashes = append(c.ParentHashes, plumbing.NewHash(p))
	}
	o := repo.Storer.NewEncodedObject()
	if err := c.Encode(o); err != nil {
		return "", fmt.Errorf("encode commit: %w", err)
	}
	sha, err := repo.Storer.SetEncodedObject(o)
	if err != nil {
		return "", fmt.Errorf("write commit: %w", err)
	}
	return sha.String(), nil
}
