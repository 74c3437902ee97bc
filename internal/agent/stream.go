package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxLine bounds a line of the stream; what a longer one says is not heard.
const maxLine = 64 << 20

// lines splits what is written to it. It is no bufio.Scanner because lines may
// have megabytes and none may stop the reading.
type lines struct {
	each func(line []byte) // the line is valid during the call

	buffer  []byte
	tooLong bool
}

// Write implements io.Writer; it never fails.
func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.add(p)
			return n, nil
		}
		l.add(p[:i])
		if !l.tooLong {
			l.each(l.buffer)
		}
		l.buffer, l.tooLong = l.buffer[:0], false
		p = p[i+1:]
	}
}

func (l *lines) add(p []byte) {
	if l.tooLong || len(l.buffer)+len(p) > maxLine {
		l.buffer, l.tooLong = nil, true
		return
	}
	l.buffer = append(l.buffer, p...)
}

// kind is what a line of the CLI's stream-json output is about.
type kind struct {
	Type    string `json:"type"`
	Subtype string `json:"subtype"`
}

// retry is a line that says the CLI waits before it asks the service again.
type retry struct {
	DelayMs float64 `json:"retry_delay_ms"`
	Status  int     `json:"error_status"` // 0 if the service did not answer
}

// message is the model's, or the answer of tools to it.
type message struct {
	ID      string          `json:"id"`
	Model   string          `json:"model"`
	Content json.RawMessage `json:"content"`
}

// block is a part of a message's content.
type block struct {
	Type      string    `json:"type"`
	ID        string    `json:"id"`
	ToolUseID string    `json:"tool_use_id"`
	Name      string    `json:"name"`
	Input     toolInput `json:"input"`
}

// toolInput is what a tool is to work on.
type toolInput struct {
	FilePath string `json:"file_path"`
	Command  string `json:"command"`
	Pattern  string `json:"pattern"`
}

// result is the last line of a run.
type result struct {
	IsError        bool     `json:"is_error"`
	Text           string   `json:"result"`
	Errors         []string `json:"errors"`
	StopReason     string   `json:"stop_reason"`
	TerminalReason string   `json:"terminal_reason"`
	APIErrorStatus int      `json:"api_error_status"` // 0 if the service did not answer
	Denials        []struct {
		Tool  string    `json:"tool_name"`
		Input toolInput `json:"tool_input"`
	} `json:"permission_denials"`
	// Usage is this run's, by model; total_cost_usd is the conversation's.
	Usage map[string]struct {
		CostUSD float64 `json:"costUSD"`
	} `json:"model_usage_since_last_result"`
}

// synthetic is the model of messages that the CLI makes up itself.
const synthetic = "<synthetic>"

// stream follows a run by its output, in one goroutine. Its fields may be read
// when the run is over.
type stream struct {
	site     string
	progress func(Event) // nil means nobody listens
	// heard is called at every sign of life of the model or a tool, with
	// whether an answer of the model is awaited from then on.
	heard func(awaiting bool)
	// retrying is called when the CLI waits before it asks again, with the
	// status of the answer it got, 0 for none.
	retrying func(delay time.Duration, status int)

	model     string
	reached   bool     // the model began to answer
	answers   []string // ids of the model's messages
	word      string   // what the CLI called its last error
	last      *result  // the newest result
	lastKind  string   // its subtype
	open      []string // ids of tools at work
	streaming string   // id of the message that is coming in; empty if none
}

// take is given each line.
func (s *stream) take(raw []byte) {
	var k kind
	if decode(raw, &k) != nil {
		return // nothing the CLI says ends up here, but what a child of its writes may
	}
	switch k.Type {
	case "system":
		if k.Subtype == "api_retry" {
			s.retry(raw)
			return // waiting is silence
		}
		s.system(raw, k.Subtype)
	case "stream_event":
		if !s.event(raw) {
			return
		}
	case "assistant":
		s.assistant(raw)
	case "user":
		s.results(raw)
	case "result":
		s.last, s.lastKind = &result{}, k.Subtype
		if decode(raw, s.last) != nil {
			s.last = nil
		}
	}
	s.heard(s.streaming != "" || len(s.open) == 0)
}

