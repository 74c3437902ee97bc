package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/uuid"
)

// transcriptLife is how long a conversation is kept that nobody goes on with.
const transcriptLife = 30 * 24 * time.Hour

// Trim removes the conversations that were not used for 30 days, with their notes.
// No agent runs meanwhile. A thread that goes on later begins a new one, and is told
// what git has.
func Trim(conversations string, now time.Time) error {
	root, err := os.OpenRoot(conversations)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trim conversations: %w", err)
	}
	defer root.Close() //nolint:errcheck // what is removed is gone or not
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if _, notOne := uuid.Parse(e.Name()); notOne != nil || now.Sub(newest(root, e.Name())) <= transcriptLife {
			continue
		}
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return err
}

// newest is when the newest file of a conversation was written.
func newest(root *os.Root, id string) (at time.Time) {
	files, err := fs.ReadDir(root.FS(), id)
	if err != nil {
		return at
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	return at
}
