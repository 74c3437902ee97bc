package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// A conversation at rest is a directory named by its id, with the CLI's
// transcript. While it runs, a copy lies in the job's directory, and runningFile
// names it, so that a crash is made good by Rescue. Everything else the CLI and
// its children leave in the job's directory is never looked at.
const (
	transcriptFile = "transcript.jsonl"
	endedFile      = "ended"   // in a conversation that could not be continued
	runningFile    = "running" // the id of the conversation that is lent out

	configDir = "claude" // the CLI's configuration, below the job's directory
	homeDir   = "home"
	tmpDir    = "tmp"

	projectsDir = configDir + "/projects"
	lentDir     = projectsDir + "/-thread"

	// maxTranscript bounds what is brought home; a longer conversation goes on
	// from where it was before.
	maxTranscript = 256 << 20
)

// settings is all that the CLI is told by file: commits are not its business.
const settings = `{"includeCoAuthoredBy":false}
`

// conversationName joins the parts so that no two different threads have the
// same name.
func conversationName(projectID, userID, threadID string, generation int) []byte {
	return fmt.Appendf(nil, "%q %q %q %d", projectID, userID, threadID, generation)
}

// conversation is a thread's conversation during a run.
type conversation struct {
	root       *os.Root // of all conversations
	request    Request
	generation int
	id         string
	resumed    bool // there is a transcript
}

// openConversation finds the thread's conversation. Close it after use.
func openConversation(r Request) (*conversation, error) {
	if err := os.MkdirAll(r.Conversations, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(r.Conversations)
	if err != nil {
		return nil, err
	}
	c := &conversation{root: root, request: r}
	for {
		c.id = ConversationID(r.ProjectID, r.UserID, r.ThreadID, c.generation)
		if !exists(root, path.Join(c.id, endedFile)) {
			break
		}
		c.generation++
	}
	c.resumed = exists(root, path.Join(c.id, transcriptFile))
	return c, nil
}

func exists(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

func (c *conversation) close() {
	c.root.Close() //nolint:errcheck // nothing was written through it that is not closed already
}

// lend makes the job's directories anew and puts a copy of the transcript into
// them, beside settings that are ours each time.
func (c *conversation) lend() error {
	if err := os.MkdirAll(c.request.Job, 0o700); err != nil {
		return err
	}
	job, err := os.OpenRoot(c.request.Job)
	if err != nil {
		return err
	}
	defer job.Close() //nolint:errcheck // what is written is closed by itself
	for _, dir := range []string{configDir, homeDir, tmpDir} {
		if err := errors.Join(job.RemoveAll(dir), job.Mkdir(dir, 0o700)); err != nil {
			return err
		}
	}
	if err := job.MkdirAll(lentDir, 0o700); err != nil {
		return err
	}
	if err := job.WriteFile(configDir+"/settings.json", []byte(settings), 0o600); err != nil {
		return err
	}
	if err := c.root.WriteFile(runningFile, []byte(c.id), 0o600); err != nil {
		return err
	}
	if !c.resumed {
		return nil
	}
	from, err := c.root.Open(path.Join(c.id, transcriptFile))
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	to, err := job.OpenFile(path.Join(lentDir, c.id+".jsonl"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// end gives the conversation up and goes on with the next generation.
func (c *conversation) end() error {
	if err := c.root.MkdirAll(c.id, 0o700); err != nil {
		return err
	}
	if err := c.root.WriteFile(path.Join(c.id, endedFile), nil, 0o600); err != nil {
		return err
	}
	if err := c.root.Remove(path.Join(c.id, transcriptFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.generation++
	c.id = ConversationID(c.request.ProjectID, c.request.UserID, c.request.ThreadID, c.generation)
	c.resumed = false
	return nil
}

// Rescue brings a conversation home that a crash left in a job's directory. Call
// it before that directory is emptied. With nothing to rescue it does nothing.
// What the agent planted in the directory is not followed.
func Rescue(job, conversations string) error {
	root, err := os.OpenRoot(conversations)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rescue conversation: %w", err)
	}
	defer root.Close() //nolint:errcheck // what is written is closed by itself
	running, err := root.ReadFile(runningFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rescue conversation: %w", err)
	}
	if id, err := uuid.ParseBytes(running); err == nil { // else the write was cut: nothing ran
		if err := bringHome(job, root, id.String()); err != nil {
			return fmt.Errorf("rescue conversation %s: %w", id, err)
		}
	}
	return root.Remove(runningFile)
}

// bringHome replaces a conversation's transcript by the newest one that lies in
// the job's directory. If there is none, the old one stays.
func bringHome(job string, home *os.Root, id string) error {
	root, err := os.OpenRoot(job)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it was only read
	name := newestTranscript(root, id)
	if name == "" {
		return nil
	}
	// Opening a pipe that was planted there would wait for ever.
	from, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxTranscript {
		return nil
	}
	return replace(home, id, from)
}

// newestTranscript finds a conversation's transcript below the projects
// directory, among regular files in directories; empty if there is none.
func newestTranscript(root *os.Root, id string) string {
	// The CLI files transcripts by working directory; where, is its business.
	projects, err := fs.ReadDir(root.FS(), projectsDir)
	if err != nil {
		return ""
	}
	var newest string
	var when time.Time
	for _, p := range projects {
		name := path.Join(projectsDir, p.Name(), id+".jsonl")
		info, err := root.Lstat(name)
		if err != nil || !p.IsDir() || !info.Mode().IsRegular() {
			continue
		}
		if newest == "" || info.ModTime().After(when) {
			newest, when = name, info.ModTime()
		}
	}
	return newest
}

// replace writes a transcript so that a crash leaves the old or the new one.
func replace(home *os.Root, id string, from io.Reader) error {
	if err := home.MkdirAll(id, 0o700); err != nil {
		return err
	}
	temporary := path.Join(id, transcriptFile+".new")
	to, err := home.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.LimitReader(from, maxTranscript))
	if err == nil {
		err = to.Sync()
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return home.Rename(temporary, path.Join(id, transcriptFile))
}