// decode is json.Unmarshal, except that a field of another type than ours is
// left empty: the CLI's next version may have one.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	if _, mistyped := errors.AsType[*json.UnmarshalTypeError](err); mistyped {
		return nil
	}
	return err
}

func (s *stream) retry(raw []byte) {
	var r retry
	if decode(raw, &r) == nil {
		s.retrying(time.Duration(r.DelayMs)*time.Millisecond, r.Status)
	}
}

func (s *stream) system(raw []byte, subtype string) {
	var init struct {
		Model string `json:"model"`
	}
	if subtype == "init" && decode(raw, &init) == nil {
		s.model = init.Model
	}
}

// event takes what the model's service sends while it answers; false if it was
// no sign of life.
func (s *stream) event(raw []byte) bool {
	var l struct {
		Event struct {
			Type    string  `json:"type"`
			Message message `json:"message"`
		} `json:"event"`
	}
	if decode(raw, &l) != nil || l.Event.Type == "ping" {
		return false
	}
	switch l.Event.Type {
	case "message_start":
		s.streaming = l.Event.Message.ID
		s.reached = true
	case "message_stop":
		s.streaming = ""
	}
	return true
}

func (s *stream) assistant(raw []byte) {
	var l struct {
		Message message `json:"message"`
		Error   string  `json:"error"`
	}
	if decode(raw, &l) != nil {
		return
	}
	if l.Message.Model == synthetic {
		s.word = l.Error
		return
	}
	s.reached = true
	if !slices.Contains(s.answers, l.Message.ID) {
		s.answers = append(s.answers, l.Message.ID)
	}
	if l.Message.ID != s.streaming {
		s.streaming = "" // it came in one piece, after its stream broke off
	}
	for _, b := range l.Message.blocks() {
		if b.Type != "tool_use" {
			continue
		}
		s.open = append(s.open, b.ID)
		if s.progress != nil {
			s.progress(b.event(s.site))
		}
	}
}

// results takes the answers of tools.
func (s *stream) results(raw []byte) {
	var l struct {
		Message message `json:"message"`
	}
	if decode(raw, &l) != nil {
		return
	}
	for _, b := range l.Message.blocks() {
		if b.Type == "tool_result" {
			s.open = slices.DeleteFunc(s.open, func(id string) bool { return id == b.ToolUseID })
		}
	}
}

// blocks returns a message's content; none if it is a plain text.
func (m message) blocks() []block {
	var all []block
	if decode(m.Content, &all) != nil {
		return nil
	}
	return all
}

// event is what is told of the use of a tool.
func (b block) event(site string) Event {
	e := Event{Tool: clean(b.Name), Detail: b.Input.describe(site)}
	if (b.Name == "Edit" || b.Name == "Write") && filepath.IsLocal(e.Detail) {
		e.File = e.Detail
	}
	return e
}

// describe says in a line what a tool is to work on.
func (in toolInput) describe(site string) string {
	switch {
	case in.FilePath != "":
		return clip(clean(strings.TrimPrefix(in.FilePath, site+"/")), 200)
	case in.Command != "":
		first, _, _ := strings.Cut(in.Command, "\n")
		return clip(clean(first), 200)
	}
	return clip(clean(in.Pattern), 200)
}

// succeeded reports whether the newest result is a success. The exit code does
// not tell, and neither does the subtype alone.
func (s *stream) succeeded() bool {
	return s.last != nil && s.lastKind == "success" && !s.last.IsError
}

// result is what is known of the run.
func (s *stream) result() Result {
	r := Result{Model: s.model, Turns: len(s.answers)}
	if s.last == nil {
		return r
	}
	for _, u := range s.last.Usage {
		r.CostUSD += u.CostUSD
	}
	for _, d := range s.last.Denials {
		r.Denials = append(r.Denials, strings.TrimSpace(fmt.Sprintf("%s %s", clean(d.Tool), d.Input.describe(s.site))))
	}
	if s.succeeded() {
		r.Summary = strings.TrimSpace(clean(s.last.Text))
	}
	return r
}
