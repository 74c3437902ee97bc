package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"
)

// Directory is a Bucket on disk, for the demo and for tests: the directory is
// the plain website, each object a file. The headers lie beside it, in a
// directory of the same name with ".meta" appended, so that a web server over
// the first never serves them.
//
// What a directory cannot do is hold both "a" and "a/b"; the newer one replaces
// the other. Conditions hold among users of one Directory, not between processes.
type Directory struct {
	site *os.Root // the website
	meta *os.Root // headers/<sha256 of the key>.json, and new/ for files being written
	now  func() time.Time
	mu   sync.Mutex // makes the look at a condition and the rename one step
}

const (
	headersDir = "headers"
	newDir     = "new"
)

// headers is what a file cannot hold of an object.
type headers struct {
	Key          string `json:"key"`
	ContentType  string `json:"contentType"`
	CacheControl string `json:"cacheControl"`
}

// OpenDirectory opens a directory as a bucket and creates it if missing. What a
// crash left half written is removed. A nil now means time.Now. Close it when
// done.
func OpenDirectory(dir string, now func() time.Time) (*Directory, error) {
	if now == nil {
		now = time.Now
	}
	site, err := openRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	meta, err := openRoot(filepath.Clean(dir) + ".meta")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket: %w", err), site.Close())
	}
	d := &Directory{site: site, meta: meta, now: now}
	err = errors.Join(meta.RemoveAll(newDir), meta.MkdirAll(newDir, 0o750), meta.MkdirAll(headersDir, 0o750))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket: %w", err), d.Close())
	}
	return d, nil
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// Close releases the directory; the Directory is not used afterwards.
func (d *Directory) Close() error { return errors.Join(d.site.Close(), d.meta.Close()) }

// List implements Bucket. It reads every file, so that it tells what is there,
// also after somebody edited the directory by hand.
func (d *Directory) List(ctx context.Context) ([]Object, error) {
	var objects []Object
	err := fs.WalkDir(d.site.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !e.Type().IsRegular():
			return nil
		}
		o, err := d.object(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		objects = append(objects, o)
		return err
	})
	return objects, err
}

// object describes the file of a key; its ETag is the hash of its content.
func (d *Directory) object(key string) (Object, error) {
	f, err := d.site.Open(key)
	if err != nil {
		return Object{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	info, err := f.Stat()
	if err != nil {
		return Object{}, err
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return Object{}, err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	o := Object{Key: key, Size: size, SHA256: sum, ETag: sum, Modified: info.ModTime()}
	// A file that somebody put there by hand has no headers.
	if raw, err := d.meta.ReadFile(headersPath(key)); err == nil {
		var had headers
		if json.Unmarshal(raw, &had) == nil {
			o.ContentType, o.CacheControl = had.ContentType, had.CacheControl
		}
	}
	return o, nil
}

// Put implements Bucket: the content goes to a temporary file, which is renamed
// when it is complete.
func (d *Directory) Put(ctx context.Context, o Object, body io.ReadSeeker, c Condition) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err := checkKey(o.Key); err != nil {
		return "", err
	}
	temp, err := d.write(o, body)
	if err != nil {
		return "", fmt.Errorf("write %q: %w", o.Key, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(o.Key, c); err != nil {
		return "", errors.Join(fmt.Errorf("write %q: %w", o.Key, err), os.Remove(temp))
	}
	if err := d.place(o, temp); err != nil {
		return "", errors.Join(fmt.Errorf("write %q: %w", o.Key, err), os.Remove(temp))
	}
	return o.SHA256, nil
}

// write makes a complete file of a body and returns its path.
func (d *Directory) write(o Object, body io.Reader) (string, error) {
	f, err := os.CreateTemp(filepath.Join(d.meta.Name(), newDir), "put-")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, h), body)
	if err == nil && (size != o.Size || hex.EncodeToString(h.Sum(nil)) != o.SHA256) {
		err = ErrContent
	}
	// Readable to the web server of whoever shows the site.
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	now := d.now()
	if err := os.Chtimes(f.Name(), now, now); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (d *Directory) check(key string, c Condition) error {
	if c == (Condition{}) {
		return nil
	}
	info, err := d.site.Lstat(key)
	there := err == nil && info.Mode().IsRegular()
	if c.Absent && there || c.ETag != "" && !there {
		return ErrPrecondition
	}
	if c.ETag == "" {
		return nil
	}
	o, err := d.object(key)
	if err == nil && o.ETag != c.ETag {
		err = ErrPrecondition
	}
	return err
}

// place puts a complete file into the site. The headers go first: after a crash
// between the two the content is the old one, and the next deploy sees that.
func (d *Directory) place(o Object, temp string) error {
	raw, err := json.Marshal(headers{Key: o.Key, ContentType: o.ContentType, CacheControl: o.CacheControl})
	if err != nil {
		return err
	}
	if err := d.meta.WriteFile(headersPath(o.Key), raw, 0o600); err != nil {
		return err
	}
	if err := d.makeRoom(o.Key); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(d.site.Name(), filepath.FromSlash(o.Key)))
}

// makeRoom creates the directories above key. A file where a directory must be,
// or a directory where the file must be, gives way.
func (d *Directory) makeRoom(key string) error {
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if info, err := d.site.Lstat(dir); err == nil && !info.IsDir() {
			if err := d.site.Remove(dir); err != nil {
				return err
			}
		}
	}
	if info, err := d.site.Lstat(key); err == nil && info.IsDir() {
		if err := d.site.RemoveAll(key); err != nil {
			return err
		}
	}
	return d.site.MkdirAll(path.Dir(key), 0o750)
}

// Delete implements Bucket; directories that become empty go too.
func (d *Directory) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := checkKey(key); err != nil {
			return err
		}
		if err := d.remove(key); err != nil {
			return fmt.Errorf("delete %q: %w", key, err)
		}
	}
	return nil
}

func (d *Directory) remove(key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.site.Lstat(key)
	if err != nil || info.IsDir() {
		return nil
	}
	if err := d.site.Remove(key); err != nil {
		return err
	}
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if d.site.Remove(dir) != nil {
			break // not empty
		}
	}
	if err := d.meta.Remove(headersPath(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Get returns an object and its content; the error wraps fs.ErrNotExist if there
// is none.
func (d *Directory) Get(key string) (Object, []byte, error) {
	if err := checkKey(key); err != nil {
		return Object{}, nil, err
	}
	o, err := d.object(key)
	if err != nil {
		return Object{}, nil, err
	}
	body, err := d.site.ReadFile(key)
	return o, body, err
}

func headersPath(key string) string {
	sum := sha256.Sum256([]byte(key))
	return headersDir + "/" + hex.EncodeToString(sum[:]) + ".json"
}

// checkKey refuses what is not a plain path below the directory.
func checkKey(key string) error {
	if !fs.ValidPath(key) || key == "." {
		return fmt.Errorf("key %q: %w", key, fs.ErrInvalid)
	}
	return nil
}
