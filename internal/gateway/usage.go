package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"sync"
)

// maxWhole bounds an answer in one piece whose tokens are counted.
const maxWhole = 16 << 20

// account is what a job may use and has used, in tokens: those of the input, read
// from and written to the cache too, and those of the output.
type account struct {
	most int64 // zero means any number

	mu      sync.Mutex
	used    int64
	refused bool
}

// open reports whether another call may begin. One that began is finished.
func (a *account) open() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most == 0 || a.used < a.most {
		return true
	}
	a.refused = true
	return false
}

func (a *account) add(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used += n
}

func (a *account) state() (used int64, refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used, a.refused
}

// count returns an answer's body that adds to the account while it is read.
func (a *account) count(body io.ReadCloser, contentType string) io.ReadCloser {
	m := &meter{account: a}
	c := &counted{body: body, end: m.end}
	switch kind, _, _ := mime.ParseMediaType(contentType); kind {
	case "text/event-stream":
		c.feed = (&events{each: m.event}).take
	case "application/vnd.amazon.eventstream":
		c.feed = (&frames{each: m.chunk}).take
	default:
		var whole []byte
		c.feed = func(p []byte) { whole = append(whole, p[:min(len(p), maxWhole-len(whole))]...) }
		c.end = func() { m.whole(whole) }
	}
	return c
}

// counted feeds a meter with what is read through it.
type counted struct {
	body io.ReadCloser
	feed func([]byte)
	end  func() // nil once it was called
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.feed(p[:n])
	if err != nil {
		c.finish()
	}
	return n, err
}

// Close implements io.Closer.
func (c *counted) Close() error {
	c.finish()
	return c.body.Close()
}

func (c *counted) finish() {
	if c.end != nil {
		c.end()
		c.end = nil
	}
}

// usage is what an answer says it cost.
type usage struct {
	Input      int64 `json:"input_tokens"`
	CacheWrite int64 `json:"cache_creation_input_tokens"`
	CacheRead  int64 `json:"cache_read_input_tokens"`
	Output     int64 `json:"output_tokens"`
}

// most bounds a number that is believed.
const mostTokens = 1 << 40

// merge takes the greater numbers: a stream repeats its usage as it grows.
func (u *usage) merge(v usage) {
	bound := func(old, n int64) int64 { return max(old, min(n, mostTokens)) }
	u.Input, u.CacheWrite = bound(u.Input, v.Input), bound(u.CacheWrite, v.CacheWrite)
	u.CacheRead, u.Output = bound(u.CacheRead, v.CacheRead), bound(u.Output, v.Output)
}

func (u usage) total() int64 { return u.Input + u.CacheWrite + u.CacheRead + u.Output }

// meter counts one answer. One goroutine at a time uses it.
type meter struct {
	account *account
	usage   usage
	added   int64
	deltas  int64 // parts of the answer that came
	ended   bool  // the service said what it cost in the end
}

func (m *meter) settle() {
	if n := m.usage.total(); n > m.added {
		m.account.add(n - m.added)
		m.added = n
	}
}

// event takes one event of a stream.
func (m *meter) event(data []byte) {
	var e struct {
		Type    string `json:"type"`
		Usage   usage  `json:"usage"`
		Message struct {
			Usage usage `json:"usage"`
		} `json:"message"`
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	switch e.Type {
	case "content_block_delta":
		m.deltas++
		return
	case "message_delta":
		m.ended = true
	}
	m.usage.merge(e.Usage)
	m.usage.merge(e.Message.Usage)
	m.settle()
}

// chunk takes one frame's payload of AWS's event stream, which wraps an event.
func (m *meter) chunk(payload []byte) {
	var c struct {
		Bytes []byte `json:"bytes"`
	}
	if json.Unmarshal(payload, &c) == nil {
		m.event(c.Bytes)
	}
}

// end settles a stream that was cut before it said what it cost: each part that
// came is a token at least, or hanging up in time would make answers free.
func (m *meter) end() {
	if !m.ended {
		m.usage.merge(usage{Output: m.deltas})
		m.settle()
	}
}

// whole takes an answer in one piece.
func (m *meter) whole(data []byte) {
	var answer struct {
		Usage usage `json:"usage"`
	}
	if json.Unmarshal(bytes.TrimSpace(data), &answer) == nil {
		m.usage.merge(answer.Usage)
		m.settle()
	}
}
