package workspace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// A few small objects can be a commit of more files than any disk has: a tree may be
// in another one many times. Git would write them all. So a commit from outside is
// looked through before its tree is made, or merged with another.

// What a commit may have at most: as much as children may, whose limits are the
// keeper's.
const (
	maxEntries  = 500_000 // files and directories
	maxBytes    = 8 << 30
	maxTreeSize = 64 << 20 // of a tree object: names of a thousand bytes, and more
	maxDepth    = 1000     // directories below each other
)

const (
	fittingFile = "fitting.json"
	maxFitting  = 50 // of which is remembered that they fit
)

// fits returns an *Error with file_too_large if a commit unfolds to more than a
// workspace may have.
func (w *Workspace) fits(ctx context.Context, sha string) error {
	var known []string
	if err := w.readState(fittingFile, &known); err != nil { // then it is looked at once more
		w.store.config.Log.WarnContext(ctx, "what fits is not known any more", slog.Any("error", err))
		known = nil
	}
	if slices.Contains(known, sha) {
		return nil
	}
	e := &extent{trees: map[plumbing.Hash]*folded{}, blobs: map[plumbing.Hash]int64{}}
	tree, err := e.unfold(w.gitDir(), sha)
	if err == nil {
		err = w.weigh(ctx, e, tree)
	}
	if much, ok := errors.AsType[tooMuchError](err); ok {
		return &Error{Code: "file_too_large", Reason: "the repository's newest commit has " + string(much), Err: err}
	}
	if err != nil {
		return fmt.Errorf("look through commit %s: %w", sha, err)
	}
	err = w.writeState(fittingFile, append(known[max(0, len(known)-maxFitting+1):], sha))
	if err != nil && !errors.Is(err, ErrTaken) {
		w.store.config.Log.WarnContext(ctx, "what fits is not remembered", slog.Any("error", err))
		return nil
	}
	return err
}

// tooMuchError says what a commit has.
type tooMuchError string

func (e tooMuchError) Error() string { return string(e) }

// extent is what a commit unfolds to. Each tree is read once.
type extent struct {
	storage objectStore
	trees   map[plumbing.Hash]*folded
	blobs   map[plumbing.Hash]int64 // bytes of each
}

// folded is a tree, with how much is below it.
type folded struct {
	entries int
	trees   []*folded
	blobs   []plumbing.Hash
}

// unfold counts what is in a commit. It stops when that is too much.
func (e *extent) unfold(gitDir, sha string) (tree *folded, err error) {
	// One descriptor for many objects.
	e.storage = objectStore{filesystem.NewStorageWithOptions(osfs.New(gitDir, osfs.WithBoundOS()), cache.NewObjectLRU(8*cache.MiByte), filesystem.Options{KeepDescriptors: true})}
	defer func() { err = errors.Join(err, e.storage.Close()) }()
	c, err := object.GetCommit(e.storage, plumbing.NewHash(sha))
	if err != nil {
		return nil, err
	}
	return e.tree(c.TreeHash, 0)
}

func (e *extent) tree(h plumbing.Hash, depth int) (*folded, error) {
	if t := e.trees[h]; t != nil {
		return t, nil
	}
	if depth > maxDepth {
		return nil, tooMuchError(fmt.Sprintf("more than %d directories in each other", maxDepth))
	}
	size, err := e.storage.EncodedObjectSize(h)
	if err != nil {
		return nil, err
	}
	if size > maxTreeSize {
		return nil, tooMuchError("a directory of more than 64 MB of names")
	}
	t := &folded{}
	err = e.entries(h, func(mode string, below plumbing.Hash) error {
		t.entries++
		switch mode {
		case "40000", "040000":
			sub, err := e.tree(below, depth+1)
			if err != nil {
				return err
			}
			t.entries += sub.entries
			t.trees = append(t.trees, sub)
		case "160000": // a submodule, which is never fetched
		default:
			e.blobs[below] = 0
			t.blobs = append(t.blobs, below)
		}
		if t.entries > maxEntries {
			return tooMuchError("more than 500,000 files")
		}
		return nil
	})
	e.trees[h] = t
	return t, err
}

// entries reads a tree: "mode name", a zero, and the twenty bytes of a hash, again
// and again.
func (e *extent) entries(h plumbing.Hash, each func(mode string, below plumbing.Hash) error) error {
	o, err := e.storage.EncodedObject(plumbing.TreeObject, h)
	if err != nil {
		return err
	}
	from, err := o.Reader()
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	r := bufio.NewReader(from)
	for {
		head, err := r.ReadBytes(0)
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return nil
		}
		var below plumbing.Hash
		if err == nil {
			_, err = io.ReadFull(r, below[:])
		}
		if err != nil {
			return fmt.Errorf("read tree %s: %w", h, err)
		}
		mode, _, _ := strings.Cut(string(head), " ")
		if err := each(mode, below); err != nil {
			return err
		}
	}
}

// weigh adds up the bytes. Git tells how many each file has: go-git would rebuild a
// file that is stored as a difference.
func (w *Workspace) weigh(ctx context.Context, e *extent, tree *folded) error {
	var ask strings.Builder
	for h := range e.blobs {
		ask.WriteString(h.String() + "\n")
	}
	out, err := w.gitRun(ctx, gitCall{stdin: ask.String()}, "cat-file", "--batch-check=%(objectname) %(objectsize)")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, size, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(size, 10, 64); err == nil { // else it is missing, which the checkout will say
			e.blobs[plumbing.NewHash(name)] = n
		}
	}
	if e.bytes(tree, maxBytes) > maxBytes {
		return tooMuchError("more than 8 GB of files")
	}
	return nil
}

// bytes are those of all files in a tree, counted as often as they are there: of no
// more than were counted before. It stops above most.
func (e *extent) bytes(t *folded, most int64) (all int64) {
	for _, h := range t.blobs {
		all += e.blobs[h]
	}
	for _, sub := range t.trees {
		if all > most {
			break
		}
		all += e.bytes(sub, most-all)
	}
	return all
}
