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

// A child of the CLI can write to the CLI's output, so what it says is bounded.
const (
	maxLine    = 32 << 20 // bytes; what a longer one says is not heard, and no model could be told
	maxList    = 1000     // elements of a list, and tools at work
	maxAnswers = 10_000   // of the model, that are counted
	maxName    = 200      // bytes of an id or a name
	maxUsage   = 64 << 10 // bytes of what models have cost
	maxText    = 1 << 20  // bytes of the last word
)

// few are the first elements of a list. Another value than a list has none.
type few[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (f *few[T]) UnmarshalJSON(raw []byte) error {
	*f = nil
	if raw[0] != '[' {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() && len(*f) < maxList {
		var v T
		if err := lenient(d.Decode(&v)); err != nil {
			return err
		}
		*f = append(*f, v)
	}
	return nil
}

// costs are what models have cost, by name.
type costs map[string]struct {
	CostUSD float64 `json:"costUSD"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *costs) UnmarshalJSON(raw []byte) error {
	type plain costs // without this method
	if len(raw) > maxUsage {
		return nil
	}
	return lenient(json.Unmarshal(raw, (*plain)(c)))
}

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
	IsError        bool        `json:"is_error"`
	Text           string      `json:"result"`
	Errors         few[string] `json:"errors"`
	StopReason     string      `json:"stop_reason"`
	TerminalReason string      `json:"terminal_reason"`
	APIErrorStatus int         `json:"api_error_status"` // 0 if the service did not answer
	Denials        few[struct {
		Tool  string    `json:"tool_name"`
		Input toolInput `json:"tool_input"`
	}] `json:"permission_denials"`
	// Usage is this run's, by model; total_cost_usd is the conversation's.
	Usage costs `json:"model_usage_since_last_result"`
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
		} else {
			s.last.Text = strings.Clone(clip(s.last.Text, maxText))
		}
	}
	s.heard(s.streaming != "" || len(s.open) == 0)
}

// decode is json.Unmarshal, except that a field of another type than ours is
// left empty: the CLI's next version may have one.
func decode(raw []byte, into any) error { return lenient(json.Unmarshal(raw, into)) }

func lenient(err error) error {
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
	// The CLI says it before it starts anything.
	if subtype == "init" && s.model == "" && decode(raw, &init) == nil {
		s.model = name(init.Model)
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
		s.streaming = name(l.Event.Message.ID)
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
		s.word = name(l.Error)
		return
	}
	s.reached = true
	id := name(l.Message.ID)
	if len(s.answers) < maxAnswers && !slices.Contains(s.answers, id) {
		s.answers = append(s.answers, id)
	}
	if id != s.streaming {
		s.streaming = "" // it came in one piece, after its stream broke off
	}
	for _, b := range l.Message.blocks() {
		if b.Type != "tool_use" {
			continue
		}
		if len(s.open) < maxList {
			s.open = append(s.open, name(b.ID))
		}
		if s.progress != nil {
			s.progress(b.event(s.site))
		}
	}
}

// name cuts an id or a name, and lets go of the rest of its line.
func name(s string) string { return strings.Clone(clip(s, maxName)) }

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
			s.open = slices.DeleteFunc(s.open, func(id string) bool { return id == name(b.ToolUseID) })
		}
	}
}

// blocks returns a message's content; none if it is a plain text.
func (m message) blocks() []block {
	var all few[block]
	if decode(m.Content, &all) != nil {
		return nil
	}
	return all
}

// event is what is told of the use of a tool.
func (b block) event(site string) Event {
	e := Event{Tool: clean(name(b.Name)), Detail: b.Input.describe(site)}
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
		r.CostUSD += max(0, u.CostUSD)
	}
	for _, d := range s.last.Denials {
		r.Denials = append(r.Denials, strings.TrimSpace(fmt.Sprintf("%s %s", clean(name(d.Tool)), d.Input.describe(s.site))))
	}
	if s.succeeded() {
		r.Summary = strings.TrimSpace(clean(s.last.Text))
	}
	return r
}
