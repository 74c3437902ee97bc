package deploy

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3 has it as ETag; nothing is proved by it that an attacker would gain from
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"
)

const (
	maxFiles = 20_000
	maxBytes = 1 << 30 // 1 GB
	maxKey   = 1024    // bytes, as S3 has it
	maxNamed = 10      // refused files that an Error names

	chunk    = 1 << 20  // bytes that are read at once
	maxKept  = 32 << 20 // bytes of contents that are kept until they are uploaded
	keyStart = 64       // bytes that tell a private key
)

// File is a file of a build, and the object it is to become.
type File struct {
	Key          string // slash-separated path below the build's directory
	Size         int64  // bytes
	SHA256       string // lower-case hex
	MD5          string // lower-case hex; some buckets know content by it; empty if it was not asked for
	ContentType  string
	CacheControl string
}

// object is what the file becomes.
func (f *File) object() Object {
	return Object{Key: f.Key, Size: f.Size, SHA256: f.SHA256, ContentType: f.ContentType, CacheControl: f.CacheControl}
}

// Scan reads a build and returns its files, sorted by key. An *Error with
// CodeRefused names what must not be deployed: links and other special files,
// dotfiles (but what is in .well-known/), key and environment files; also a
// build that has no index.html or an empty one, or that is too large. It opens
// regular files only and never leaves the directory. Other errors are *Error
// with CodeFailed, or the cause of ctx.
func Scan(ctx context.Context, dir string) ([]File, error) {
	s := scanner{withMD5: true}
	err := s.scan(ctx, dir)
	return s.files, err
}

// openBuild opens a directory that a build made; a link in its place is not
// followed.
func openBuild(dir string) (*os.Root, error) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refused("the build left no " + filepath.Base(dir))
	case err != nil:
		return nil, &Error{Code: CodeFailed, Message: "read the build", Err: err}
	case !info.IsDir():
		return nil, refused(filepath.Base(dir) + " is not a directory")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &Error{Code: CodeFailed, Message: "read the build", Err: err}
	}
	if now, err := root.Stat("."); err != nil || !os.SameFile(info, now) {
		root.Close() //nolint:errcheck // nothing was done with it
		return nil, refused(filepath.Base(dir) + " is not a directory")
	}
	return root, nil
}

// openFile opens a file that was a regular one. Whatever it is by now, opening it
// does not wait.
func openFile(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close() //nolint:errcheck // it was only opened
		return nil, refused(fmt.Sprintf("%q is not a regular file any more", name))
	}
	return f, nil
}

// scanner reads a build.
type scanner struct {
	withMD5 bool              // it takes several times as long as SHA-256; who does without gets none
	known   map[string]Object // what the bucket holds, as far as is remembered

	root *os.Root

	// Of who walks.
	count   int
	bytes   int64
	refused []string
	found   chan string // paths that are to be read

	// Of who reads; several do.
	mu    sync.Mutex
	files []File
	bad   []string // refused for what is in it
	// Contents of files that look new, by key, so that each file is read once.
	// One of more than a chunk is left out, and so is what does not fit into maxKept.
	bodies map[string][]byte
	kept   int
}

// scan reads a build into s.
func (s *scanner) scan(ctx context.Context, dir string) error {
	root, err := openBuild(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it was only read from
	return s.scanIn(ctx, root, root.FS())
}

// scanIn reads from root what is listed. Files are read while others are looked for.
func (s *scanner) scanIn(ctx context.Context, root *os.Root, listed fs.FS) error {
	s.root, s.bodies, s.found = root, map[string][]byte{}, make(chan string, 1000)
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var reading sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		reading.Go(func() {
			if err := s.readFound(inner); err != nil {
				stop(err)
			}
		})
	}
	err := fs.WalkDir(listed, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return s.visit(inner, p, d)
	})
	if err != nil {
		stop(err)
	}
	close(s.found)
	reading.Wait()
	if inner.Err() != nil {
		return failed(ctx, "read the build", context.Cause(inner))
	}
	slices.SortFunc(s.files, func(a, b File) int { return strings.Compare(a.Key, b.Key) })
	slices.Sort(s.bad)
	s.refused = append(s.refused, s.bad...)
	return s.verdict()
}

