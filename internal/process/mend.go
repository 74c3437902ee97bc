package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Mend brings the directories of an access into order, whatever a child left and
// whoever should have seen to it: under WallUsers, nothing of the pair runs when it
// returns, and the worker may read, change and remove what is in them; a
// node_modules only if deep is set. It waits until no child of the pair runs. Under
// other walls all is the worker's, and nothing is to be done.
func (r *Runner) Mend(ctx context.Context, a Access, deep bool) error {
	end, err := r.alone(ctx, &a)
	if err != nil {
		return err
	}
	defer end()
	return r.mend(ctx, a, deep)
}

// mend is Mend for who has the pair's turn.
func (r *Runner) mend(ctx context.Context, a Access, deep bool) error {
	if r.Wall != WallUsers {
		return nil
	}
	k, err := r.startSpec(spec{Mend: true, Deep: deep, Access: &a, Wall: r.Wall}, Command{Dir: "/", Access: &a})
	if err != nil {
		return fmt.Errorf("bring the pair's directories into order: %w", err)
	}
	defer k.close()
	k.wait(ctx, maxSettle)
	if _, _, err := k.result(); err != nil {
		return fmt.Errorf("bring the pair's directories into order: %w", err)
	}
	return nil
}

// ProbeUsers finds out whether WallUsers stands, with workspaces in root. The
// error says what to do.
func (r *Runner) ProbeUsers(ctx context.Context, root string) error {
	for dir := root; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the directory of the workspaces, %s, is not there", root)
		}
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return errors.Join(err, fmt.Errorf("no other user may pass through %s, and each pair is one; chmod o+x lets it", dir))
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	dir, err := os.MkdirTemp(root, ".probe-")
	if err != nil {
		return fmt.Errorf("try the file system: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it was tried below
	err = r.probeUsers(ctx, dir)
	if errors.Is(err, errOwners) {
		return fmt.Errorf("%s: %w; %s", root, err, ownersHint)
	}
	return err
}

// errOwners says that a file system has owners of its own making.
var errOwners = errors.New("the file system does not keep the owners of files")

const ownersHint = "an EFS access point must not enforce a user, and the task's role needs elasticfilesystem:ClientRootAccess"

func (r *Runner) probeUsers(ctx context.Context, dir string) error {
	site := filepath.Join(dir, "site")
	err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(site, 0o770), os.WriteFile(filepath.Join(site, "given"), []byte("x"), 0o600)) //nolint:gosec // the pair passes through
	if err != nil {
		return fmt.Errorf("try the file system: %w", err)
	}
	a := &Access{Pair: "probe#" + rand.Text(), Write: []string{site}}
	_, err = r.Run(ctx, Command{
		Path: "/bin/sh", Args: []string{"-c", `cd "$0" && umask 077 && cat given > made && mkdir closed && echo > closed/file`, site}, Dir: "/",
		Env: []string{"PATH=/usr/bin:/bin"}, Access: a, Grace: time.Second,
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"", "given", "made", "closed/file"} {
		info, err := os.Lstat(filepath.Join(site, name))
		if err != nil {
			return fmt.Errorf("%w: %w", errOwners, err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != UserID(a.Pair) {
			return fmt.Errorf("%w: a file of user %d belongs to %d", errOwners, UserID(a.Pair), st.Uid)
		}
	}
	_, err = os.ReadFile(filepath.Join(site, "closed", "file")) //nolint:gosec // a directory of the probe's own
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errOwners, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("%w: %w", errOwners, err)
	}
	return nil
}
