package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"pgregory.net/rapid"
)

// answer is a stream's events: 100 and 7 and 5 tokens of input, and in the end 30
// of output.
func answer() []string {
	return []string{
		`{"type":"message_start","message":{"usage":{"input_tokens":100,"cache_creation_input_tokens":7,"cache_read_input_tokens":5,"output_tokens":1}}}`,
		`{"type":"ping"}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":99999}"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"c"}}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":100,"output_tokens":30}}`,
		`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":100,"outputTokenCount":30}}`,
	}
}

const answerTokens = 142

func sse(all []string) []byte {
	var b bytes.Buffer
	for _, e := range all {
		fmt.Fprintf(&b, "event: x\ndata: %s\n\n", e)
	}
	return b.Bytes()
}

func framed(tb testing.TB, all []string) []byte {
	tb.Helper()
	var b bytes.Buffer
	for _, e := range all {
		payload, err := json.Marshal(map[string]any{"bytes": []byte(e), "p": "abc"})
		if err != nil {
			tb.Fatal(err)
		}
		m := eventstream.Message{Payload: payload}
		m.Headers.Set(":event-type", eventstream.StringValue("chunk"))
		m.Headers.Set(":message-type", eventstream.StringValue("event"))
		if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

// forms are the ways in which an answer can come.
func forms(tb testing.TB) map[string]struct {
	kind string
	body []byte
} {
	tb.Helper()
	whole := []byte(`{"type":"message","content":[{"type":"text","text":"x"}],"usage":{"input_tokens":100,"cache_creation_input_tokens":7,"cache_read_input_tokens":5,"output_tokens":30,"server_tool_use":null}}`)
	return map[string]struct {
		kind string
		body []byte
	}{
		"JSON":           {"application/json", whole},
		"JSON, no kind":  {"", whole},
		"SSE":            {"text/event-stream; charset=utf-8", sse(answer())},
		"SSE, CRLF":      {"text/event-stream", bytes.ReplaceAll(sse(answer()), []byte("\n"), []byte("\r\n"))},
		"AWS's frames":   {"application/vnd.amazon.eventstream", framed(tb, answer())},
		"frames in caps": {"Application/Vnd.Amazon.EventStream", framed(tb, answer())},
	}
}

func TestTokensAreCounted(t *testing.T) {
	for name, form := range forms(t) {
		t.Run(name, func(t *testing.T) {
			j := open(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", form.kind)
				_, _ = w.Write(form.body)
			})
			for i := range int64(2) {
				if _, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello)); body != string(form.body) {
					t.Errorf("the answer changed: %q", body)
				}
				if got, _ := j.Tokens(); got != (i+1)*answerTokens {
					t.Errorf("got %d tokens, want %d", got, (i+1)*answerTokens)
				}
			}
		})
	}
}

// TestTokensHoweverTheyAreCut feeds the parsers with pieces of any size.
func TestTokensHoweverTheyAreCut(t *testing.T) {
	all := forms(t)
	rapid.Check(t, func(t *rapid.T) {
		form := all[rapid.SampledFrom([]string{"JSON", "SSE", "SSE, CRLF", "AWS's frames"}).Draw(t, "form")]
		a := &account{}
		in := &pieces{rest: form.body, size: func() int { return rapid.IntRange(1, 50).Draw(t, "size") }}
		if _, err := io.ReadAll(a.count(io.NopCloser(in), form.kind)); err != nil {
			t.Fatal(err)
		}
		if got, _ := a.state(); got != answerTokens {
			t.Fatalf("got %d tokens, want %d", got, answerTokens)
		}
	})
}

// pieces is a reader that hands out a few bytes at a time.
type pieces struct {
	rest []byte
	size func() int
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(len(p.rest), p.size())])
	p.rest = p.rest[n:]
	return n, nil
}

