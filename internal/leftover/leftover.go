// Package leftover opens what children left in directories that are theirs to
// write. A child may have put a link, a pipe or a very large file wherever a
// plain one is expected, also in the place of the directory itself. Nothing here
// follows a link, waits for a pipe or reads more than it was told to.
//
// It is meant for the time after a child has ended. Who writes meanwhile can make
// a call fail, and cannot make it leave the directory.
package leftover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

var (
	// ErrIrregular is returned for what is neither a file nor a directory, and
	// for one where the other is expected.
	ErrIrregular = errors.New("not what is expected here")
	// ErrTooLarge is returned for a file above its bound.
	ErrTooLarge = errors.New("file is too large")
)

// maxDepth is how deep a child's directories are looked at: far deeper than any that
// is of use. To open what lies at some depth takes as many steps, so that to walk
// through directories nested without end would take hours.
const maxDepth = 100

// TooDeep reports whether what lies at a name, slash-separated below a root, is not to
// be looked at.
func TooDeep(name string) bool { return strings.Count(name, "/") > maxDepth }

// Open opens a directory. If it is a link or no directory, the error wraps
// ErrIrregular. The directories above it must be ours.
func Open(dir string) (*os.Root, error) {
	before, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() { // to open a pipe would wait for its writer
		return nil, &fs.PathError{Op: "open", Path: dir, Err: ErrIrregular}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if now, err := root.Stat("."); err != nil || !os.SameFile(before, now) {
		root.Close() //nolint:errcheck // nothing was done with it
		return nil, &fs.PathError{Op: "open", Path: dir, Err: ErrIrregular}
	}
	return root, nil
}

// File opens a regular file to read it. If it is another thing, or if it is
// reached by a link, the error wraps ErrIrregular.
func File(root *os.Root, name string) (*os.File, error) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		if info, err := root.Lstat(name[:i]); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
		}
	}
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(before, now) {
		f.Close() //nolint:errcheck // nothing was done with it
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
	}
	return f, nil
}

// ReadFile reads a file as File opens it. If it has more than limit bytes, the error
// wraps ErrTooLarge.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := File(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	body, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: ErrTooLarge}
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// Directory makes sure that a directory is there. What else is in its place is
// removed; then replaced is true, as it is for a directory that was missing.
func Directory(dir string, mode fs.FileMode) (replaced bool, err error) {
	info, err := os.Lstat(strings.TrimSuffix(dir, "/"))
	switch {
	case err == nil && info.IsDir():
		return false, nil
	case err == nil:
		err = os.Remove(dir)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = os.Mkdir(dir, mode)
	}
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		return false, fmt.Errorf("make directory: %w", err)
	}
	return true, nil
}
