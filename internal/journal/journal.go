// Package journal remembers what is done of a command, so that a retry, a
// redelivery or a failed publish resumes after the last finished step and the
// agent never runs twice for one result.
//
// A [Store] keeps opaque records under keys. A [Journal] keeps two kinds of
// record in it: an [Entry] for each command and a [Site] for each bucket. Every
// write names the claim it is made under (a [Fence]); a store refuses a write
// whose claim has passed to another owner, so a worker that was frozen and thaws
// cannot overwrite what its successor wrote.
package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Retention is how long a record is kept after its last write.
const Retention = 30 * 24 * time.Hour

var (
	// ErrNotFound is returned by [Store.Get] for a key without a record.
	ErrNotFound = errors.New("no such journal record")
	// ErrFenced is returned by [Store.Put] when the claim named by the fence
	// has another fence by now: somebody else owns the project.
	ErrFenced = errors.New("the claim has passed to another owner")
)

// Fence says under which claim a write is made. Number grows by one with each
// owner of the claim.
type Fence struct {
	ProjectKey string
	Number     int64
}

// Record is what a Store keeps.
type Record struct {
	Key     string
	Body    []byte // at most 350 KB
	Expires time.Time
}

// Store keeps records. It may be used by several goroutines at once. A Put that
// returned nil is durable: every later Get, by any process, returns it or what
// was put after it. A Put that returned an error other than ErrFenced may or may
// not have happened. A store may try again, for little more than a minute, what
// got no answer; it honours the context.
type Store interface {
	// Get returns the record of a key, or ErrNotFound. A record past its
	// expiry is not found.
	Get(ctx context.Context, key string) (Record, error)
	// Put writes a whole record, replacing what was there, if the claim row
	// of fence.ProjectKey still has fence.Number; else ErrFenced.
	Put(ctx context.Context, r Record, fence Fence) error
}

// Mark names a finished step of a command.
type Mark string

// The marks of a command, in the order in which they are made. Deployed and
// Pushed may come in either order.
const (
	Opened       Mark = "opened" // a run of the command has begun, and no step is finished
	Agent        Mark = "agent"
	Committed    Mark = "committed"
	Built        Mark = "built"
	Deployed     Mark = "deployed"
	Pushed       Mark = "pushed"
	DeadLettered Mark = "deadLettered" // its answer tells of a failure, and it is in a dead-letter queue
	Finished     Mark = "finished"     // Output is the answer
	Answered     Mark = "answered"     // the answer was published
)

// Entry is what is known of one command.
type Entry struct {
	ProjectKey string    `json:"projectKey"`
	CommandID  string    `json:"commandId"`
	ThreadID   string    `json:"threadId"`
	Digest     string    `json:"digest"`         // of thread, instruction and repository
	Sent       time.Time `json:"sent,omitzero"`  // when the queue first took it
	Seen       []string  `json:"seen,omitempty"` // message ids under which the answer was published
	// Reused lists the digests of other contents that came under this
	// command id and were answered.
	Reused []string `json:"reused,omitempty"`

	Attempt int `json:"attempt"` // 1, and one more for each redrive
	Tries   int `json:"tries"`   // runs of this attempt that ended in a transient error
	Runs    int `json:"runs"`    // runs since one last ended with a word: more than a few are crashes

	Base          string `json:"base,omitempty"`   // the thread's head before the command
	Commit        string `json:"commit,omitempty"` // the thread's head with the command's work
	Wip           string `json:"wip,omitempty"`    // commit of unfinished work, saved when the command was cut
	Twin          string `json:"twin,omitempty"`   // commit of the same command by an earlier owner, found at the remote: it counts, and not Commit
	Began         bool   `json:"began,omitempty"`  // the agent was started
	Blamed        bool   `json:"blamed,omitempty"` // the draft tells what the user, the agent or the repository caused
	Interrupted   bool   `json:"interrupted,omitempty"`
	InterruptedBy string `json:"interruptedBy,omitempty"` // command id; empty for an INTERRUPT
	Done          []Mark `json:"marks,omitempty"`
	Draft         []byte `json:"draft,omitempty"`  // the answer as far as it is known
	Output        []byte `json:"output,omitempty"` // the answer, byte for byte

	Attributes map[string]string `json:"attributes,omitempty"` // of the answer
}

