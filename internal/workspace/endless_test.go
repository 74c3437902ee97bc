package workspace_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// TestPatternsWithoutEnd leaves patterns that git would try against a path for hours.
// The command fails, and the next ones go on: in another thread, and after a takeover.
func TestPatternsWithoutEnd(t *testing.T) {
	f := setUp(t)
	f.store = workspace.New(workspace.Config{
		Root: f.root, Runner: processtest.Runner(t), Env: processtest.Env(t), Token: gitserver.Token, AllowedHosts: []string{f.Host}, GitTime: time.Second,
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(thread, command string) *workspace.Workspace {
		t.Helper()
		w, err := f.store.Open(ctx, f.request(thread, command))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	leave := func(w *workspace.Workspace) {
		t.Helper()
		f.write(w, ".gitignore", strings.Repeat("*/**/", 14)+"b\n")
		f.write(w, "untracked/.gitignore", strings.Repeat("*/**/", 14)+"b\n")
		f.write(w, "untracked/"+strings.Repeat("a/", 60)+"a", "x")
	}
	w := open("1", "c1")
	leave(w)
	_, err := w.Commit(ctx, workspace.CommitRequest{Message: message("c1")})
	if e, ok := errors.AsType[*workspace.Error](err); !ok || e.Code != "file_too_large" {
		t.Fatalf("committed with %v", err)
	}
	w = open("2", "c2")
	if _, err := os.Lstat(filepath.Join(w.Site(), "untracked")); err == nil || !f.exists(filepath.Join(w.Site(), "index.html")) {
		t.Error("the checkout is not that of the thread")
	}
	leave(w)
	if err := f.store.TakeOver(ctx, workspace.TakeOverRequest{ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott"}); err != nil {
		t.Fatal(err)
	}
	w = open("3", "c3")
	f.write(w, "index.html", "changed")
	if c, err := w.Commit(ctx, workspace.CommitRequest{Message: message("c3")}); err != nil || len(c.Files) != 1 {
		t.Errorf("committed %v, %v", c.Files, err)
	}
}

// deepen makes directories in directories, deeper than a path can be long, and a file.
func deepen(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := syscall.Mkdirat(at, "deep", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := syscall.Openat(at, "deep", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(at) //nolint:errcheck // it is a place
		at = next
	}
	fd, err := syscall.Openat(at, "file", syscall.O_CREAT|syscall.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Close(fd), syscall.Close(at)); err != nil {
		t.Fatal(err)
	}
}

// TestDirectoriesWithoutEnd leaves what git can neither take nor remove, and what would
// take long to walk through. What else changed is committed, and another thread goes on.
func TestDirectoriesWithoutEnd(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	deepen(t, w.Site(), 8000)
	if err := os.Symlink("index.html", filepath.Join(w.Site(), "link")); err != nil { // so that all is looked through
		t.Fatal(err)
	}
	began := time.Now()
	if c := f.commit(w, "a"); !slices.Equal(c.Files, []string{"link"}) {
		t.Errorf("committed %v", c.Files)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	w = f.open(f.request("2", "c2"))
	if entries, err := os.ReadDir(w.Site()); err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "deep" }) {
		t.Errorf("the next checkout has %v, %v", entries, err)
	}
}
