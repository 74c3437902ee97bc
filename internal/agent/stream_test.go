package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// play gives a recorded run to a stream.
func play(t *testing.T, name string) (*stream, []Event) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	s := quiet()
	s.progress = func(e Event) { events = append(events, e) }
	if _, err := io.Copy(&lines{each: s.take}, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return s, events
}

func quiet() *stream {
	return &stream{site: "/job/site", heard: func(bool) {}, retrying: func(time.Duration, int) {}}
}

// TestRecordedRuns reads what the CLI (2.1.328) really printed.
func TestRecordedRuns(t *testing.T) {
	const model = "claude-opus-5-5"
	tests := map[string]struct {
		result  Result
		reached bool
		code    string // empty: success
		events  []Event
	}{
		"success": {
			result: Result{Summary: "all done", Turns: 3, CostUSD: 0.0024, Model: model}, reached: true,
			events: []Event{{Tool: "Write", Detail: "a.txt", File: "a.txt"}, {Tool: "Bash", Detail: "cat a.txt"}},
		},
		"denied": {
			result:  Result{Summary: "fine", Turns: 3, CostUSD: 0.0024, Model: model, Denials: []string{"Write /elsewhere/x.txt"}},
			reached: true,
			events:  []Event{{Tool: "Write", Detail: "/elsewhere/x.txt"}, {Tool: "WebFetch"}},
		},
		"turn_limit": {
			result: Result{Turns: 2, CostUSD: 0.0016, Model: model}, reached: true, code: CodeTurnLimit,
			events: []Event{{Tool: "Bash", Detail: "echo 1"}, {Tool: "Bash", Detail: "echo 2"}},
		},
		"cost_limit": {
			result: Result{Turns: 1, CostUSD: 8000.0004, Model: model}, reached: true, code: CodeCostLimit,
			events: []Event{{Tool: "Bash", Detail: "echo 1"}},
		},
		"refusal":         {result: Result{CostUSD: 0.0016, Model: model}, reached: true, code: CodeRefused},
		"overloaded":      {result: Result{Model: model}, code: CodeModelOverloaded},
		"prompt_too_long": {result: Result{Model: model}, code: CodePromptTooLong},
		"garbage":         {result: Result{Model: model}, code: CodeModelOverloaded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, events := play(t, name)
			got := s.result()
			got.CostUSD = float64(int(got.CostUSD*1e6+0.5)) / 1e6
			if d := cmp.Diff(tt.result, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.events, events); d != "" {
				t.Error(d)
			}
			if s.reached != tt.reached {
				t.Errorf("reached: %v", s.reached)
			}
			if tt.code == "" {
				if !s.succeeded() {
					t.Error("no success")
				}
				return
			}
			if e := (outcome{stream: s}).failure(); s.succeeded() || e.Code != tt.code {
				t.Errorf("got %v", e)
			}
		})
	}
}

// TestAwaiting follows when silence counts: it does not while a tool works, and
// it does while an answer is coming in or asked for.
func TestAwaiting(t *testing.T) {
	const (
		counts  = "counts"
		pauses  = "pauses"
		nothing = "" // no sign of life
	)
	steps := []struct{ line, want string }{
		{`{"type":"system","subtype":"init","model":"m"}`, counts},
		{`{"type":"system","subtype":"api_retry","retry_delay_ms":600,"error_status":529}`, nothing},
		{`{"type":"stream_event","event":{"type":"message_start","message":{"id":"m1"}}}`, counts},
		{`{"type":"stream_event","event":{"type":"ping"}}`, nothing},
		{`{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"tool_use","id":"a","name":"Bash","input":{"command":"x"}}]}}`, counts},
		{`{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"tool_use","id":"b","name":"Bash","input":{"command":"y"}}]}}`, counts},
		{`{"type":"stream_event","event":{"type":"message_stop"}}`, pauses},
		{`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"a"}]}}`, pauses},
		{`no JSON at all`, nothing},
		{`{"type":"system","subtype":"permission_denied","message":"a text"}`, pauses},
		{`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"b"}]}}`, counts},
		// A stream that breaks off, and the same answer in one piece.
		{`{"type":"stream_event","event":{"type":"message_start","message":{"id":"m2"}}}`, counts},
		{`{"type":"assistant","message":{"id":"m3","model":"m","content":[{"type":"tool_use","id":"c","name":"Bash","input":{"command":"z"}}]}}`, pauses},
		{`{"type":"user","message":{"content":"a plain text"}}`, pauses},
		{`{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["x"]}`, pauses},
	}
	got := nothing
	s := quiet()
	s.heard = func(awaiting bool) {
		got = pauses
		if awaiting {
			got = counts
		}
	}
	for _, step := range steps {
		got = nothing
		s.take([]byte(step.line))
		if got != step.want {
			t.Errorf("silence %q after %s, want %q", got, step.line, step.want)
		}
	}
}

