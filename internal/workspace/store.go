package workspace

import (
	"errors"
	"io/fs"
	"path"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// objectStore is go-git's storage, which leaves a file open for each loose object
// whose size was asked for, until the garbage collector comes by: a push may ask for
// thousands.
type objectStore struct{ *filesystem.Storage }

// EncodedObjectSize returns the size of an object's content, in bytes.
func (s objectStore) EncodedObjectSize(h plumbing.Hash) (size int64, err error) {
	name := h.String()
	f, err := s.Filesystem().Open(path.Join("objects", name[:2], name[2:]))
	if errors.Is(err, fs.ErrNotExist) {
		return s.Storage.EncodedObjectSize(h) // it is in a pack
	}
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	r, err := objfile.NewReader(f)
	if err != nil {
		return 0, err
	}
	defer r.Close() //nolint:errcheck // as above
	_, size, err = r.Header()
	return size, err
}
