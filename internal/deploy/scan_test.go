package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

// site is a build: contents by key.
type site map[string]string

// write makes dir hold the site and nothing else.
func (s site) write(tb testing.TB, dir string) string {
	tb.Helper()
	if err := os.RemoveAll(dir); err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		tb.Fatal(err)
	}
	for key, content := range s {
		name := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func (s site) with(key, content string) site {
	out := site{key: content}
	for k, v := range s {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func small() site {
	return site{
		"index.html":                "<link href=/_astro/a.AAAAAAAA.css>",
		"_astro/a.AAAAAAAA.css":     "a{}",
		"favicon.svg":               "<svg/>",
		".well-known/security.txt":  "Contact: us",
		"manifest.webmanifest":      "{}",
		"about us/index.html":       "about",
		"_astro/photo.B-_45678.png": "png",
	}
}

func TestScan(t *testing.T) {
	got, err := deploy.Scan(t.Context(), small().write(t, filepath.Join(t.TempDir(), "dist")))
	if err != nil {
		t.Fatal(err)
	}
	const forever, revalidate = "public, max-age=31536000, immutable", "public, max-age=0, must-revalidate"
	file := func(key, typ, cache string) deploy.File {
		o := deploytest.Object(key, small()[key])
		return deploy.File{Key: key, Size: o.Size, SHA256: o.SHA256, MD5: md5Hex(small()[key]), ContentType: typ, CacheControl: cache}
	}
	want := []deploy.File{
		file(".well-known/security.txt", "text/plain; charset=utf-8", revalidate),
		file("_astro/a.AAAAAAAA.css", "text/css", forever),
		file("_astro/photo.B-_45678.png", "image/png", forever),
		file("about us/index.html", "text/html; charset=utf-8", revalidate),
		file("favicon.svg", "image/svg+xml", revalidate),
		file("index.html", "text/html; charset=utf-8", revalidate),
		file("manifest.webmanifest", "application/manifest+json", revalidate),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestScanRefuses(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	plant := func(key string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			small().with(key, "planted").write(t, dir)
		}
	}
	link := func(target, key string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			small().write(t, dir)
			if err := os.Symlink(target, filepath.Join(dir, key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		make func(t *testing.T, dir string)
		want string // in the message
	}{
		"link to a file outside": {link(secret, "a.txt"), `"a.txt" (a link)`},
		"link to a directory":    {link(filepath.Dir(secret), "dir"), `"dir" (a link)`},
		"link inside":            {link("index.html", "home.html"), `"home.html" (a link)`},
		"broken link":            {link("nowhere", "broken.png"), `"broken.png" (a link)`},
		"dotfile":                {plant("a/.htpasswd"), `"a/.htpasswd" (a dotfile)`},
		"environment":            {plant(".env.production"), `".env.production" (a dotfile)`},
		"environment by suffix":  {plant("prod.env"), `"prod.env" (a key or environment file)`},
		"directory with a dot":   {plant(".git/config"), `".git" (a dotfile)`},
		"dot in .well-known":     {plant(".well-known/.env"), `".well-known/.env" (a dotfile)`},
		".well-known below":      {plant("a/.well-known/b"), `"a/.well-known" (a dotfile)`},
		".well-known as a file": {func(t *testing.T, dir string) {
			t.Helper()
			site{"index.html": "x", ".well-known": "x"}.write(t, dir)
		}, `".well-known" (a dotfile)`},
		"key":             {plant("tls/Server.KEY"), `"tls/Server.KEY" (a key or environment file)`},
		"certificate":     {plant("c.pem"), `"c.pem" (a key`},
		"PKCS 12":         {plant("c.p12"), `"c.p12" (a key`},
		"ssh key":         {plant("id_ed25519"), `"id_ed25519" (a key`},
		"control in name": {plant("a\nb.txt"), `"a\nb.txt" (a name`},
		"not UTF-8":       {plant("a\xff.txt"), `"a\xff.txt" (a name`},
		"key by content": {func(t *testing.T, dir string) {
			t.Helper()
			small().with("notes.txt", "\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc").write(t, dir)
		}, `"notes.txt" (a private key)`},
		"pipe": {func(t *testing.T, dir string) {
			t.Helper()
			small().write(t, dir)
			if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, `"pipe" (not a regular file)`},
		"no index": {func(t *testing.T, dir string) {
			t.Helper()
			site{"about.html": "x"}.write(t, dir)
		}, "no index.html"},
		"empty index": {plantEmptyIndex, "no index.html"},
		"index is a directory": {func(t *testing.T, dir string) {
			t.Helper()
			site{"index.html/index.html": "x"}.write(t, dir)
		}, "no index.html"},
		"nothing": {func(*testing.T, string) {}, "the build left no dist"},
		"dist is a link": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Symlink(small().write(t, filepath.Join(t.TempDir(), "elsewhere")), dir); err != nil {
				t.Fatal(err)
			}
		}, "dist is not a directory"},
		"large": {func(t *testing.T, dir string) {
			t.Helper()
			small().with("film.mp4", "x").write(t, dir)
			if err := os.Truncate(filepath.Join(dir, "film.mp4"), 1<<30+1); err != nil {
				t.Fatal(err)
			}
		}, "larger than 1 GB"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dist")
			tt.make(t, dir)
			_, err := deploy.Scan(t.Context(), dir)
			var e *deploy.Error
			if !errors.As(err, &e) || e.Code != deploy.CodeRefused || !strings.Contains(e.Message, tt.want) {
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), filepath.Dir(dir)) {
				t.Errorf("the message names a directory of the machine: %v", err)
			}
		})
	}
}

func plantEmptyIndex(t *testing.T, dir string) {
	t.Helper()
	small().with("index.html", "").write(t, dir)
}

func TestScanRefusesTooManyFiles(t *testing.T) {
	dir := small().write(t, filepath.Join(t.TempDir(), "dist"))
	first := filepath.Join(dir, "first.txt")
	if err := os.WriteFile(first, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 { // hard links are quicker than files
		if err := os.Link(first, filepath.Join(dir, fmt.Sprintf("%d.txt", i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := deploy.Scan(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), "more than 20000 files") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestScanNamesOnlyTheFirst(t *testing.T) {
	s := small()
	for c := 'a'; c <= 'z'; c++ {
		s[string(c)+".pem"] = "x"
	}
	_, err := deploy.Scan(t.Context(), s.write(t, filepath.Join(t.TempDir(), "dist")))
	if err == nil || !strings.HasSuffix(err.Error(), "and 16 more") || strings.Count(err.Error(), ".pem") != 10 {
		t.Errorf("got %v, want ten names", err)
	}
}

func TestScanEndsWithItsContext(t *testing.T) {
	errCause := errors.New("a newer message")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	_, err := deploy.Scan(ctx, small().write(t, filepath.Join(t.TempDir(), "dist")))
	var e *deploy.Error
	if !errors.Is(err, errCause) || errors.As(err, &e) {
		t.Errorf("got %#v, want the cause and no *Error", err)
	}
}
