package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// unpacker writes a kept tree. Each directory is opened once, as its files are found
// from there with one call instead of one for each part of their paths; and several
// files are written at once.
type unpacker struct {
	// Owned by the goroutine that reads the tree.
	dirs []*unpacked // the directories that the last entry is in, outermost first

	files   chan unpackedFile
	writing sync.WaitGroup
	failed  atomic.Pointer[error] // the first
}

// unpacked is a directory. It is closed when no entry can be in it any more and its
// files are written.
type unpacked struct {
	name  string // ends in a slash, but for the top
	root  *os.Root
	users atomic.Int32
}

func (d *unpacked) release() {
	if d.users.Add(-1) == 0 {
		d.root.Close() //nolint:errcheck // what is written is closed by itself
	}
}

// unpackedFile is a file that is in memory.
type unpackedFile struct {
	dir  *unpacked
	name string
	mode fs.FileMode
	body []byte
}

// maxUnpacked is up to how many bytes a file is in memory; larger ones are written
// by who reads.
const maxUnpacked = 1 << 20

// newUnpacker unpacks into a directory, which end closes.
func newUnpacker(root *os.Root) *unpacker {
	u := &unpacker{files: make(chan unpackedFile, 16)}
	u.enter("", root)
	for range runtime.GOMAXPROCS(0) {
		u.writing.Go(func() {
			for f := range u.files {
				if err := f.write(); err != nil {
					u.failed.CompareAndSwap(nil, &err)
				}
				f.dir.release()
			}
		})
	}
	return u
}

func (u *unpacker) enter(name string, root *os.Root) {
	d := &unpacked{name: name, root: root}
	d.users.Store(1)
	u.dirs = append(u.dirs, d)
}

func (f unpackedFile) write() error {
	to, err := create(f.dir.root, f.name, f.mode)
	if err != nil {
		return err
	}
	_, err = to.Write(f.body)
	return errors.Join(err, to.Close())
}

func create(root *os.Root, name string, mode fs.FileMode) (*os.File, error) {
	return root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm()|0o600)
}

// all unpacks all entries.
func (u *unpacker) all(ctx context.Context, in *tar.Reader) error {
	for u.failed.Load() == nil {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the kept packages are not whole")
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case h.Name == keptEnd:
			return nil
		}
		if err := u.one(h, in); err != nil {
			return err
		}
	}
	return nil // end says what failed
}

func (u *unpacker) one(h *tar.Header, body io.Reader) error {
	for !strings.HasPrefix(h.Name, u.dirs[len(u.dirs)-1].name) {
		u.leave()
	}
	dir := u.dirs[len(u.dirs)-1]
	name := path.Clean(strings.TrimPrefix(h.Name, dir.name))
	switch {
	case h.Typeflag == tar.TypeDir:
		if err := dir.root.Mkdir(name, 0o770); err != nil {
			return err
		}
		root, err := dir.root.OpenRoot(name)
		if err != nil {
			return err
		}
		u.enter(h.Name, root)
		return nil
	case h.Typeflag == tar.TypeSymlink:
		return dir.root.Symlink(h.Linkname, name)
	case h.Size > maxUnpacked:
		to, err := create(dir.root, name, h.FileInfo().Mode())
		if err != nil {
			return err
		}
		_, err = io.Copy(to, body)
		return errors.Join(err, to.Close())
	}
	f := unpackedFile{dir: dir, name: name, mode: h.FileInfo().Mode(), body: make([]byte, h.Size)}
	if _, err := io.ReadFull(body, f.body); err != nil {
		return err
	}
	dir.users.Add(1)
	u.files <- f
	return nil
}

func (u *unpacker) leave() {
	last := len(u.dirs) - 1
	u.dirs[last].release()
	u.dirs = u.dirs[:last]
}

// end waits until all is written.
func (u *unpacker) end() error {
	close(u.files)
	u.writing.Wait()
	for len(u.dirs) > 0 {
		u.leave()
	}
	if err := u.failed.Load(); err != nil {
		return *err
	}
	return nil
}
