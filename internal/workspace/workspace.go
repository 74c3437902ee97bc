// Package workspace is the directory of a project and user: a git repository, a
// checkout of one thread's branch, and a place for the running job.
//
//	{projectId}-{userId}/
//	  worker/            the worker's alone
//	    git/             bare repository
//	    conversations/   the agent's conversations at rest
//	    cache/           what of a build is worth keeping; see internal/build
//	    untouched        is there until an agent has worked in site/
//	    owner.json       whose directory this is, and of which repository
//	    current.json     what the checkout holds
//	    fitting.json     commits of the remote's that are not too much
//	    takeover.json    what was set aside and is still to be looked through
//	  site/              checkout, node_modules, dist: the children's
//	  job/               the running job's conversation and temporary files
//	  cache/             npm's downloads, which it checks against the lock file
//
// Children see site/, job/ and cache/. The worker runs git only with --git-dir=worker/git
// and --work-tree=site, a configuration of its own, and no hooks; the site/.git
// that children find is a disposable copy that nothing of ours reads.
//
// The git program works on the tree, fetches, merges, and pushes what is large; go-git
// lists the remote, reads commits, writes them, moves refs, and pushes what is small:
// it holds what it sends in memory. A new repository has the last 50 commits of a
// branch, and gets the others when a merge needs them.
//
// All of the directory but commits not yet pushed can be lost.
package workspace

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/leftover"
	"github.com/webordinary/claude-code-container/internal/process"
)

// excluded is what is made in a checkout and never committed, in the words of git's
// info/exclude.
const excluded = "node_modules/\ndist/\n.astro/\n"

// attributes overrule those of the checkout's own .gitattributes: what git stores is
// what lies there, byte by byte, whatever the repository asks for.
const attributes = "* !text !crlf !eol !ident !filter !working-tree-encoding !diff !merge !conflict-marker-size !whitespace\n"

// childMode is that of the directories which children write to.
const childMode = 0o770

// Config says how workspaces are made. Root and Runner are required.
type Config struct {
	Root   string // absolute; the directories of all pairs are in it
	Runner *process.Runner
	Git    string // the git program; empty means git
	// GitMemory bounds what a git process allocates, in bytes; zero means 1 GB.
	GitMemory int64
	// GitTime bounds what a git process takes of a processor, in whole seconds; zero
	// means 3 min. It does not count waiting, for a disk or for the remote.
	GitTime time.Duration
	Env     []string
	// Token is the password of x-access-token. It is sent to AllowedHosts
	// only.
	Token        string
	AllowedHosts []string // none means github.com
	// AuthorName and AuthorEmail are of our commits; empty means WebOrdinary
	// and noreply@webordinary.com.
	AuthorName, AuthorEmail string
	// AllowWorkflowChanges lets commits change .github/workflows.
	AllowWorkflowChanges bool
	Now                  func() time.Time // nil means time.Now
	Log                  *slog.Logger     // nil means none
}

// Store opens workspaces. One workspace of a pair is open at a time.
type Store struct{ config Config }

