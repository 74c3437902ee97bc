package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// TakeOverRequest says what to take over.
type TakeOverRequest struct {
	ProjectID, UserID string
	Dir               string // the pair's directory name
	// Rescue brings a conversation home that the interrupted job has in its
	// directory; nil means there is none.
	Rescue func(job, conversations string) error
}

const noteFile = "takeover.json"

// note is what was set aside, oldest first, and is still to be looked through.
type note struct {
	Asides []string `json:"asides"` // names beside the pair's directory
}

// TakeOver sets the pair's directory aside, whose last user did not leave in
// order: it may be frozen, and its children with it, and go on when it thaws.
// What they write then lies where nobody looks. The new directory has the
// conversations; the next Open looks through the old one and saves what it
// holds.
//
// It is called at the start of such a tenure, before anything else. It renames
// and copies only little, may be called again, and a crash at any point is made
// good by the next call or by Open.
func (s *Store) TakeOver(ctx context.Context, r TakeOverRequest) error {
	w, own, err := s.locate(r.ProjectID, r.UserID, r.Dir)
	if err != nil {
		return err
	}
	if own.ProjectID == "" {
		return nil // nothing was begun, or nothing finished
	}
	if w.self, err = os.Stat(w.dir); err != nil {
		return fmt.Errorf("take workspace over: %w", err)
	}
	if err := w.reclaim(ctx, w.dir, false); err != nil {
		return fmt.Errorf("take workspace over: %w", err)
	}
	to := s.asideName(w.dir)
	if err := w.prepareFresh(own, filepath.Base(to), r); err != nil {
		return fmt.Errorf("take workspace over: %w", err)
	}
	// Whoever was frozen here has lost the claim, and shall see it.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := w.check(); err != nil {
		return err
	}
	if err := os.Rename(w.dir, to); err != nil {
		return fmt.Errorf("set the old workspace aside: %w", err)
	}
	s.config.Log.InfoContext(ctx, "workspace taken over", slog.String("aside", to))
	return w.settle()
}

func (w *Workspace) freshDir() string { return w.dir + freshMark }

// settle puts the fresh directory into the place of one that was set aside.
func (w *Workspace) settle() error {
	if _, err := os.Lstat(w.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var (
		n   note
		own owner
	)
	if err := readState(w.freshDir(), noteFile, &n); err != nil || len(n.Asides) == 0 {
		return err
	}
	if err := readState(w.freshDir(), "owner.json", &own); err != nil || own.ProjectID == "" {
		return err
	}
	last := n.Asides[len(n.Asides)-1]
	if _, err := os.Lstat(filepath.Join(filepath.Dir(w.dir), last)); err != nil {
		return nil //nolint:nilerr // made long ago, for a takeover that did not come about
	}
	if err := os.Rename(w.freshDir(), w.dir); err != nil {
		return fmt.Errorf("put the fresh workspace in place: %w", err)
	}
	return nil
}

// prepareFresh makes the directory that will take the place of w's, which will be
// called old.
func (w *Workspace) prepareFresh(own owner, old string, r TakeOverRequest) error {
	var n note // what the former owner took over, and did not look through
	if err := w.readState(noteFile, &n); err != nil {
		return err
	}
	n.Asides = append(n.Asides, old)
	fresh := &Workspace{store: w.store, dir: w.freshDir()}
	if err := fresh.create(); err != nil {
		return err
	}
	if err := copyTree(w.Conversations(), fresh.Conversations()); err != nil {
		return fmt.Errorf("copy conversations: %w", err)
	}
	linkKept(w.Cache(), fresh.Cache())
	if r.Rescue != nil {
		if err := r.Rescue(w.Job(), fresh.Conversations()); err != nil {
			return err
		}
	}
	if err := fresh.writeState(noteFile, n); err != nil {
		return err
	}
	return fresh.writeState("owner.json", own)
}

// linkKept lets the new directory have the packages that builds have kept. Nobody
// writes to these files, they are only replaced; and who loses them installs.
func linkKept(from, to string) {
	kept, err := filepath.Glob(filepath.Join(from, "node_modules-*.tar"))
	if err != nil {
		return
	}
	for _, file := range kept {
		os.Link(file, filepath.Join(to, filepath.Base(file))) //nolint:errcheck // see above
	}
}

// copyTree copies the regular files of a directory. They are copied and not
// moved, since who has one of them open may write to it yet.
func copyTree(from, to string) error {
	in, err := os.OpenRoot(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // what is written is closed by itself
	return fs.WalkDir(in.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != ".":
			return nil // it was removed meanwhile
		case err != nil:
			return err
		case d.IsDir():
			return out.MkdirAll(name, 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		return copyWithin(in, out, name)
	})
}

func copyWithin(in, out *os.Root, name string) error {
	from, err := in.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // only read from
	to, err := out.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
