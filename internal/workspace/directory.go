package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	git "github.com/go-git/go-git/v5"

	"github.com/webordinary/claude-code-container/internal/process"
)

// ErrTaken is returned when the workspace was taken over by another worker since
// it was opened. What is at its path now is not ours to touch.
var ErrTaken = errors.New("the workspace was taken over by another worker")

// directory finds or makes the pair's directory.
func (s *Store) directory(r Request) (*Workspace, error) {
	w, found, err := s.locate(r.ProjectID, r.UserID, r.Dir)
	if err != nil {
		return nil, err
	}
	w.branch = r.Branch
	own := owner{ProjectID: r.ProjectID, UserID: r.UserID, RepoURL: r.RepoURL}
	if found.RepoURL == "" && r.RepoURL == "" {
		return nil, &Error{Code: "repo_missing", Reason: "this project has no workspace yet; send repoUrl with the instruction"}
	}
	old := &Workspace{store: s, dir: w.dir}
	if found.RepoURL != "" && r.RepoURL != "" && found.RepoURL != r.RepoURL {
		old.dir = s.asideName(w.dir)
		if err := os.Rename(w.dir, old.dir); err != nil {
			return nil, fmt.Errorf("set the old workspace aside: %w", err)
		}
		found = owner{}
	}
	if found.RepoURL == "" {
		if err := errors.Join(w.holdUser(), w.create()); err != nil {
			return nil, err
		}
		linkKept(old.Cache(), w.Cache()) // a repository that moved has the packages that it had
		if err := w.writeState("owner.json", own); err != nil {
			return nil, err
		}
		found = own
	}
	w.url = found.RepoURL
	if w.self, err = os.Stat(w.dir); err != nil {
		return nil, fmt.Errorf("open workspace: %w", err)
	}
	return w, nil
}

// locate finds the pair's directory, which may not be there, and whose it is:
// the zero owner if it is nobody's yet.
func (s *Store) locate(projectID, userID, dir string) (*Workspace, owner, error) {
	w := &Workspace{store: s, pair: projectID + "#" + userID, dir: filepath.Join(s.config.Root, dir)}
	found, err := w.owner()
	if err != nil {
		return nil, owner{}, err
	}
	if found.ProjectID != "" && (found.ProjectID != projectID || found.UserID != userID) {
		// Another pair's ids make the same name. It is never opened. No ids make
		// one with this mark.
		sum := sha256.Sum256([]byte(w.pair))
		w.dir += "~" + hex.EncodeToString(sum[:])
		if found, err = w.owner(); err != nil {
			return nil, owner{}, err
		}
	}
	if found.ProjectID != "" {
		err = w.holdUser()
	}
	return w, found, err
}

// usersDir notes which pair has which user of the wall of users: a link by the name
// of the id leads to the pair's.
const usersDir = "~users"

// holdUser gives the pair's children a user that no other pair's have. An id is 30
// bits of a hash: with many pairs two will meet, and who may choose a project's or a
// user's name can search for one that meets another's, whose files would be theirs.
// So the next pair that makes an id is given that of another name, for good.
func (w *Workspace) holdUser() error {
	if w.store.config.Runner.Wall != process.WallUsers {
		return nil
	}
	dir := filepath.Join(w.store.config.Root, usersDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("note the user: %w", err)
	}
	for n, name := 1, w.pair; ; n++ {
		note := filepath.Join(dir, strconv.Itoa(process.UserID(name)))
		err := os.Symlink(name, note)
		if errors.Is(err, fs.ErrExist) {
			var other string
			other, err = os.Readlink(note)
			if err == nil && other != name {
				name = w.pair + "~" + strconv.Itoa(n) // as no ids are
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("note the user: %w", err)
		}
		w.pair = name
		return nil
	}
}

// owner reads whose directory it is, after a takeover that a crash cut was
// brought to its end.
func (w *Workspace) owner() (owner, error) {
	if err := w.settle(); err != nil {
		return owner{}, err
	}
	var found owner
	err := w.readState("owner.json", &found)
	return found, err
}

// check returns ErrTaken if the directory is not the one that was opened. A
// worker that was frozen asks before it writes: its paths lead to another's
// checkout by now.
func (w *Workspace) check() error {
	if w.self == nil {
		return nil // not open yet
	}
	now, err := os.Stat(w.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrTaken
	case err != nil:
		return fmt.Errorf("look at the workspace: %w", err)
	case !os.SameFile(w.self, now):
		return ErrTaken
	}
	return nil
}

// create makes an empty workspace. The caller writes owner.json, as the last: a
// directory without one was never finished and holds nothing.
func (w *Workspace) create() error {
	if err := os.RemoveAll(w.dir); err != nil {
		return fmt.Errorf("remove an unfinished workspace: %w", err)
	}
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{w.dir, 0o711},
		{filepath.Join(w.dir, "worker"), 0o710},
		{w.Conversations(), 0o700},
		{w.Cache(), 0o700},
		{w.Site(), childMode},
		{w.Job(), childMode},
		{w.Downloads(), childMode},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("create workspace: %w", err)
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return fmt.Errorf("create workspace: %w", err)
		}
	}
	if _, err := git.PlainInit(w.gitDir(), true); err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	return os.WriteFile(filepath.Join(w.dir, "worker", untouchedFile), nil, 0o600)
}

// What lies beside the pair's directory has a mark that no id can have, or a user
// called scott.fresh would lose a workspace to scott.
const (
	asideMark = "~aside-"
	freshMark = "~fresh"
)

// asideName is a name for what is set aside now. It says when: renaming does not
// change a directory's time.
func (s *Store) asideName(dir string) string {
	name := dir + asideMark + strconv.FormatInt(s.config.Now().Unix(), 10)
	for n, free := 1, name; ; n++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			return free
		}
		free = name + "-" + strconv.Itoa(n)
	}
}