// visit looks at an entry, and has it read if it may be deployed by what it is.
func (s *scanner) visit(ctx context.Context, p string, d fs.DirEntry) error {
	if p == "." {
		return nil
	}
	if reason := refuse(p, d); reason != "" {
		s.refused = append(s.refused, fmt.Sprintf("%q (%s)", p, reason))
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if d.IsDir() {
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	s.bytes += info.Size()
	if s.count++; s.count > maxFiles {
		return refused(fmt.Sprintf("the build has more than %d files", maxFiles))
	}
	if s.bytes > maxBytes {
		return refused("the build is larger than 1 GB")
	}
	select {
	case s.found <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readFound reads what visit let pass.
func (s *scanner) readFound(ctx context.Context) error {
	buf := make([]byte, chunk)
	for p := range s.found {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		file, private, err := s.read(p, buf)
		why := ""
		switch {
		case errors.Is(err, fs.ErrPermission):
			why = "it cannot be read"
		case err != nil:
			return err
		case private:
			why = "a private key"
		}
		s.mu.Lock()
		s.files = append(s.files, file)
		if why != "" {
			s.bad = append(s.bad, fmt.Sprintf("%q (%s)", p, why))
		}
		s.mu.Unlock()
	}
	return nil
}

// read reads a file, by way of buf.
func (s *scanner) read(p string, buf []byte) (file File, private bool, err error) {
	f, err := openFile(s.root, p)
	if err != nil {
		return File{}, false, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	file = File{Key: p, ContentType: contentType(p), CacheControl: cacheControl(p)}
	sha, md := sha256.New(), md5.New() //nolint:gosec // see the import
	for err == nil {
		var n int
		n, err = io.ReadFull(f, buf)
		sha.Write(buf[:n])
		if s.withMD5 {
			md.Write(buf[:n])
		}
		if file.Size == 0 {
			private = isPrivateKey(buf[:min(n, keyStart)])
		}
		file.Size += int64(n)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return File{}, false, fmt.Errorf("read %q: %w", p, err)
	}
	file.SHA256 = hex.EncodeToString(sha.Sum(nil))
	if s.withMD5 {
		file.MD5 = hex.EncodeToString(md.Sum(nil))
	}
	if file.Size < chunk && s.known[p].SHA256 != file.SHA256 {
		s.keep(p, buf[:file.Size])
	}
	return file, private, nil
}

func (s *scanner) keep(key string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept += len(content); s.kept <= maxKept {
		s.bodies[key] = bytes.Clone(content)
	}
}

func (s *scanner) verdict() error {
	if n := len(s.refused); n > 0 {
		named := strings.Join(s.refused[:min(n, maxNamed)], ", ")
		if n > maxNamed {
			named += fmt.Sprintf(" and %d more", n-maxNamed)
		}
		return refused("the build holds files that must not be public: " + named)
	}
	i := slices.IndexFunc(s.files, func(f File) bool { return f.Key == "index.html" })
	if i < 0 || s.files[i].Size == 0 {
		return refused("the build has no index.html, or an empty one")
	}
	return nil
}

// refuse says why an entry must not be deployed, or nothing.
func refuse(p string, d fs.DirEntry) string {
	name := d.Name()
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		return "a link"
	case !d.IsDir() && !d.Type().IsRegular():
		return "not a regular file"
	case len(p) > maxKey || !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "a name that is too long or has unreadable characters"
	case strings.HasPrefix(name, ".") && (p != ".well-known" || !d.IsDir()):
		return "a dotfile"
	case !d.IsDir() && isSecretName(name):
		return "a key or environment file"
	}
	return ""
}

func isSecretName(name string) bool {
	name = strings.ToLower(name)
	switch path.Ext(name) {
	case ".pem", ".key", ".p8", ".p12", ".pfx", ".pkcs12", ".jks", ".keystore", ".ppk", ".kdbx", ".env":
		return true
	}
	return slices.Contains([]string{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"}, name)
}

// isPrivateKey recognises a key file, by its beginning, whatever it is called.
func isPrivateKey(start []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimSpace(start), []byte("\n"))
	return bytes.HasPrefix(line, []byte("-----BEGIN ")) && bytes.Contains(line, []byte("PRIVATE KEY"))
}

func refused(message string) *Error { return &Error{Code: CodeRefused, Message: message} }

// failed wraps an error of disk or bucket. The cause of ctx, and what is an
// *Error already, go through.
func failed(ctx context.Context, what string, err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return &Error{Code: CodeFailed, Message: what, Err: err}
}