// TestHangingUpIsNotFree checks that an answer that is cut costs what came of it.
func TestHangingUpIsNotFree(t *testing.T) {
	for name, body := range map[string][]byte{"text/event-stream": sse(answer()[:5]), "application/vnd.amazon.eventstream": framed(t, answer()[:5])} {
		for end, finish := range map[string]func(io.ReadCloser){
			"read to its end": func(r io.ReadCloser) { _, _ = io.Copy(io.Discard, r) },
			"closed":          func(r io.ReadCloser) { _, _ = io.ReadFull(r, make([]byte, len(body))); _ = r.Close() },
		} {
			a := &account{}
			r := a.count(io.NopCloser(bytes.NewReader(body)), name)
			finish(r)
			_ = r.Close()
			if got, _ := a.state(); got != 112+3 {
				t.Errorf("%s %s: got %d tokens, want those of the input and three parts", name, end, got)
			}
		}
	}
}

func TestTokenLimit(t *testing.T) {
	came := 0
	server := func(w http.ResponseWriter, r *http.Request) {
		came++
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "count_tokens") {
			_, _ = io.WriteString(w, `{"input_tokens":1000}`)
			return
		}
		_, _ = io.WriteString(w, `{"usage":{"input_tokens":40,"output_tokens":10}}`)
	}
	j := open(t, Config{}, server)
	j.tokens.most = 100
	for _, want := range []int{200, 200, 400, 400} {
		status, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
		if status != want || status == 400 && errorKind(t, body) != "invalid_request_error" {
			t.Errorf("got %d %s, want %d", status, body, want)
		}
		if status, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages/count_tokens", hello)); status != 200 {
			t.Errorf("counting costs nothing: got %d %s", status, body)
		}
		if used, refused := j.Tokens(); refused != (want == 400) || used > 100 {
			t.Errorf("after %d: %d tokens, refused %v", want, used, refused)
		}
	}
	if came != 2+4 {
		t.Errorf("%d calls came through", came)
	}
}

func TestCompressedAnswerIsRefused(t *testing.T) {
	j := open(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" && got != "identity" {
			t.Errorf("asked for %q", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "{}")
		_ = z.Close()
	})
	r := request(t, j, http.MethodPost, "/v1/messages", hello)
	r.Header.Set("Accept-Encoding", "gzip, br")
	if status, _, body := do(t, r); status != 502 || errorKind(t, body) != "api_error" {
		t.Errorf("got %d %s", status, body)
	}
}

func TestStrangeStreams(t *testing.T) {
	huge := framed(t, []string{strings.Repeat("x", 2*maxEvent)})
	broken := framed(t, answer())
	broken[3]++ // a length that its checksum does not fit
	for name, tt := range map[string]struct {
		kind, body string
		want       int64
	}{
		"a huge frame":     {"application/vnd.amazon.eventstream", string(huge) + string(framed(t, answer())), answerTokens},
		"a broken frame":   {"application/vnd.amazon.eventstream", string(broken), 0},
		"no frames":        {"application/vnd.amazon.eventstream", strings.Repeat("<html>", 100), 0},
		"an empty frame":   {"application/vnd.amazon.eventstream", string(framed(t, []string{""})) + string(framed(t, answer())), answerTokens},
		"a huge event":     {"text/event-stream", "data: " + strings.Repeat("x", 3*maxEvent) + "\n\n" + string(sse(answer())), answerTokens},
		"many lines":       {"text/event-stream", strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 3000) + "\n" + string(sse(answer())), answerTokens},
		"lines in two":     {"text/event-stream", "data: {\"type\":\"message_delta\",\ndata:\"usage\":{\"output_tokens\":3}}\n\n", 3},
		"less than none":   {"application/json", `{"usage":{"input_tokens":-100,"output_tokens":5}}`, 5},
		"more than likely": {"application/json", `{"usage":{"input_tokens":9223372036854775807,"output_tokens":9223372036854775807}}`, 2 << 40},
		"no JSON":          {"application/json", `{"usage":`, 0},
	} {
		a := &account{}
		if _, err := io.Copy(io.Discard, a.count(io.NopCloser(strings.NewReader(tt.body)), tt.kind)); err != nil {
			t.Fatal(err)
		}
		if got, _ := a.state(); got != tt.want {
			t.Errorf("%s: got %d tokens, want %d", name, got, tt.want)
		}
	}
}

