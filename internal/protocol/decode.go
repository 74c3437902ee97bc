package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// DecodeError says that a body is no message. Its text never shows the body.
type DecodeError struct{ Reason string }

// Error implements error.
func (e *DecodeError) Error() string { return "not a message: " + e.Reason }

// inputJSON is the union of what producers send.
type inputJSON struct {
	Type           string          `json:"type,omitempty"`
	SessionID      string          `json:"sessionId,omitempty"`
	ThreadID       string          `json:"threadId,omitempty"`
	ChatThreadID   string          `json:"chatThreadId,omitempty"`
	ProjectID      string          `json:"projectId,omitempty"`
	UserID         string          `json:"userId,omitempty"`
	Instruction    string          `json:"instruction,omitempty"`
	Text           string          `json:"text,omitempty"`
	Content        string          `json:"content,omitempty"`
	RepoURL        string          `json:"repoUrl,omitempty"`
	CommandID      string          `json:"commandId,omitempty"`
	MessageID      string          `json:"messageId,omitempty"`
	Timestamp      json.RawMessage `json:"timestamp,omitempty"`
	PreviousCommit string          `json:"previousCommit,omitempty"`
	QueueURL       string          `json:"queueUrl,omitempty"`

	NewThreadID           string `json:"newThreadId,omitempty"`
	InterruptingMessageID string `json:"interruptingMessageId,omitempty"`
	Reason                string `json:"reason,omitempty"`
}

// DecodeInput decodes a message of an input or interrupts queue. It returns a
// *DecodeError for what is no message; a message that breaks a rule is found by
// InputMessage.Validate.
func DecodeInput(body []byte, d Delivery) (Inbound, error) {
	w, err := parse(body)
	if err != nil {
		return Inbound{}, err
	}
	switch w.Type {
	case "", "work":
	case "interrupt":
		if w.Instruction == "" {
			return Inbound{Interrupt: w.interrupt()}, nil
		}
	default:
		return Inbound{}, &DecodeError{Reason: "unknown type on an input queue"}
	}
	m, err := w.command(d)
	if err != nil {
		return Inbound{}, err
	}
	return Inbound{Command: m}, nil
}

// DecodeUnclaimed decodes a message of the unclaimed queue.
func DecodeUnclaimed(body []byte, d Delivery) (ClaimRequest, error) {
	w, err := parse(body)
	if err != nil {
		return ClaimRequest{}, err
	}
	c := ClaimRequest{
		ProjectID: w.ProjectID, UserID: w.UserID, SessionID: w.SessionID, ThreadID: w.ThreadID, QueueURL: w.QueueURL,
	}
	if err := c.Pair().Validate(); err != nil {
		return ClaimRequest{}, &DecodeError{Reason: err.Error()}
	}
	switch {
	case w.Type == "claim_request":
		return c, nil
	case w.Type == "interrupt" && w.Instruction == "", w.Type != "" && w.Type != "work" && w.Type != "interrupt":
		return ClaimRequest{}, &DecodeError{Reason: "unknown type on the unclaimed queue"}
	}
	c.Work, err = w.command(d)
	return c, err
}

// parse reads exactly one JSON object. encoding/json would silently replace
// invalid UTF-8 and lone surrogates; neither may change an instruction.
func parse(body []byte) (*inputJSON, error) {
	if !utf8.Valid(body) {
		return nil, &DecodeError{Reason: "it is not valid UTF-8"}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	var w inputJSON
	var wrongType *json.UnmarshalTypeError
	switch err := dec.Decode(&w); {
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			return nil, &DecodeError{Reason: "it is not a JSON object"}
		}
		return nil, &DecodeError{Reason: fmt.Sprintf("field %q is a JSON %s", field, wrongType.Value)}
	case err != nil:
		return nil, &DecodeError{Reason: "it is not JSON"}
	}
	if dec.More() || bytes.HasPrefix(bytes.TrimSpace(body), []byte("null")) {
		return nil, &DecodeError{Reason: "it is not one JSON object"}
	}
	w.Type = strings.ToLower(w.Type)
	w.ThreadID = first(w.ThreadID, w.ChatThreadID)
	w.CommandID = first(w.CommandID, w.MessageID)
	w.Instruction = first(w.Instruction, w.Text, w.Content)
	return &w, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func (w *inputJSON) interrupt() *Interrupt {
	return &Interrupt{
		ProjectID: w.ProjectID, UserID: w.UserID,
		NewThreadID: w.NewThreadID, InterruptingMessageID: w.InterruptingMessageID, Reason: w.Reason,
	}
}

func (w *inputJSON) command(d Delivery) (*InputMessage, error) {
	at, err := timestamp(w.Timestamp)
	if err != nil {
		return nil, err
	}
	m := &InputMessage{
		ProjectID: w.ProjectID, UserID: w.UserID, ThreadID: w.ThreadID, SessionID: w.SessionID,
		CommandID: first(w.CommandID, d.CommandID), Instruction: w.Instruction, RepoURL: w.RepoURL,
		PreviousCommit: w.PreviousCommit, Timestamp: at, Interrupts: w.Type == "interrupt", Delivery: d,
	}
	if m.CommandID == "" && d.MessageID != "" {
		m.CommandID = "sqs-" + d.MessageID
	}
	return m, nil
}

// secondsUntil tells seconds from milliseconds: as milliseconds it is in 1973,
// as seconds in the year 5138.
const secondsUntil = 1e11

func timestamp(raw json.RawMessage) (time.Time, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return time.Time{}, nil
	}
	var n float64
	if json.Unmarshal(raw, &n) == nil {
		if n < 0 || n > 1e15 {
			return time.Time{}, &DecodeError{Reason: "timestamp is out of range"}
		}
		if n < secondsUntil {
			n *= 1000
		}
		return time.UnixMilli(int64(n)).UTC(), nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if at, err := time.Parse(time.RFC3339, s); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, &DecodeError{Reason: "timestamp is neither a number nor RFC 3339"}
}

// marshal is json.Marshal without the escapes that HTML would need.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
