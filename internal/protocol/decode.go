package protocol

import (
	"encoding/json"
	"math"
	"strings"
	"time"
)

// The values of a message's type, which producers write in either case. A
// message without one is work.
const (
	typeWork      = "work"
	typeInterrupt = "interrupt"
	typeClaim     = "claim_request"
)

// fieldDefect holds what was found wrong with a message before it was sent on.
const fieldDefect = "_defect"

// DecodeError says that a body is no message. Its text never shows what the body
// holds.
type DecodeError struct{ Reason string }

// Error implements error.
func (e *DecodeError) Error() string { return "not a message: " + e.Reason }

// DecodeInput decodes a message of an input or interrupts queue. It returns a
// *DecodeError for what is no message; a message that breaks a rule is found by
// InputMessage.Validate.
func DecodeInput(body []byte, d Delivery) (Inbound, error) {
	w, err := parse(body)
	if err != nil {
		return Inbound{}, err
	}
	switch {
	case w.kind == typeInterrupt && !w.instructed():
		return Inbound{Interrupt: w.interrupt()}, nil
	case !w.isWork() && !w.instructed():
		return Inbound{}, &DecodeError{Reason: "its type does not belong on an input queue"}
	}
	return Inbound{Command: w.command(d)}, nil
}

// DecodeUnclaimed decodes a message of the unclaimed queue. What carries an
// instruction is a claim request with its work. The ids of a request that comes
// without an error are valid by themselves; Names.Check says whether a project
// can have them.
func DecodeUnclaimed(body []byte, d Delivery) (ClaimRequest, error) {
	w, err := parse(body)
	if err != nil {
		return ClaimRequest{}, err
	}
	m := w.command(d)
	if err := m.Pair().Validate(); err != nil {
		return ClaimRequest{}, &DecodeError{Reason: err.Error()}
	}
	c := ClaimRequest{
		ProjectID: m.ProjectID, UserID: m.UserID, SessionID: m.SessionID, ThreadID: m.ThreadID, QueueURL: w.text("queueUrl"),
	}
	switch {
	case w.instructed(), w.isWork() && w.kind != typeInterrupt:
		c.Work = m
	case w.kind != typeClaim:
		return ClaimRequest{}, &DecodeError{Reason: "its type does not belong on the unclaimed queue"}
	}
	return c, nil
}

// wire is a body's fields, not yet looked into.
type wire struct {
	kind   string // the type in lower case; empty if it is absent
	fields map[string]json.RawMessage
	defect string // the first thing found wrong with a field
}

func parse(body []byte) (*wire, error) {
	fields, err := readObject(body)
	if err != nil {
		return nil, err
	}
	w := &wire{fields: fields}
	w.flaw(w.text(fieldDefect))
	w.kind = strings.ToLower(w.text("type"))
	return w, nil
}

// isWork reports whether the type is one that an instruction may have.
func (w *wire) isWork() bool {
	return w.kind == "" || w.kind == typeWork || w.kind == typeInterrupt
}

// instructed reports whether there is an instruction, be it a damaged one.
func (w *wire) instructed() bool {
	for _, name := range []string{"instruction", "text", "content", fieldDefect} {
		if v := string(w.fields[name]); v != "" && v != "null" && v != `""` {
			return true
		}
	}
	return false
}

func (w *wire) interrupt() *Interrupt {
	return &Interrupt{
		ProjectID: w.text("projectId"), UserID: w.text("userId"),
		NewThreadID:           w.text("newThreadId"),
		InterruptingMessageID: w.text("interruptingMessageId"),
		Reason:                w.text("reason"),
	}
}

func (w *wire) command(d Delivery) *InputMessage {
	m := &InputMessage{
		ProjectID: w.text("projectId"), UserID: w.text("userId"),
		ThreadID: w.text("threadId", "chatThreadId"), SessionID: w.text("sessionId"),
		CommandID:   first(w.text("commandId", "messageId"), d.CommandID),
		Instruction: w.text("instruction", "text", "content"), RepoURL: w.text("repoUrl"),
		PreviousCommit: w.text("previousCommit"), Timestamp: w.time("timestamp"),
		Interrupts: w.kind == typeInterrupt, Delivery: d,
	}
	if m.CommandID == "" && d.MessageID != "" {
		m.CommandID = "sqs-" + d.MessageID
	}
	if !w.isWork() && w.kind != typeClaim {
		w.flaw("type is not one that is known")
	}
	m.Defect = w.defect
	return m
}

// flaw notes what is wrong with a field; the first one counts.
func (w *wire) flaw(text string) {
	w.defect = first(w.defect, text)
}

// text returns the first of these fields that is not empty.
func (w *wire) text(names ...string) string {
	for _, name := range names {
		raw := w.fields[name]
		if raw == nil {
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			w.flaw(name + " is not a string")
			continue
		}
		if !wellFormed(raw) {
			w.flaw(name + " is not valid UTF-8")
		}
		if s != "" {
			return s
		}
	}
	return ""
}

const (
	// secondsUntil tells seconds from milliseconds: as milliseconds it is in
	// the year 1973, as seconds in the year 5138.
	secondsUntil = 1e11
	maxMillis    = 253_402_300_799_999 // the end of the year 9999
)

func (w *wire) time(name string) time.Time {
	raw := w.fields[name]
	if raw == nil || string(raw) == "null" {
		return time.Time{}
	}
	ms := math.NaN()
	var s string
	switch {
	case json.Unmarshal(raw, &ms) == nil:
		if ms < secondsUntil {
			ms *= 1000
		}
	case json.Unmarshal(raw, &s) == nil:
		if at, err := time.Parse(time.RFC3339, s); err == nil {
			ms = float64(at.UnixMilli())
		}
	}
	if math.IsNaN(ms) {
		w.flaw(name + " is neither a number nor RFC 3339")
		return time.Time{}
	}
	if ms < 0 || ms > maxMillis {
		w.flaw(name + " is out of range")
		return time.Time{}
	}
	return time.UnixMilli(int64(math.Round(ms))).UTC()
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