// TestStreamsAreNotHoarded checks that a stream without end costs no memory.
func TestStreamsAreNotHoarded(t *testing.T) {
	e, f := &events{each: func([]byte) {}}, &frames{each: func([]byte) {}}
	f.take(framed(t, []string{strings.Repeat("x", 20*maxEvent)})[:preludeSize])
	for _, line := range []string{strings.Repeat("x", 1000), "data: " + strings.Repeat("x", 1000) + "\n"} {
		for range 5 * maxEvent / 1000 {
			e.take([]byte(line))
			f.take([]byte(line))
		}
	}
	if n := cap(e.line) + cap(e.data) + cap(f.buffer); n > 4*maxEvent {
		t.Errorf("%d bytes are kept", n)
	}
}

// FuzzStreams reads anything as each of the forms. It compares the frames with
// those of the SDK's decoder, as long as that takes them.
func FuzzStreams(f *testing.F) {
	for _, form := range forms(f) {
		f.Add(form.body, uint8(3))
	}
	f.Add([]byte("data:\n\ndata: {}\r\n\r\n\x00\x00\x00\x10\x00\x00\x00\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		for _, kind := range []string{"application/json", "text/event-stream", "application/vnd.amazon.eventstream"} {
			a := &account{}
			in := &pieces{rest: body, size: func() int { return int(size) + 1 }}
			got, err := io.ReadAll(a.count(io.NopCloser(in), kind))
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%s: the answer changed: %v", kind, err)
			}
			if used, _ := a.state(); used < 0 {
				t.Fatalf("%s: %d tokens", kind, used)
			}
		}
		var ours [][]byte
		(&frames{each: func(p []byte) { ours = append(ours, bytes.Clone(p)) }}).take(body)
		rest := bytes.NewReader(body)
		for i := 0; ; i++ {
			m, err := eventstream.NewDecoder().Decode(rest, nil)
			if err != nil {
				return
			}
			if len(m.Payload) > maxEvent/2 {
				return
			}
			if i >= len(ours) || !bytes.Equal(m.Payload, ours[i]) {
				t.Fatalf("frame %d differs from the SDK's", i)
			}
		}
	})
}

// TestTokenLimitHoldsForCallsAtOnce checks that calls under way count with what
// they may come to, so that only the last one to begin can be too much.
func TestTokenLimitHoldsForCallsAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		body  string
		begin int // of eight calls at once, how many begin before one has ended
		in    int // and how many in the end
	}{
		"as many as fit":          {`{"model":"claude-test-1","max_tokens":100}`, 2, 2},
		"one by one":              {`{"model":"claude-test-1","max_tokens":100000}`, 1, 2},
		"without a limit":         {`{"model":"claude-test-1"}`, 1, 2},
		"with a limit in capital": {`{"model":"claude-test-1","max_tokens":100000,"MAX_TOKENS":1}`, 1, 2},
		"with a negative limit":   {`{"model":"claude-test-1","max_tokens":-100000}`, 1, 2},
		"with an endless limit":   {`{"model":"claude-test-1","max_tokens":9223372036854775807}`, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			begun, end := make(chan struct{}, 8), make(chan struct{})
			j := open(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
				begun <- struct{}{}
				<-end
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write(sse(answer()))
			})
			j.tokens.most = 200
			status := make(chan int, 8)
			for range 8 {
				r := request(t, j, http.MethodPost, "/v1/messages", tt.body)
				go func() {
					resp, err := client(t).Do(r)
					if err != nil {
						status <- 0
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					status <- resp.StatusCode
				}()
			}
			for range tt.begin {
				<-begun
			}
			select {
			case <-begun:
				t.Error("one more has begun")
			case <-time.After(100 * time.Millisecond):
			}
			close(end)
			got := map[int]int{}
			for range 8 {
				got[<-status]++
			}
			if got[200] != tt.in || got[400] != 8-tt.in {
				t.Errorf("statuses %v", got)
			}
			if used, refused := j.Tokens(); used != int64(tt.in)*answerTokens || !refused {
				t.Errorf("used %d, refused %v", used, refused)
			}
		})
	}
}