// Has reports whether a step is finished.
func (e *Entry) Has(m Mark) bool { return slices.Contains(e.Done, m) }

// Add records a step as finished. It does not write.
func (e *Entry) Add(m Mark) {
	if !e.Has(m) {
		e.Done = append(e.Done, m)
	}
}

// Forget takes marks back: what they stood for is gone.
func (e *Entry) Forget(marks ...Mark) {
	e.Done = slices.DeleteFunc(e.Done, func(m Mark) bool { return slices.Contains(marks, m) })
}

// Restart prepares a dead-lettered command for another attempt: nothing of the
// former one is done. What it committed stays in its branch.
func (e *Entry) Restart() {
	*e = Entry{
		ProjectKey: e.ProjectKey, CommandID: e.CommandID, ThreadID: e.ThreadID,
		Digest: e.Digest, Sent: e.Sent, Seen: e.Seen, Reused: e.Reused, Attempt: e.Attempt + 1,
		Wip: e.Wip,
	}
}

// Site is what a bucket holds: the last deploy, and whether it came to its end.
type Site struct {
	Bucket string `json:"bucket"`
	Commit string `json:"commit,omitempty"`
	// ProjectKey says whose command it was: two users may choose the same id.
	ProjectKey string    `json:"projectKey,omitempty"`
	CommandID  string    `json:"commandId,omitempty"`
	Sent       time.Time `json:"sent,omitzero"`
	Complete   bool      `json:"complete"`
	Deployed   time.Time `json:"deployed,omitzero"`
	// Doubt is until when an earlier worker, which was cut off while it deployed,
	// may still be about to change the bucket: only a listing tells what it holds.
	Doubt time.Time `json:"doubt,omitzero"`
	// Rules is the version of the rules by which every object of a build got
	// its headers; zero if that is not known.
	Rules int `json:"rules,omitempty"`
	// Retired are the assets of earlier builds that stay for a while, and
	// since when.
	Retired map[string]time.Time `json:"retired,omitempty"`
}

// Journal reads and writes entries and sites.
type Journal struct {
	Store Store
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Wrote is called after each successful write of an entry with its
	// newest mark; nil means nobody is told. Fault-injecting builds use it.
	Wrote func(Mark)
}

// Load returns the entry of a command; false if there is none.
func (j *Journal) Load(ctx context.Context, projectKey, commandID string) (Entry, bool, error) {
	var e Entry
	ok, err := j.get(ctx, commandKey(projectKey, commandID), &e)
	return e, ok, err
}

// Save writes an entry. It returns an error wrapping ErrFenced if the claim has
// passed to another owner.
func (j *Journal) Save(ctx context.Context, e *Entry, fence Fence) error {
	if err := j.put(ctx, commandKey(e.ProjectKey, e.CommandID), e, fence); err != nil {
		return err
	}
	if j.Wrote != nil && len(e.Done) > 0 {
		j.Wrote(e.Done[len(e.Done)-1])
	}
	return nil
}

// LoadSite returns what is known of a bucket; false if nothing is.
func (j *Journal) LoadSite(ctx context.Context, bucket string) (Site, bool, error) {
	var s Site
	ok, err := j.get(ctx, "bucket#"+bucket, &s)
	return s, ok, err
}

// SaveSite writes what a bucket holds.
func (j *Journal) SaveSite(ctx context.Context, s Site, fence Fence) error {
	return j.put(ctx, "bucket#"+s.Bucket, s, fence)
}

func (j *Journal) get(ctx context.Context, key string, into any) (bool, error) {
	r, err := j.Store.Get(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read journal: %w", err)
	}
	if err := json.Unmarshal(r.Body, into); err != nil {
		return false, fmt.Errorf("read journal record %s: %w", key, err)
	}
	return true, nil
}

func (j *Journal) put(ctx context.Context, key string, v any, fence Fence) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode journal record %s: %w", key, err)
	}
	now := time.Now
	if j.Now != nil {
		now = j.Now
	}
	if err := j.Store.Put(ctx, Record{Key: key, Body: body, Expires: now().Add(Retention)}, fence); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// commandKey is of fixed length however long a command id is, and no id can
// imitate another's key.
func commandKey(projectKey, commandID string) string {
	sum := sha256.Sum256([]byte(commandID))
	return "cmd#" + projectKey + "#" + hex.EncodeToString(sum[:])
}
