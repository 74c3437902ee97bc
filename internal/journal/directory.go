package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Directory is a Store of one file per record, for a machine with one worker:
// the demo and tests. A write is a temporary file, fsync and rename, so a crash
// leaves the old record or the new one.
type Directory struct {
	root    string
	current func(ctx context.Context, projectKey string) (int64, error)
	now     func() time.Time
	mu      sync.Mutex // makes the look at the claim and the rename one step
	pruned  time.Time
}

const pruneEvery = 24 * time.Hour

// DirectoryConfig says where a Directory is and what it checks writes against.
type DirectoryConfig struct {
	// Root is created if missing.
	Root string
	// Current returns the fence in the claim row of a project, 0 if there is
	// no row.
	Current func(ctx context.Context, projectKey string) (int64, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// NewDirectory opens a directory store. What has expired in it is removed now, and
// once a day with a write.
func NewDirectory(c DirectoryConfig) (*Directory, error) {
	if err := os.MkdirAll(c.Root, 0o700); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	d := &Directory{root: c.Root, current: c.Current, now: c.Now}
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.prune(); err != nil {
		return nil, err
	}
	return d, nil
}

// Get implements Store.
func (d *Directory) Get(ctx context.Context, key string) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, context.Cause(ctx)
	}
	r, err := read(d.path(key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Record{}, ErrNotFound
	case err != nil:
		return Record{}, err
	case !r.Expires.After(d.now()):
		return Record{}, ErrNotFound
	}
	return r, nil
}

// Put implements Store.
func (d *Directory) Put(ctx context.Context, r Record, fence Fence) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	number, err := d.current(ctx, fence.ProjectKey)
	if err != nil {
		return err
	}
	if number != fence.Number {
		return ErrFenced
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := d.replace(d.path(r.Key), body); err != nil {
		return err
	}
	return d.pruneDue()
}

func (d *Directory) replace(path string, body []byte) error {
	f, err := os.CreateTemp(d.root, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already if the rename happened
	if _, err = f.Write(body); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(d.root)
}

// pruneDue prunes once a day.
func (d *Directory) pruneDue() error {
	if d.now().Sub(d.pruned) < pruneEvery {
		return nil
	}
	return d.prune()
}

// prune removes expired records and what a crash left of unfinished writes.
func (d *Directory) prune() error {
	d.pruned = d.now()
	files, err := os.ReadDir(d.root)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(d.root, f.Name())
		r, err := read(path)
		stale := f.Name()[0] == '.' || err == nil && !r.Expires.After(d.now())
		if stale {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("prune journal: %w", err)
			}
		}
	}
	return nil
}

func (d *Directory) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(d.root, hex.EncodeToString(sum[:])+".json")
}

func read(path string) (Record, error) {
	body, err := os.ReadFile(path) //nolint:gosec // the name is a hash below our own root
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(body, &r); err != nil {
		return Record{}, fmt.Errorf("journal file %s: %w", filepath.Base(path), err)
	}
	return r, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // our own root
	if err != nil {
		return err
	}
	err = dir.Sync()
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	return err
}
