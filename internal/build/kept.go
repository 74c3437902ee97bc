package build

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// Trees of packages that npm ci made where no agent had worked yet lie in the
// cache, each as one file: it is whole or not there, quick to remove, and of no
// use to who would write to it in place.
const (
	keptPrefix = "node_modules-" // followed by the hash of the inputs
	keptSuffix = ".tar"
	keptEnd    = "." // the last entry, as no file is called: a crash of the machine may cut a file

	keptLife      = 30 * 24 * time.Hour // since it was last used
	maxKept       = 2
	maxKeptBytes  = 2 << 30 // of all
	maxDownloads  = 2 << 30 // bytes of npm's cache
	downloadsLife = 30 * 24 * time.Hour
)

func keptName(inputs string) string { return keptPrefix + inputs + keptSuffix }

// restore copies a tree that was kept for the inputs into the checkout; false if
// there is none. What cannot be copied is dropped, and made by npm.
func (s *site) restore(ctx context.Context, inputs string) bool {
	if inputs == "" {
		return false
	}
	file := filepath.Join(s.request.Cache, keptName(inputs))
	f, err := os.Open(file) //nolint:gosec // a name of ours, where no child can write
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		defer f.Close() //nolint:errcheck // it was only read from
		now := s.now()
		err = errors.Join(s.unpack(ctx, f), os.Chtimes(file, now, now))
	}
	if err != nil {
		s.logger().WarnContext(ctx, "kept packages not used", slog.Any("error", errors.Join(err, os.Remove(file), s.root.RemoveAll("node_modules"))))
		return false
	}
	s.logger().DebugContext(ctx, "packages copied from those that were kept")
	return true
}

func (s *site) unpack(ctx context.Context, from io.Reader) error {
	if err := errors.Join(s.root.RemoveAll("node_modules"), s.root.Mkdir("node_modules", 0o770)); err != nil {
		return err
	}
	root, err := s.root.OpenRoot("node_modules")
	if err != nil {
		return err
	}
	u := newUnpacker(root)
	err = u.all(ctx, tar.NewReader(from))
	return errors.Join(err, u.end())
}

// keep puts the tree that npm ci has just made into the cache. It is a courtesy to
// the next checkout: a failure is logged.
func (s *site) keep(ctx context.Context, inputs string) {
	if inputs == "" {
		return
	}
	file := filepath.Join(s.request.Cache, keptName(inputs))
	err := s.pack(ctx, file+".new")
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err == nil {
		err = trimKept(s.request.Cache, s.now())
	}
	if err != nil {
		s.logger().WarnContext(ctx, "packages not kept", slog.Any("error", errors.Join(err, os.RemoveAll(file+".new"))))
	}
}

func (s *site) pack(ctx context.Context, file string) (err error) {
	to, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // a name of ours, where no child can write
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	modules, err := leftover.Open(filepath.Join(s.request.Site, "node_modules"))
	if err != nil {
		return err
	}
	defer modules.Close() //nolint:errcheck // it was only read from
	out := tar.NewWriter(to)
	var size int64
	err = fs.WalkDir(modules.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case leftover.TooDeep(name):
			return errors.New("node_modules is nested too deep")
		}
		n, err := packOne(out, modules, name, d)
		if size += n; err == nil && size > maxKeptBytes/maxKept {
			err = fmt.Errorf("node_modules has more than %d bytes", maxKeptBytes/maxKept)
		}
		return err
	})
	if err == nil {
		err = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: keptEnd})
	}
	return errors.Join(err, out.Close())
}

// packOne adds one entry. Pipes and the like are left out.
func packOne(out *tar.Writer, from *os.Root, name string, d fs.DirEntry) (int64, error) {
	info, err := d.Info()
	if err != nil {
		return 0, err
	}
	switch {
	case d.IsDir():
		return 0, out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o770})
	case d.Type()&fs.ModeSymlink != 0:
		target, err := from.Readlink(name)
		if err != nil {
			return 0, err
		}
		return 0, out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target})
	case !info.Mode().IsRegular():
		return 0, nil
	}
	f, err := leftover.File(from, name)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm())}); err != nil {
		return 0, err
	}
	return io.CopyN(out, f, info.Size())
}

// Trim bounds what builds keep of a project and user: trees of packages that nobody
// used for 30 days, or above two of them, or above 2 GB; and npm's downloads, all of
// them, when they are above 2 GB or nobody used them for 30 days. No build runs
// meanwhile.
func Trim(cache, downloads string, now time.Time) error {
	return errors.Join(trimKept(cache, now), trimDownloads(downloads, now))
}

func trimKept(cache string, now time.Time) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return fmt.Errorf("trim kept packages: %w", err)
	}
	var kept []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), keptPrefix) {
			continue
		}
		kept = append(kept, info)
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	var size int64
	whole := 0
	for _, info := range kept {
		size += info.Size()
		isWhole := strings.HasSuffix(info.Name(), keptSuffix)
		if isWhole {
			whole++
		}
		if isWhole && whole <= maxKept && size <= maxKeptBytes && now.Sub(info.ModTime()) <= keptLife {
			continue
		}
		size -= info.Size()
		err = errors.Join(err, os.RemoveAll(filepath.Join(cache, info.Name())))
	}
	return err
}

// trimDownloads looks at what children wrote.
func trimDownloads(downloads string, now time.Time) error {
	root, err := leftover.Open(downloads)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, leftover.ErrIrregular) {
		return nil // it will be made anew
	}
	if err != nil {
		return fmt.Errorf("trim npm's downloads: %w", err)
	}
	defer root.Close() //nolint:errcheck // what is removed is gone or not
	var size int64
	var used time.Time
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be looked at does not count
		}
		if leftover.TooDeep(name) { // npm made none of it
			size = maxDownloads + 1
			return fs.SkipAll
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
			if info.ModTime().After(used) {
				used = info.ModTime()
			}
		}
		return nil
	})
	if size <= maxDownloads && now.Sub(used) <= downloadsLife {
		return nil
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return err
}