func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.StringMatching(`[a-z ]{0,20}`)).Draw(t, "lines")
		text := strings.Join(append(want, "half"), "\n")
		var got []string
		l := &lines{each: func(line []byte) { got = append(got, string(line)) }}
		for text != "" {
			n := rapid.IntRange(1, len(text)).Draw(t, "n")
			if w, err := l.Write([]byte(text[:n])); w != n || err != nil {
				t.Fatalf("wrote %d, %v", w, err)
			}
			text = text[n:]
		}
		if len(want) != len(got) || !cmp.Equal(strings.Join(want, "\n"), strings.Join(got, "\n")) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func TestLinesTooLong(t *testing.T) {
	var got []string
	l := &lines{each: func(line []byte) { got = append(got, string(line)) }}
	mega := bytes.Repeat([]byte("x"), 1<<20)
	for range maxLine>>20 + 1 {
		_, _ = l.Write(mega)
	}
	_, _ = l.Write([]byte("end\nnext\n"))
	if d := cmp.Diff([]string{"next"}, got); d != "" {
		t.Error(d)
	}
}

// TestLinesOfAnAttackerTakeLittle has a child of the CLI write to its output what is
// small as a text and large as values, and much of it.
func TestLinesOfAnAttackerTakeLittle(t *testing.T) {
	const size = 1 << 20
	many := func(item string) string {
		return strings.TrimSuffix(strings.Repeat(item+",", size/(len(item)+1)), ",")
	}
	var models strings.Builder
	for i := range size / 13 {
		fmt.Fprintf(&models, `"%07d":{},`, i)
	}
	for name, line := range map[string]string{
		"blocks":  `{"type":"assistant","message":{"id":"m","content":[` + many("{}") + `]}}`,
		"answers": `{"type":"user","message":{"content":[` + many("{}") + `]}}`,
		"denials": `{"type":"result","subtype":"success","permission_denials":[` + many("{}") + `]}`,
		"errors":  `{"type":"result","subtype":"success","errors":[` + many(`""`) + `]}`,
		"models":  `{"type":"result","subtype":"success","model_usage_since_last_result":{` + strings.TrimSuffix(models.String(), ",") + `}}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		quiet().take([]byte(line))
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		if got > 6*size {
			t.Errorf("%s: a line of %d bytes takes %d", name, len(line), got)
		}
	}
}

// TestForgedLines has it write what the CLI would. The CLI said first which model it
// uses, which becomes a dimension of metrics; and nothing costs less than nothing.
func TestForgedLines(t *testing.T) {
	s := quiet()
	for _, line := range []string{
		`{"type":"system","subtype":"init","model":"claude-test-1"}`,
		`{"type":"system","subtype":"init","model":"forged"}`,
		`{"type":"result","subtype":"success","result":"x","model_usage_since_last_result":{"a":{"costUSD":0.5},"b":{"costUSD":-100}}}`,
	} {
		s.take([]byte(line))
	}
	if r := s.result(); r.Model != "claude-test-1" || r.CostUSD != 0.5 {
		t.Errorf("model %q, %v dollars", r.Model, r.CostUSD)
	}
}

// TestLittleIsKeptOfManyLines has it write long lines, and many.
func TestLittleIsKeptOfManyLines(t *testing.T) {
	const size = 1 << 20
	long := strings.Repeat("x", size)
	s := quiet()
	s.progress = func(e Event) {
		if len(e.Tool) > maxName {
			t.Errorf("the name of a tool has %d bytes", len(e.Tool))
		}
	}
	for i := range 3 {
		s.take(fmt.Appendf(nil, `{"type":"assistant","message":{"id":"%d%s","content":[{"type":"tool_use","id":"%d%s","name":"%s"}]}}`, i, long, i, long, long))
	}
	s.take([]byte(`{"type":"system","subtype":"init","model":"` + long + `"}`))
	s.take([]byte(`{"type":"result","subtype":"success","result":"` + long + long + `","permission_denials":[{"tool_name":"` + long + `"}]}`))
	if kept := len(s.model) + len(strings.Join(s.open, "")) + len(strings.Join(s.answers, "")) + len(s.result().Denials[0]) + len(s.last.Text); kept > size+3000 {
		t.Errorf("%d bytes are kept of lines of %d", kept, size)
	}
	for i := range maxAnswers + 10 {
		s.take(fmt.Appendf(nil, `{"type":"assistant","message":{"id":"%d","content":[{"type":"tool_use","id":"%d"}]}}`, i, i))
	}
	if len(s.answers) > maxAnswers || len(s.open) > maxList {
		t.Errorf("%d answers and %d tools are kept", len(s.answers), len(s.open))
	}
}

func FuzzStream(f *testing.F) {
	for _, name := range []string{"success", "denied", "refusal", "overloaded"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".jsonl"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := quiet()
		l := &lines{each: s.take}
		_, _ = l.Write(b)
		r := s.result()
		if s.succeeded() {
			return
		}
		if e := (outcome{stream: s}).failure(); e.Code == "" || e.Message == "" {
			t.Errorf("result %+v, failure %+v", r, e)
		}
	})
}
