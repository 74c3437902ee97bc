package workspace

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/webordinary/claude-code-container/internal/process"
)

// reclaim brings a pair's directory, this one or one that was set aside, into order,
// whatever a child left there and whether or not its keeper came to do so: nothing
// of the pair runs in this container then, and the worker may change and remove
// what is the children's; what npm installed, if deep is set.
func (w *Workspace) reclaim(ctx context.Context, dir string, deep bool) error {
	at := Workspace{dir: dir}
	return w.store.config.Runner.Mend(ctx, process.Access{
		Pair: w.pair, Write: []string{at.Site(), at.Job(), at.Downloads()}, Read: []string{at.Objects()},
	}, deep)
}

// hide closes what is in the repository, but for its objects, to all but the
// worker: the pair's group passes through.
func (w *Workspace) hide() error {
	entries, err := os.ReadDir(w.gitDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == "objects" || info.Mode().Perm()&0o077 == 0 || info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		err = os.Chmod(filepath.Join(w.gitDir(), e.Name()), info.Mode().Perm()&0o700)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
