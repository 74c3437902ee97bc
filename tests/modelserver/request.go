package modelserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Request is a request as it came in.
type Request struct {
	Path   string
	Header http.Header
	Body   []byte
	At     time.Time // when its header was here

	Bedrock  bool // it came by Bedrock's protocol
	Model    string
	Stream   bool
	Messages []Message

	// Script is what the chosen script matched, empty if none did, and Turn the
	// number of the model's answers since the instruction.
	Script string
	Turn   int
}

// Message is one message of a conversation.
type Message struct {
	Role   string
	Blocks []Block
}

// Block is a part of a message: a text, a tool's use, or its result. Text is
// also what a tool gave back.
type Block struct {
	Type string
	Text string
	Tool string // name of the tool used
}

// Says reports whether a text of the conversation, instruction, answer or tool
// result, contains sub.
func (r Request) Says(sub string) bool {
	for _, m := range r.Messages {
		for _, b := range m.Blocks {
			if strings.Contains(b.Text, sub) {
				return true
			}
		}
	}
	return false
}

// Last is the newest user message's text.
func (r Request) Last() string {
	for _, m := range slices.Backward(r.Messages) {
		if m.Role != "user" {
			continue
		}
		var all []string
		for _, b := range m.Blocks {
			all = append(all, b.Text)
		}
		return strings.Join(all, "\n")
	}
	return ""
}

func parseRequest(r *http.Request, body []byte, at time.Time) (Request, error) {
	req := Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: body, At: at, Bedrock: r.PathValue("model") != ""}
	var raw struct {
		Model    string `json:"model"`
		Stream   bool   `json:"stream"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return req, err
	}
	req.Model, req.Stream = raw.Model, raw.Stream
	if req.Bedrock {
		req.Model, req.Stream = r.PathValue("model"), strings.HasSuffix(r.URL.Path, "/invoke-with-response-stream")
	}
	for _, m := range raw.Messages {
		req.Messages = append(req.Messages, Message{Role: m.Role, Blocks: parseBlocks(m.Content)})
	}
	return req, nil
}

// parseBlocks reads a content, which is a string or a list of blocks.
func parseBlocks(content json.RawMessage) []Block {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return []Block{{Type: "text", Text: text}}
	}
	var raw []struct {
		Type    string          `json:"type"`
		Text    string          `json:"text"`
		Name    string          `json:"name"`
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(content, &raw) != nil {
		return nil
	}
	blocks := make([]Block, 0, len(raw))
	for _, b := range raw {
		block := Block{Type: b.Type, Text: b.Text, Tool: b.Name}
		for _, inner := range parseBlocks(b.Content) {
			block.Text += inner.Text
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// choose finds the script for the newest instruction, and how many answers the
// conversation holds since. Where several match, the one found last in the text
// wins: an instruction stands behind what it quotes.
func choose(scripts []*script, messages []Message) (chosen *script, answers int) {
	for _, m := range slices.Backward(messages) {
		if m.Role == "assistant" {
			answers++
		}
		if m.Role != "user" {
			continue
		}
		for _, b := range slices.Backward(m.Blocks) {
			if b.Type != "text" {
				continue
			}
			if s := lastMatch(scripts, b.Text); s != nil {
				return s, answers
			}
		}
	}
	return nil, answers
}

func lastMatch(scripts []*script, text string) *script {
	var found *script
	end := -1
	for _, s := range scripts {
		i := strings.LastIndex(text, s.match)
		if i < 0 {
			continue
		}
		if e := i + len(s.match); e > end || e == end && len(s.match) > len(found.match) {
			found, end = s, e
		}
	}
	return found
}
