// Package protocol is the messages of the platform: what comes in by the queues,
// what goes out, and the names of queues, buckets and branches that follow from
// a message's ids.
//
// Bodies are foreign. DecodeInput and DecodeUnclaimed tell apart what is no
// message at all (a *DecodeError: there is nobody to answer) from a message that
// breaks a rule (InputMessage.Validate: its sender is answered). What has passed
// Validate cannot break out of a queue name, a path, a ref or a URL it is put
// into.
package protocol

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Pair is a project and a user: what a container claims.
type Pair struct {
	ProjectID string
	UserID    string
}

// Key is the claim's key, for example amelia#scott. No id holds a #, so no two
// pairs share one.
func (p Pair) Key() string { return p.ProjectID + "#" + p.UserID }

// ParseKey is the inverse of Pair.Key. It returns an *InvalidError for what is no
// pair's key.
func ParseKey(key string) (Pair, error) {
	project, user, ok := strings.Cut(key, "#")
	p := Pair{ProjectID: project, UserID: user}
	if !ok {
		return Pair{}, invalid("a claim's key is projectId#userId")
	}
	return p, p.Validate()
}

// Dir is the name of the pair's directory, for example amelia-scott. Two pairs
// can share one; the workspace keeps them apart.
func (p Pair) Dir() string { return p.ProjectID + "-" + p.UserID }

// InputMessage is a command: a user's instruction and what it is for.
type InputMessage struct {
	ProjectID   string
	UserID      string
	ThreadID    string // a conversation; it has a branch of its own
	SessionID   string // echoed
	CommandID   string // unique per command; derived from the delivery if absent
	Instruction string // 1 byte to 200 KB of UTF-8
	RepoURL     string // may be empty when the workspace exists
	// PreviousCommit is what the sender thinks the thread's head is. It is
	// logged, never reset to.
	PreviousCommit string
	Timestamp      time.Time // the sender's, in UTC and whole milliseconds; zero if absent
	// Interrupts is set if the message wants what runs to stop first,
	// whatever its thread.
	Interrupts bool
	// Defect says what the body had where one of these fields should be. The
	// field is then empty or damaged, and Validate refuses the message.
	Defect string

	Delivery Delivery `json:"-"`
}

// Pair returns the project and user.
func (m InputMessage) Pair() Pair { return Pair{ProjectID: m.ProjectID, UserID: m.UserID} }

// Digest identifies the content of a command: its thread, instruction and
// repository. It is a SHA-256 in hexadecimal.
func (m InputMessage) Digest() string {
	h := sha256.New()
	for _, s := range []string{m.ThreadID, m.Instruction, m.RepoURL} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// inputJSON is how the platform's producers write what comes in.
type inputJSON struct {
	Type           string          `json:"type,omitempty"`
	SessionID      string          `json:"sessionId,omitempty"`
	ThreadID       string          `json:"threadId,omitempty"`
	ProjectID      string          `json:"projectId,omitempty"`
	UserID         string          `json:"userId,omitempty"`
	Instruction    string          `json:"instruction,omitempty"`
	RepoURL        string          `json:"repoUrl,omitempty"`
	CommandID      string          `json:"commandId,omitempty"`
	Timestamp      json.RawMessage `json:"timestamp,omitempty"`
	PreviousCommit string          `json:"previousCommit,omitempty"`
	QueueURL       string          `json:"queueUrl,omitempty"`
	// Defect is ours: no producer writes it.
	Defect string `json:"_defect,omitempty"`
}

// Encode returns the message as the platform's producers write it, so that it
// can be sent on: decoded again it has the same fields, its derived commandId
// among them, and what was refused is refused for the same reason.
func (m InputMessage) Encode() ([]byte, error) {
	w := inputJSON{
		SessionID: m.SessionID, ThreadID: m.ThreadID, ProjectID: m.ProjectID, UserID: m.UserID,
		Instruction: m.Instruction, RepoURL: m.RepoURL, CommandID: m.CommandID, PreviousCommit: m.PreviousCommit,
		Timestamp: encodeTime(m.Timestamp), Defect: m.Defect,
	}
	if m.Interrupts {
		w.Type = typeInterrupt
	}
	return marshal(w)
}

// encodeTime writes milliseconds, or seconds where a reader would take the
// milliseconds for seconds.
func encodeTime(t time.Time) json.RawMessage {
	ms := t.UnixMilli()
	switch {
	case t.IsZero():
		return nil
	case ms < secondsUntil:
		return json.RawMessage(strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64))
	}
	return json.RawMessage(strconv.FormatInt(ms, 10))
}

// Interrupt wants whatever runs to stop. It gets no answer.
type Interrupt struct {
	ProjectID             string // where it came with ids
	UserID                string
	NewThreadID           string
	InterruptingMessageID string
	Reason                string
}

// Inbound is one message of an input or interrupts queue: a command or an
// interrupt. Exactly one of the two is set.
type Inbound struct {
	Command   *InputMessage
	Interrupt *Interrupt
}

// ClaimRequest asks that somebody take a project. The work waits in the input
// queue, or comes with the request.
type ClaimRequest struct {
	ProjectID string
	UserID    string
	SessionID string
	ThreadID  string
	QueueURL  string
	Work      *InputMessage // nil if it waits in the input queue
}

// Pair returns the project and user.
func (c ClaimRequest) Pair() Pair { return Pair{ProjectID: c.ProjectID, UserID: c.UserID} }

// Encode returns the request as the platform's producers write it, without its
// work.
func (c ClaimRequest) Encode() ([]byte, error) {
	return marshal(inputJSON{
		Type: typeClaim, ProjectID: c.ProjectID, UserID: c.UserID,
		SessionID: c.SessionID, ThreadID: c.ThreadID, QueueURL: c.QueueURL,
	})
}

// Answer is an OutputMessage as it is published: its bytes and its attributes.
// The zero value publishes nothing.
type Answer struct {
	Body       []byte
	Attributes map[string]string
}
