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
