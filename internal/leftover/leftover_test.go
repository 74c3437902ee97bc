package leftover_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// plant makes one of everything below a directory, beside a secret.
func plant(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "site")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(secret, []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(dir, "plain"), []byte("hello"), 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "plain"), []byte("hello"), 0o600),
		os.Symlink(secret, filepath.Join(dir, "out")),
		os.Symlink("plain", filepath.Join(dir, "within")),
		os.Symlink("sub", filepath.Join(dir, "linked")),
		os.Symlink(filepath.Dir(secret), filepath.Join(dir, "outside")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadFile(t *testing.T) {
	root, err := leftover.Open(plant(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // it was only read from
	for name, want := range map[string]error{
		"plain": nil, "sub/plain": nil,
		"out": leftover.ErrIrregular, "within": leftover.ErrIrregular, "pipe": leftover.ErrIrregular, "sub": leftover.ErrIrregular,
		"linked/plain": leftover.ErrIrregular, "outside/secret": leftover.ErrIrregular, "plain/x": leftover.ErrIrregular,
		"gone": fs.ErrNotExist, "gone/plain": fs.ErrNotExist,
	} {
		body, err := leftover.ReadFile(root, name, 5)
		if !errors.Is(err, want) || want == nil && string(body) != "hello" || want != nil && body != nil {
			t.Errorf("%s: %q, %v; want %v", name, body, err, want)
		}
	}
	if body, err := leftover.ReadFile(root, "../secret", 9); err == nil {
		t.Errorf("outside: %q", body)
	}
	if body, err := leftover.ReadFile(root, "plain", 4); !errors.Is(err, leftover.ErrTooLarge) {
		t.Errorf("over the bound: %q, %v", body, err)
	}
}

func TestOpen(t *testing.T) {
	dir := plant(t)
	for _, name := range []string{"plain", "linked", "outside", "pipe"} {
		if _, err := leftover.Open(filepath.Join(dir, name)); !errors.Is(err, leftover.ErrIrregular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leftover.Open(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	dir := plant(t)
	for name, want := range map[string]bool{"sub": false, "plain": true, "linked": true, "outside": true, "pipe": true, "gone": true} {
		replaced, err := leftover.Directory(filepath.Join(dir, name), 0o770)
		if err != nil || replaced != want {
			t.Errorf("%s: %v, %v", name, replaced, err)
		}
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || !info.IsDir() || want && info.Mode().Perm() != 0o770 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if body, err := os.ReadFile(filepath.Join(dir, "sub", "plain")); err != nil || !strings.Contains(string(body), "hello") {
		t.Errorf("what a link pointed to: %q, %v", body, err)
	}
}