// New returns a store.
func New(c Config) *Store {
	if c.Git == "" {
		c.Git = "git"
	}
	if c.GitMemory == 0 {
		c.GitMemory = 1 << 30
	}
	if c.GitTime == 0 {
		c.GitTime = 3 * time.Minute
	}
	if len(c.AllowedHosts) == 0 {
		c.AllowedHosts = []string{"github.com"}
	}
	if c.AuthorName == "" {
		c.AuthorName = "WebOrdinary"
	}
	if c.AuthorEmail == "" {
		c.AuthorEmail = "noreply@webordinary.com"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{config: c}
}

// Error is why a workspace cannot be had, in a word of the platform's list.
type Error struct {
	Code   string // repo_missing, repo_unreachable, repo_auth, push_failed or file_too_large
	Reason string // for a person
	Err    error  // may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return fmt.Sprintf("%s: %v", e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Request says what to open.
type Request struct {
	ProjectID, UserID string
	Dir               string // the pair's directory name
	RepoURL           string // may be empty if the workspace exists
	Branch            string // the thread's branch
	// Owner is the command whose changes the checkout will hold. If it holds
	// the changes of that command already, they are left as they are.
	Owner string
	// Committed is Owner's commit, if it has one: what it left in the checkout
	// besides is of no worth.
	Committed string
	// Wip is the message of the commit that saves what a command left behind.
	Wip func(owner string) string
	// Saved is told of that commit before a branch has it; nil means nobody
	// needs to know. It may be told twice.
	Saved func(ctx context.Context, owner, sha string) error
}

// Workspace is an open workspace, on one thread's branch.
type Workspace struct {
	store  *Store
	pair   string // see Pair
	dir    string
	self   fs.FileInfo // of dir, when it was opened
	site   string      // the checkout, if it is not dir's
	index  string      // git's index, if it is not the repository's
	url    string
	branch string
	base   string // the commit that the checkout was made from
	head   string // the branch's newest commit, ours or the remote's
	remote string // the branch on the remote when last seen; empty if not there
	start  string // the remote's default branch
}

// Site is the checkout.
func (w *Workspace) Site() string {
	if w.site != "" {
		return w.site
	}
	return filepath.Join(w.dir, "site")
}

// Job is the running job's directory.
func (w *Workspace) Job() string { return filepath.Join(w.dir, "job") }

// Conversations is where the agent's conversations rest.
func (w *Workspace) Conversations() string { return filepath.Join(w.dir, "worker", "conversations") }

// Objects is where the objects of git are that the checkout's own git reads.
func (w *Workspace) Objects() string { return filepath.Join(w.dir, "worker", "git", "objects") }

// Cache is where what is worth keeping of a build is kept, out of the children's
// reach.
func (w *Workspace) Cache() string { return filepath.Join(w.dir, "worker", "cache") }

// Downloads is npm's download cache. Children write to it.
func (w *Workspace) Downloads() string { return filepath.Join(w.dir, "cache") }

const untouchedFile = "untouched"

// Untouched reports whether no agent has worked in this checkout yet.
func (w *Workspace) Untouched() bool {
	_, err := os.Lstat(filepath.Join(w.dir, "worker", untouchedFile))
	return err == nil
}

// Touch is called before an agent works in the checkout. It cannot be undone.
func (w *Workspace) Touch() error {
	if err := w.check(); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(w.dir, "worker", untouchedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Has reports whether the checkout has a regular file at its top.
func (w *Workspace) Has(name string) bool {
	info, err := os.Lstat(filepath.Join(w.Site(), name))
	return err == nil && info.Mode().IsRegular()
}

// Branch is the thread's branch.
func (w *Workspace) Branch() string { return w.branch }

// Pair is whose children work here, as process.Access has it: "{projectId}#{userId}",
// and more if the user that this makes is another pair's.
func (w *Workspace) Pair() string { return w.pair }

// Head is the branch's newest commit.
func (w *Workspace) Head() string { return w.head }

func (w *Workspace) gitDir() string { return filepath.Join(w.dir, "worker", "git") }

// owner is whose directory it is.
type owner struct {
	ProjectID string `json:"projectId"`
	UserID    string `json:"userId"`
	RepoURL   string `json:"repoUrl"`
}

// current is what the checkout holds.
type current struct {
	Branch string `json:"branch"`
	Owner  string `json:"owner"`
	Base   string `json:"base"`
	// Switching is set while the checkout is being made: what is in it is
	// nobody's.
	Switching bool `json:"switching,omitempty"`
}

// Open opens the workspace of a pair on a thread's branch. A thread that the
// remote knows continues from there, or from our commits that it does not know
// yet; a new one begins at the remote's default branch. What another command
// left uncommitted becomes a commit on its own branch first, and so does what
// TakeOver set aside; of the latter, Owner's own is where its work continues. It
// returns an *Error, ErrTaken, or the cause of ctx.
func (s *Store) Open(ctx context.Context, r Request) (*Workspace, error) {
	w, err := s.directory(r)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(w.heal(), w.mend()); err != nil {
		return nil, err
	}
	var (
		cur   current
		n     note
		equal string
	)
	if err := errors.Join(w.readState("current.json", &cur), w.readState(noteFile, &n)); err != nil {
		return nil, err
	}
	same := cur.Branch == r.Branch && cur.Owner == r.Owner && !cur.Switching
	remote := w.list(ctx)
	if !same { // meanwhile
		equal, err = w.saveLeftovers(ctx, cur, r)
	}
	if err := cmp.Or(err, w.refresh(ctx, <-remote)); err != nil {
		return nil, err
	}
	if err := w.adopt(ctx, n, r); err != nil {
		return nil, err
	}
	if same {
		w.base = cur.Base
		if w.head, err = w.localHead(); err != nil {
			return nil, err
		}
		return w, w.writeChildGit()
	}
	if err := w.pickHead(ctx); err != nil {
		return nil, err
	}
	return w, w.checkout(ctx, r.Owner, equal)
}

// heal undoes what a crash or a child may have left: locks, and anything in the
// repository's configuration that is not ours.
func (w *Workspace) heal() error {
	if err := w.check(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(w.gitDir(), "hooks")); err != nil {
		return err
	}
	for _, f := range []string{"config.worktree", "objects/info/alternates"} {
		if err := os.RemoveAll(filepath.Join(w.gitDir(), f)); err != nil {
			return err
		}
	}
	if err := w.hide(); err != nil {
		return fmt.Errorf("close repository: %w", err)
	}
	err := filepath.WalkDir(w.gitDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "objects" {
			return filepath.SkipDir
		}
		if strings.HasSuffix(d.Name(), ".lock") {
			return os.Remove(path) //nolint:gosec // no child can write to this directory
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("heal repository: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(w.gitDir(), "info"), 0o700); err != nil {
		return err
	}
	if err := keepFile(filepath.Join(w.gitDir(), "info", "exclude"), []byte(excluded)); err != nil {
		return err
	}
	if err := keepFile(filepath.Join(w.gitDir(), "info", "attributes"), []byte(attributes)); err != nil {
		return err
	}
	return keepFile(filepath.Join(w.gitDir(), "config"), []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfilemode = true\n"))
}

// EmptyJob removes what the last job left, without following its links.
func (w *Workspace) EmptyJob() error {
	if err := w.check(); err != nil {
		return err
	}
	if _, err := leftover.Directory(w.Job(), childMode); err != nil {
		return fmt.Errorf("empty job directory: %w", err)
	}
	root, err := leftover.Open(w.Job())
	if err != nil {
		return fmt.Errorf("open job directory: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read job directory: %w", err)
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return fmt.Errorf("empty job directory: %w", err)
		}
	}
	return nil
}

// mend makes directories of what children write to, whatever they put there
// instead. A checkout that is gone holds nobody's changes.
func (w *Workspace) mend() error {
	if err := w.check(); err != nil {
		return err
	}
	replaced, err := leftover.Directory(w.Site(), childMode)
	if err != nil {
		return err
	}
	if replaced {
		if err := w.writeState("current.json", current{Switching: true}); err != nil {
			return err
		}
	}
	_, err = leftover.Directory(w.Downloads(), childMode)
	return err
}

// Intact returns an error if the checkout is not the directory that it was, but a
// link to another for example. It is asked after a child ended.
func (w *Workspace) Intact() error {
	info, err := os.Lstat(w.Site())
	if err == nil && !info.IsDir() {
		err = leftover.ErrIrregular
	}
	if err != nil {
		return fmt.Errorf("look at the checkout: %w", err)
	}
	return nil
}

func (w *Workspace) readState(name string, into any) error { return readState(w.dir, name, into) }

func readState(dir, name string, into any) error {
	body, err := os.ReadFile(filepath.Join(dir, "worker", name)) //nolint:gosec // a name of ours, where no child can write
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (w *Workspace) writeState(name string, v any) error {
	if err := w.check(); err != nil {
		return err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(w.dir, "worker", name), body)
}

// keepFile makes a file hold something, if it does not: to write is to wait for the
// disk.
func keepFile(path string, body []byte) error {
	if had, err := os.ReadFile(path); err == nil && bytes.Equal(had, body) { //nolint:gosec // a name of ours, where no child can write
		return nil
	}
	return replaceFile(path, body)
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the first error counts
	}
	return err
}
