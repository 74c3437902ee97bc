package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

const (
	notesFile = "notes" // in a thread's first conversation
	maxNotes  = 10
	maxNote   = 4 << 10

	maxHistory     = 20  // lines
	maxHistoryLine = 200 // bytes
)

// Remember leaves a note for the next run in a thread's conversation: it stands
// before that run's instruction, and it is forgotten once the model has seen it.
// Of many notes the newest ten are kept, and of each 4 KB.
func Remember(conversations, projectID, userID, threadID, note string) error {
	id := ConversationID(projectID, userID, threadID, 0)
	root, name, err := notesOf(conversations, id)
	if err != nil {
		return fmt.Errorf("remember note: %w", err)
	}
	defer root.Close() //nolint:errcheck // what is written is closed by itself
	notes := append(readNotes(root, name), clip(note, maxNote))
	if len(notes) > maxNotes {
		notes = notes[len(notes)-maxNotes:]
	}
	b, err := json.Marshal(notes)
	if err == nil {
		err = root.WriteFile(name, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember note: %w", err)
	}
	return nil
}

// allNotes returns what this run is to be told: that its conversation is a new one
// although something was done, what was left by Remember, and the request's notes.
func (c *conversation) allNotes(done []string) []string {
	var notes []string
	if !c.resumed && (c.generation > 0 || len(done) > 0) {
		notes = append(notes, restartedAfter(done))
	}
	notes = append(notes, readNotes(c.root, path.Join(c.first(), notesFile))...)
	return append(notes, c.request.Notes...)
}

// restartedAfter tells a new conversation what was done before it.
func restartedAfter(done []string) string {
	if len(done) == 0 {
		return restarted
	}
	var b strings.Builder
	b.WriteString(restarted + " The newest of it:")
	for i, line := range done {
		if i == maxHistory {
			b.WriteString("\n- and more before")
			break
		}
		b.WriteString("\n- " + clip(strings.Join(strings.Fields(clean(line)), " "), maxHistoryLine))
	}
	return b.String()
}

// forget drops the notes: the model has seen them.
func (c *conversation) forget() error {
	err := c.root.Remove(path.Join(c.first(), notesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// first is where the thread's notes lie, whatever the generation.
func (c *conversation) first() string {
	return ConversationID(c.request.ProjectID, c.request.UserID, c.request.ThreadID, 0)
}

func notesOf(conversations, id string) (*os.Root, string, error) {
	if err := os.MkdirAll(conversations, 0o700); err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(conversations)
	if err != nil {
		return nil, "", err
	}
	if err := root.MkdirAll(id, 0o700); err != nil {
		root.Close() //nolint:errcheck // the first error counts
		return nil, "", err
	}
	return root, path.Join(id, notesFile), nil
}

// readNotes returns what it can read: notes are a courtesy.
func readNotes(root *os.Root, name string) []string {
	b, err := root.ReadFile(name)
	if err != nil {
		return nil
	}
	var notes []string
	if json.Unmarshal(b, &notes) != nil {
		return nil
	}
	return notes
}
