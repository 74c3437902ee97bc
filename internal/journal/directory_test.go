package journal_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/journal/journaltest"
)

func TestDirectory(t *testing.T) {
	journaltest.Run(t, func(t *testing.T) journaltest.Harness {
		t.Helper()
		root := filepath.Join(t.TempDir(), "journal")
		var mu sync.Mutex
		fences := map[string]int64{}
		return journaltest.Harness{
			Open: func(t *testing.T) journal.Store {
				t.Helper()
				d, err := journal.NewDirectory(journal.DirectoryConfig{
					Root: root,
					Current: func(_ context.Context, key string) (int64, error) {
						mu.Lock()
						defer mu.Unlock()
						return fences[key], nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				return d
			},
			Take: func(_ *testing.T, key string) journal.Fence {
				mu.Lock()
				defer mu.Unlock()
				fences[key]++
				return journal.Fence{ProjectKey: key, Number: fences[key]}
			},
			Now: time.Now,
		}
	})
}

// A crash in the middle of a write leaves a temporary file and the old record.
func TestDirectoryRemovesWhatACrashLeft(t *testing.T) {
	root := t.TempDir()
	left := filepath.Join(root, ".new-123")
	if err := os.WriteFile(left, []byte(`{"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.NewDirectory(journal.DirectoryConfig{Root: root}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatalf("the unfinished write is still there: %v", err)
	}
}

// A worker that runs for months removes what has expired, too.
func TestDirectoryPrunesOnceADay(t *testing.T) {
	root, now := t.TempDir(), time.Unix(2_000_000_000, 0)
	d, err := journal.NewDirectory(journal.DirectoryConfig{
		Root: root, Now: func() time.Time { return now },
		Current: func(context.Context, string) (int64, error) { return 1, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) {
		t.Helper()
		r := journal.Record{Key: key, Expires: now.Add(30 * 24 * time.Hour)}
		if err := d.Put(t.Context(), r, journal.Fence{ProjectKey: "p", Number: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for day, want := range []int{1, 2, 2} { // the third day is the 31st
		put(string(rune('a' + day)))
		if files, err := os.ReadDir(root); err != nil || len(files) != want {
			t.Errorf("after %d writes: %d files, %v", day+1, len(files), err)
		}
		now = now.Add([]time.Duration{24 * time.Hour, 29*24*time.Hour + time.Minute, 0}[day])
	}
}
