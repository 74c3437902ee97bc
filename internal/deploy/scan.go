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
	"unicode"
	"unicode/utf8"
)

const (
	maxFiles = 20_000
	maxBytes = 1 << 30 // 1 GB
	maxKey   = 1024    // bytes, as S3 has it
	maxNamed = 10      // refused files that an Error names
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
func Scan(ctx context.Context, dir string) ([]File, error) { return scan(ctx, dir, true) }

// scan is Scan. MD5 takes several times as long as SHA-256, so who does without
// gets none.
func scan(ctx context.Context, dir string, withMD5 bool) ([]File, error) {
	root, err := openBuild(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was only read from
	s := scanner{root: root, withMD5: withMD5}
	if err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return s.visit(p, d)
	}); err != nil {
		return nil, failed(ctx, "read the build", err)
	}
	slices.Sort(s.paths)
	if err := s.readAll(ctx); err != nil {
		return nil, failed(ctx, "read the build", err)
	}
	if err := s.verdict(); err != nil {
		return nil, err
	}
	return s.files, nil
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
	return root, nil
}

type scanner struct {
	root    *os.Root
	withMD5 bool
	paths   []string
	files   []File
	bytes   int64
	refused []string
}

func (s *scanner) visit(p string, d fs.DirEntry) error {
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
	if len(s.paths) == maxFiles {
		return refused(fmt.Sprintf("the build has more than %d files", maxFiles))
	}
	if s.bytes > maxBytes {
		return refused("the build is larger than 1 GB")
	}
	s.paths = append(s.paths, p)
	return nil
}

// readAll reads the files that visit let pass, each once.
func (s *scanner) readAll(ctx context.Context) error {
	s.files = make([]File, len(s.paths))
	why := make([]string, len(s.paths))
	err := each(ctx, len(s.paths), runtime.GOMAXPROCS(0), func(_ context.Context, i int) error {
		file, private, err := s.read(s.paths[i])
		switch {
		case errors.Is(err, fs.ErrPermission):
			why[i] = "it cannot be read"
			return nil
		case private:
			why[i] = "a private key"
		}
		s.files[i] = file
		return err
	})
	for i, p := range s.paths {
		if why[i] != "" {
			s.refused = append(s.refused, fmt.Sprintf("%q (%s)", p, why[i]))
		}
	}
	return err
}

func (s *scanner) read(p string) (file File, private bool, err error) {
	f, err := s.root.Open(p)
	if err != nil {
		return File{}, false, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	file = File{Key: p, ContentType: contentType(p), CacheControl: cacheControl(p)}
	sha, start := sha256.New(), &head{}
	to := []io.Writer{sha, start}
	md := md5.New() //nolint:gosec // see the import
	if s.withMD5 {
		to = append(to, md)
	}
	if file.Size, err = io.Copy(io.MultiWriter(to...), f); err != nil {
		return File{}, false, fmt.Errorf("read %q: %w", p, err)
	}
	file.SHA256 = hex.EncodeToString(sha.Sum(nil))
	if s.withMD5 {
		file.MD5 = hex.EncodeToString(md.Sum(nil))
	}
	return file, start.isPrivateKey(), nil
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

// head keeps the beginning of what is written to it.
type head struct{ kept []byte }

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), 64-len(h.kept))]...)
	return len(p), nil
}

// isPrivateKey recognises a key file whatever it is called.
func (h *head) isPrivateKey() bool {
	line, _, _ := bytes.Cut(bytes.TrimSpace(h.kept), []byte("\n"))
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
