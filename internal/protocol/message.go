// Package protocol is the messages of the platform: what comes in by the queues,
// what goes out, and the names of queues, buckets and branches that follow from
// a message's ids.
//
// Nothing that this package returns without an error can leave a queue name, a
// path or a ref it is put into.
package protocol

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// Dir is the name of the pair's directory, for example amelia-scott. Two pairs
// can share one; the workspace keeps them apart.
func (p Pair) Dir() string { return p.ProjectID + "-" + p.UserID }

// Delivery is how a message reached us.
type Delivery struct {
	MessageID string    // the queue's own id
	Sent      time.Time // when the queue first took it
	Receives  int       // 1 at the first
	Resent    bool      // a worker put it back into the queue
	CommandID string    // given with the message where its body has none
}

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
	Timestamp      time.Time // the sender's; zero if absent
	// Interrupts is set if the message wants what runs to stop first,
	// whatever its thread.
	Interrupts bool

	Delivery Delivery
}

// Pair returns the project and user.
func (m InputMessage) Pair() Pair { return Pair{ProjectID: m.ProjectID, UserID: m.UserID} }

// Digest identifies the content of a command: its thread, instruction and
// repository.
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

// Encode returns the message as the platform's producers write it.
func (m InputMessage) Encode() ([]byte, error) {
	w := inputJSON{
		SessionID: m.SessionID, ThreadID: m.ThreadID, ProjectID: m.ProjectID, UserID: m.UserID,
		Instruction: m.Instruction, RepoURL: m.RepoURL, CommandID: m.CommandID, PreviousCommit: m.PreviousCommit,
	}
	if !m.Timestamp.IsZero() {
		w.Timestamp = json.RawMessage(fmt.Sprint(m.Timestamp.UnixMilli()))
	}
	if m.Interrupts {
		w.Type = "interrupt"
	}
	return marshal(w)
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
// interrupt.
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

// Encode returns the request as the platform's producers write it, without work.
func (c ClaimRequest) Encode() ([]byte, error) {
	return marshal(inputJSON{
		Type: "claim_request", ProjectID: c.ProjectID, UserID: c.UserID,
		SessionID: c.SessionID, ThreadID: c.ThreadID, QueueURL: c.QueueURL,
	})
}

// Answer is an OutputMessage as it is published: its bytes and its attributes.
// The zero value publishes nothing.
type Answer struct {
	Body       []byte
	Attributes map[string]string
}
