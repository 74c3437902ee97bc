package modelserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// pingEvery is how often Pings are sent.
const pingEvery = 50 * time.Millisecond

// object is a JSON object.
type object map[string]any

// whole is the answer in one piece.
func whole(req Request, t Turn) object {
	m := head(req)
	m["content"] = content(req, t)
	m["stop_reason"] = t.stopReason()
	m["usage"] = usage(t.outputTokens())
	return m
}

// head is a message before it has any content.
func head(req Request) object {
	return object{
		"id": fmt.Sprintf("msg_%04d_%d", len(req.Messages), req.Turn), "type": "message", "role": "assistant",
		"model": req.Model, "content": []object{}, "stop_reason": nil, "stop_sequence": nil, "usage": usage(1),
	}
}

func usage(output int) object {
	return object{
		"input_tokens": 100, "output_tokens": output,
		"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
	}
}

// content is the blocks of an answer. The id of a tool's use is unique in its
// conversation.
func content(req Request, t Turn) []object {
	blocks := []object{}
	if t.Text != "" {
		blocks = append(blocks, object{"type": "text", "text": t.Text})
	}
	for i, tool := range t.Tools {
		in := tool.Input
		if in == nil {
			in = Input{}
		}
		blocks = append(blocks, object{
			"type": "tool_use", "id": fmt.Sprintf("toolu_%04d_%d", len(req.Messages), i),
			"name": tool.Name, "input": in,
		})
	}
	return blocks
}

func (t Turn) stopReason() string {
	switch {
	case t.StopReason != "":
		return t.StopReason
	case len(t.Tools) > 0:
		return "tool_use"
	}
	return "end_turn"
}

func (t Turn) outputTokens() int {
	if t.OutputTokens == 0 {
		return 20
	}
	return t.OutputTokens
}

// events writes server-sent events, or Bedrock's frames with the same events.
type events struct {
	w       http.ResponseWriter
	bedrock bool
}

func startEvents(w http.ResponseWriter, req Request) events {
	e := events{w, req.Bedrock}
	w.Header().Set("Content-Type", "text/event-stream")
	if e.bedrock {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	}
	w.WriteHeader(http.StatusOK)
	return e
}

// send writes an event and flushes. Errors don't matter: a client that is gone
// ends the request.
func (e events) send(name string, data object) {
	data["type"] = name
	b, err := json.Marshal(data)
	if err != nil {
		panic(err) // a script that is no JSON is a mistake of the test
	}
	if e.bedrock {
		e.frame("event", "chunk", object{"bytes": b, "p": "abcd"})
		return
	}
	_, _ = fmt.Fprintf(e.w, "event: %s\ndata: %s\n\n", name, b)
	e.flush()
}

// fail ends a stream with an error.
func (e events) fail(t Turn) {
	if e.bedrock {
		e.frame("exception", t.ErrorType, object{"message": t.Text})
		return
	}
	e.send("error", object{"error": object{"type": t.ErrorType, "message": t.Text}})
}

// frame writes a message of AWS's event stream.
func (e events) frame(kind, name string, payload object) {
	b, err := json.Marshal(payload)
	if err != nil {
		panic(err) // as in send
	}
	m := eventstream.Message{Payload: b}
	for _, h := range [][2]string{{":" + kind + "-type", name}, {":content-type", "application/json"}, {":message-type", kind}} {
		m.Headers.Set(h[0], eventstream.StringValue(h[1]))
	}
	if eventstream.NewEncoder().Encode(e.w, m) == nil {
		e.flush()
	}
}

func (e events) flush() {
	_ = http.NewResponseController(e.w).Flush()
}

// stream is the answer as events.
func stream(w http.ResponseWriter, req Request, t Turn) {
	e := startEvents(w, req)
	e.send("message_start", object{"message": head(req)})
	e.send("ping", object{})
	for i, block := range content(req, t) {
		e.block(i, block)
	}
	e.send("message_delta", object{
		"delta": object{"stop_reason": t.stopReason(), "stop_sequence": nil},
		"usage": object{"output_tokens": t.outputTokens()},
	})
	end := object{}
	if req.Bedrock {
		end["amazon-bedrock-invocationMetrics"] = object{"inputTokenCount": 100, "outputTokenCount": t.outputTokens(), "invocationLatency": 1, "firstByteLatency": 1}
	}
	e.send("message_stop", end)
}

// block sends one block: its beginning, its content in one delta, its end.
func (e events) block(index int, block object) {
	start, delta := object{"type": "text", "text": ""}, object{"type": "text_delta", "text": block["text"]}
	if block["type"] == "tool_use" {
		in, err := json.Marshal(block["input"])
		if err != nil {
			panic(err) // as in send
		}
		start = object{"type": "tool_use", "id": block["id"], "name": block["name"], "input": object{}}
		delta = object{"type": "input_json_delta", "partial_json": string(in)}
	}
	e.send("content_block_start", object{"index": index, "content_block": start})
	e.send("content_block_delta", object{"index": index, "delta": delta})
	e.send("content_block_stop", object{"index": index})
}

// breakOff plays a fault.
func (s *Server) breakOff(w http.ResponseWriter, r *http.Request, req Request, t Turn) {
	if t.Fault == Silence {
		s.untilGone(r, 0, nil)
		return
	}
	e := startEvents(w, req)
	if t.Fault == Garbage {
		_, _ = io.WriteString(w, "<html>502 Bad Gateway</html>\n\ndata: {\"type\":\n\n\x00\x01\x02\n\n")
		e.flush()
		return
	}
	e.send("message_start", object{"message": head(req)})
	switch t.Fault {
	case Exception:
		e.fail(t)
	case Pings:
		s.untilGone(r, pingEvery, func() { e.send("ping", object{}) })
	case Cut:
		e.send("content_block_start", object{"index": 0, "content_block": object{"type": "text", "text": ""}})
		e.send("content_block_delta", object{"index": 0, "delta": object{"type": "text_delta", "text": "This will not"}})
		panic(http.ErrAbortHandler) // the way to end a connection in the middle
	default: // Hang
		s.untilGone(r, 0, nil)
	}
}

// untilGone waits for the client or the server to go, calling tick in between.
func (s *Server) untilGone(r *http.Request, every time.Duration, tick func()) {
	var ticks <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ticks:
			tick()
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}
