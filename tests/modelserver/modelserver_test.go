package modelserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// says is a message with one text.
func says(role, text string) object {
	return object{"role": role, "content": []object{{"type": "text", "text": text}}}
}

// ask sends a conversation and returns the answer's status and body.
func ask(t *testing.T, s *Server, stream bool, messages ...object) (int, string) {
	t.Helper()
	resp := send(t.Context(), t, s, stream, messages...)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, "cut: " + err.Error()
	}
	return resp.StatusCode, string(b)
}

func send(ctx context.Context, t *testing.T, s *Server, stream bool, messages ...object) *http.Response {
	t.Helper()
	body, err := json.Marshal(object{"model": "m", "stream": stream, "messages": messages})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/v1/messages", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestPositionComesFromTheConversation(t *testing.T) {
	s := Start(t)
	s.Play("paint", Bash("one"), Bash("two"), Say("painted"))
	s.Play("erase", Say("erased"))
	result := object{"role": "user", "content": []object{{"type": "tool_result", "tool_use_id": "x", "content": "paint, says the tool"}}}
	reminder := says("system", "erase is what a system message says")
	tests := []struct {
		name     string
		messages []object
		want     string // part of the answer
	}{
		{"first", []object{says("user", "please paint")}, `"command":"one"`},
		{"a plain content", []object{{"role": "user", "content": "please paint"}}, `"command":"one"`},
		{"second", []object{says("user", "please paint"), reminder, says("assistant", "1"), result}, `"command":"two"`},
		{"last", []object{says("user", "paint"), says("assistant", "1"), result, says("assistant", "2"), result}, "painted"},
		{"over", []object{says("user", "paint"), says("assistant", "1"), result, says("assistant", "2"), result, says("assistant", "3"), result}, "over after 3"},
		{"another instruction", []object{says("user", "paint"), says("assistant", "1"), says("user", "erase")}, "erased"},
		{"again", []object{says("user", "paint"), says("assistant", "1"), says("user", "paint")}, `"command":"one"`},
		{"one that quotes", []object{says("user", "instead of paint: erase")}, "erased"},
		{"unknown", []object{says("user", "sing")}, "no script"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := ask(t, s, false, tt.messages...); !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestStream(t *testing.T) {
	s := Start(t)
	s.Play("go", Turn{Text: "look", Tools: []Tool{{Name: "Bash", Input: Input{"command": "ls"}}, {Name: "Read"}}})
	status, body := ask(t, s, true, says("user", "go"))
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	var names, parts []string
	for event := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
		name, data, ok := strings.Cut(event, "\ndata: ")
		var e struct {
			Type  string
			Delta struct {
				Text        string
				PartialJSON string `json:"partial_json"`
				StopReason  string `json:"stop_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || !ok || name != "event: "+e.Type {
			t.Fatalf("event %q: %v", event, err)
		}
		names = append(names, e.Type)
		parts = append(parts, e.Delta.Text+e.Delta.PartialJSON+e.Delta.StopReason)
	}
	block := []string{"content_block_start", "content_block_delta", "content_block_stop"}
	want := append([]string{"message_start", "ping"}, append(append(append([]string{}, block...), block...), block...)...)
	want = append(want, "message_delta", "message_stop")
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if got := strings.Join(parts, ""); got != `look{"command":"ls"}{}tool_use` {
		t.Errorf("content %q", got)
	}
}

func TestErrorsAndTimes(t *testing.T) {
	s := Start(t)
	s.Play("go", Fail(529, "overloaded_error", "Overloaded").With("Retry-After", "3").First(2), Say("done"))
	for i, want := range []int{529, 529, 200, 200} {
		if got, body := ask(t, s, false, says("user", "go")); got != want {
			t.Errorf("%d: got %d %s", i, got, body)
		}
	}
	s.Play("go", Break(Garbage), Say("done"))
	if _, got := ask(t, s, true, says("user", "go")); !strings.Contains(got, "<html>") {
		t.Errorf("got %q", got)
	}
	s.Play("go", Break(Cut))
	if _, got := ask(t, s, true, says("user", "go")); !strings.HasPrefix(got, "cut: ") {
		t.Errorf("got %q", got)
	}
}

func TestSilentFaultsEndWithTheClient(t *testing.T) {
	s := Start(t)
	for _, fault := range []Fault{Hang, Pings} {
		s.Play("go", Break(fault))
		ctx, cancel := context.WithCancel(t.Context())
		resp := send(ctx, t, s, true, says("user", "go"))
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || line != "event: message_start\n" {
			t.Errorf("got %q, %v", line, err)
		}
		cancel()
		_ = resp.Body.Close()
	}
}

func TestGate(t *testing.T) {
	s := Start(t)
	gate := NewGate()
	s.Play("go", Say("done").Behind(gate))
	answered := make(chan string)
	go func() {
		_, body := ask(t, s, false, says("user", "go"))
		answered <- body
	}()
	<-gate.Reached()
	select {
	case body := <-answered:
		t.Fatalf("answered before the gate was open: %s", body)
	case <-time.After(20 * time.Millisecond):
	}
	gate.Open()
	gate.Open()
	if body := <-answered; !strings.Contains(body, "done") {
		t.Errorf("got %s", body)
	}
	if _, body := ask(t, s, false, says("user", "go")); !strings.Contains(body, "done") {
		t.Errorf("the gate is not open any more: %s", body)
	}
}

func TestRequests(t *testing.T) {
	s := Start(t)
	s.Play("go", Bash("ls"), Say("done"))
	ask(t, s, false, says("user", "go"), says("assistant", "1"), object{"role": "user", "content": []object{
		{"type": "tool_result", "tool_use_id": "x", "content": []object{{"type": "text", "text": "a.txt"}}},
	}})
	got := s.Requests()
	if len(got) != 1 || got[0].Script != "go" || got[0].Turn != 1 || got[0].Model != "m" || got[0].Stream {
		t.Fatalf("got %+v", got)
	}
	if !got[0].Says("a.txt") || got[0].Says("b.txt") || got[0].Last() != "a.txt" {
		t.Errorf("messages %+v", got[0].Messages)
	}
	s.Forget()
	if len(s.Requests()) != 0 {
		t.Error("not forgotten")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/v1/messages/count_tokens", strings.NewReader("12345678"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(b)) != `{"input_tokens":2}` || len(s.Requests()) != 1 {
		t.Errorf("got %s, %v", b, err)
	}
}

// TestBedrock reads an answer as the SDK does.
func TestBedrock(t *testing.T) {
	s := Start(t)
	s.Play("go", Say("done"))
	s.Play("stop", Throw("modelStreamErrorException", "it broke"))
	s.Play("wait", Fail(429, "ThrottlingException", "Too many requests"))
	call := func(instruction, op string) (status int, kind string, body []byte) {
		sent, err := json.Marshal(object{"anthropic_version": "bedrock-2023-05-31", "messages": []object{says("user", instruction)}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/model/eu.anthropic.m-v1:0/"+op, bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if body, err = io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("X-Amzn-Errortype"), body
	}
	frames := func(instruction string) (all []string) {
		_, _, body := call(instruction, "invoke-with-response-stream")
		in := bytes.NewReader(body)
		for in.Len() > 0 {
			m, err := eventstream.NewDecoder().Decode(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			var payload struct {
				Bytes   []byte
				Message string
			}
			if err := json.Unmarshal(m.Payload, &payload); err != nil {
				t.Fatal(err)
			}
			var e struct{ Type string }
			_ = json.Unmarshal(payload.Bytes, &e)
			all = append(all, m.Headers.Get(":message-type").String()+" "+e.Type+payload.Message)
		}
		return all
	}
	want := []string{
		"event message_start", "event ping", "event content_block_start", "event content_block_delta", "event content_block_stop",
		"event message_delta", "event message_stop",
	}
	if d := cmp.Diff(want, frames("go")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"event message_start", "exception it broke"}, frames("stop")); d != "" {
		t.Error(d)
	}
	if _, _, b := call("go", "invoke"); !strings.Contains(string(b), `"text":"done"`) {
		t.Errorf("got %s", b)
	}
	if status, kind, b := call("wait", "invoke"); status != 429 || !strings.HasPrefix(kind, "ThrottlingException") ||
		strings.TrimSpace(string(b)) != `{"message":"Too many requests"}` {
		t.Errorf("got %d %s %s", status, kind, b)
	}
	if got := s.Requests()[0]; !got.Bedrock || !got.Stream || got.Model != "eu.anthropic.m-v1:0" {
		t.Errorf("recorded %+v", got)
	}
}
