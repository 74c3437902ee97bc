package gateway

import (
	"bytes"
	"context"
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

	mu       sync.Mutex
	used     int64
	reserved int64         // what calls under way may come to
	freed    chan struct{} // closed when less is reserved; nil if nobody waits
	refused  bool
}

// reserve lets a call begin that may come to n tokens; false if all are used up, or
// ctx has ended. What is used and what is reserved stays below the most until the
// last call begins, so a job uses more by that one call at most. A call that has
// to know what those under way came to waits for them.
func (a *account) reserve(ctx context.Context, n int64) bool {
	for {
		wait, ok := a.tryReserve(n)
		if wait == nil {
			return ok
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

// tryReserve returns what to wait for, if it cannot be said yet.
func (a *account) tryReserve(n int64) (wait <-chan struct{}, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.most == 0:
		return nil, true
	case a.used >= a.most:
		a.refused = true
		return nil, false
	case a.used+a.reserved < a.most:
		a.reserved += a.bound(n)
		return nil, true
	}
	if a.freed == nil {
		a.freed = make(chan struct{})
	}
	return a.freed, false
}

// release gives back what was reserved, when the call has ended.
func (a *account) release(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most == 0 {
		return
	}
	a.reserved -= a.bound(n)
	if a.freed != nil {
		close(a.freed)
		a.freed = nil
	}
}

// bound keeps sums small: more than all is all.
func (a *account) bound(n int64) int64 {
	if n < 0 || n > a.most {
		return a.most
	}
	return n
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
