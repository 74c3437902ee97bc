package deploy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestFileThatCannotBeReadEndsTheScan: a build without it must not pass for the whole.
func TestFileThatCannotBeReadEndsTheScan(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // it was only read from
	listed := fstest.MapFS{"index.html": {}}
	for i := range 5000 { // more than wait to be read
		listed["gone/"+strconv.Itoa(i)] = &fstest.MapFile{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var s scanner
	err = s.scanIn(ctx, root, listed)
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeFailed || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v; want that a file is not there", err)
	}
}

// TestScanIsSorted: a large file takes longer than those behind it.
func TestScanIsSorted(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a.bin": 16 << 20, "b.html": 1, "c.html": 1, "index.html": 1} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Scan(t.Context(), dir)
	if err != nil || len(files) != 4 || !slices.IsSortedFunc(files, func(a, b File) int { return strings.Compare(a.Key, b.Key) }) {
		t.Errorf("%+v, %v", files, err)
	}
}
