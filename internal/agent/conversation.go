package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/google/uuid"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// A conversation at rest is a directory named by its id, with the CLI's
// transcript. While it runs, a copy lies in the job's directory, and runningFile
// names it, so that a crash is made good by Rescue. Everything else the CLI and
// its children leave in the job's directory is never looked at.
const (
	transcriptFile = "transcript.jsonl"
	endedFile      = "ended"   // in a conversation that could not be continued
	runningFile    = "running" // the id of the conversation that is lent out
	lockFile       = "lock"    // held during a run

	configDir = "claude" // the CLI's configuration, below the job's directory
	homeDir   = "home"
	tmpDir    = "tmp"

	projectsDir = configDir + "/projects"
	lentDir     = projectsDir + "/-thread"
)

// ErrBusy is returned if one of the conversations is at work already.
var ErrBusy = errors.New("a conversation of this project and user is at work already")

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
	lock       *os.File
	request    Request
	generation int
	id         string
	resumed    bool // there is a transcript
}

// openConversation finds the thread's conversation, after what a crash left was
// brought home. A transcript that is damaged is given up. Close it after use:
// until then no other is opened there.
func openConversation(r Request) (*conversation, error) {
	if err := os.MkdirAll(r.Conversations, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(r.Conversations)
	if err != nil {
		return nil, err
	}
	c := &conversation{root: root, request: r}
	err = c.begin()
	if err == nil {
		err = Rescue(r.Job, r.Conversations)
	}
	if err == nil {
		err = c.find()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// begin takes the lock. It ends with this process, as do the CLI and all that it
// started: their keeper sees to that.
func (c *conversation) begin() (err error) {
	if c.lock, err = c.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	err = syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrBusy
	}
	return err
}

// find looks for the thread's generation, and whether it can be resumed.
func (c *conversation) find() error {
	for {
		c.id = ConversationID(c.request.ProjectID, c.request.UserID, c.request.ThreadID, c.generation)
		ended := path.Join(c.id, endedFile)
		if !exists(c.root, ended) {
			break
		}
		// It is in use: else it would be trimmed before those that came after it.
		if err := c.root.WriteFile(ended, nil, 0o600); err != nil {
			return err
		}
		c.generation++
	}
	c.resumed = exists(c.root, path.Join(c.id, transcriptFile))
	if !c.resumed {
		return nil
	}
	f, err := leftover.File(c.root, path.Join(c.id, transcriptFile))
	if errors.Is(err, leftover.ErrIrregular) {
		return c.end()
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	_, err = checkTranscript(f, c.id)
	if errors.Is(err, errDamaged) {
		return c.end()
	}
	return err
}

func exists(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

func (c *conversation) close() {
	if c.lock != nil {
		c.lock.Close() //nolint:errcheck // nothing is written to it
	}
	c.root.Close() //nolint:errcheck // nothing was written through it that is not closed already
}

// lend makes the job's directories anew and puts a copy of the transcript into
// them, beside settings that are ours each time.
func (c *conversation) lend() error {
	if err := os.MkdirAll(path.Dir(c.request.Job), 0o700); err != nil {
		return err
	}
	if _, err := leftover.Directory(c.request.Job, 0o770); err != nil {
		return err
	}
	job, err := leftover.Open(c.request.Job)
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
	if c.resumed {
		if err := c.copyTo(job); err != nil {
			return err
		}
	}
	// From here on what lies there is the conversation.
	return c.root.WriteFile(runningFile, []byte(c.id), 0o600)
}

func (c *conversation) copyTo(job *os.Root) error {
	from, err := leftover.File(c.root, path.Join(c.id, transcriptFile))
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
	if err := giveUp(c.root, c.id); err != nil {
		return err
	}
	c.generation++
	c.id = ConversationID(c.request.ProjectID, c.request.UserID, c.request.ThreadID, c.generation)
	c.resumed = false
	return nil
}

// giveUp ends a conversation for good.
func giveUp(home *os.Root, id string) error {
	if err := home.MkdirAll(id, 0o700); err != nil {
		return err
	}
	if err := home.WriteFile(path.Join(id, endedFile), nil, 0o600); err != nil {
		return err
	}
	return home.RemoveAll(path.Join(id, transcriptFile))
}

// Rescue brings a conversation home that a crash left in a job's directory. Call
// it before that directory is emptied. With nothing to rescue it does nothing.
// What the agent planted in the directory is not followed. If it removed the
// transcript or damaged it, the conversation is given up.
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
// the job's directory.
func bringHome(job string, home *os.Root, id string) error {
	err := bringTranscript(job, home, id)
	if errors.Is(err, errDamaged) || errors.Is(err, leftover.ErrIrregular) || errors.Is(err, fs.ErrNotExist) {
		if !exists(home, path.Join(id, transcriptFile)) {
			return nil // it had none, and will begin anew
		}
		return giveUp(home, id)
	}
	return err
}

func bringTranscript(job string, home *os.Root, id string) error {
	root, err := leftover.Open(job)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it was only read
	from, err := newestTranscript(root, id)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	whole, err := checkTranscript(from, id)
	if err == nil {
		_, err = from.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return replace(home, id, io.LimitReader(from, whole))
}

// newestTranscript opens a conversation's transcript below the projects directory,
// among regular files in directories.
func newestTranscript(root *os.Root, id string) (*os.File, error) {
	// The CLI files transcripts by working directory; where, is its business.
	for _, dir := range []string{configDir, projectsDir} { // to open a pipe would wait for ever
		if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
			return nil, errDamaged
		}
	}
	projects, err := fs.ReadDir(root.FS(), projectsDir)
	if err != nil {
		return nil, err
	}
	var newest *os.File
	var age fs.FileInfo
	for _, p := range projects {
		f, err := leftover.File(root, path.Join(projectsDir, p.Name(), id+".jsonl"))
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err != nil || newest != nil && !info.ModTime().After(age.ModTime()) {
			f.Close() //nolint:errcheck // it was only opened
			continue
		}
		if newest != nil {
			newest.Close() //nolint:errcheck // it was only opened
		}
		newest, age = f, info
	}
	if newest == nil {
		return nil, errDamaged
	}
	return newest, nil
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
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return home.Rename(temporary, path.Join(id, transcriptFile))
}
