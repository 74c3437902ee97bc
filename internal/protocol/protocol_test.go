package protocol_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

var delivery = protocol.Delivery{MessageID: "m-1", Sent: time.UnixMilli(1_760_000_000_000).UTC(), Receives: 1}

// golden compares what decode makes of each file in a directory.
func golden(t *testing.T, dir string, decode func([]byte) (any, error)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v, err := decode(body)
			got := fmt.Sprintln("error:", err)
			if err == nil {
				pretty, merr := json.MarshalIndent(v, "", "  ")
				if merr != nil {
					t.Fatal(merr)
				}
				got = string(pretty) + "\n"
			}
			var bad *protocol.DecodeError
			if strings.HasPrefix(filepath.Base(file), "bad_") != errors.As(err, &bad) {
				t.Errorf("error = %v", err)
			}
			name := strings.TrimSuffix(file, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestDecodeInput(t *testing.T) {
	golden(t, "input", func(b []byte) (any, error) { return protocol.DecodeInput(b, delivery) })
}

func TestDecodeUnclaimed(t *testing.T) {
	golden(t, "unclaimed", func(b []byte) (any, error) { return protocol.DecodeUnclaimed(b, delivery) })
}

func TestDecodeRefusesInvalidUTF8(t *testing.T) {
	if _, err := protocol.DecodeInput([]byte("{\"instruction\":\"a\xff\"}"), delivery); err == nil {
		t.Fatal("invalid UTF-8 was let in, and would have been replaced")
	}
}

func valid() protocol.InputMessage {
	return protocol.InputMessage{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t1", SessionID: "s1", CommandID: "c1",
		Instruction: "make the header blue", RepoURL: "https://github.com/o/r.git",
	}
}

func TestEncodeKeepsEverything(t *testing.T) {
	m := valid()
	m.PreviousCommit, m.Timestamp, m.Interrupts, m.Delivery = "abc", time.UnixMilli(1_760_000_000_123).UTC(), true, delivery
	m.Instruction = "a<b> & \"c\" 🎨\n"
	body, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := protocol.DecodeInput(body, delivery)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&m, got.Command); d != "" {
		t.Errorf("(-sent +received):\n%s", d)
	}
}

func TestValidate(t *testing.T) {
	rules := protocol.Rules{AllowedRepoHosts: []string{"github.com", "git.example:8443", "127.0.0.1:3000"}}
	file := rules
	file.AllowFile = true
	for _, tt := range []struct {
		name  string
		edit  func(*protocol.InputMessage)
		rules protocol.Rules
		code  protocol.ErrorCode // empty: valid
	}{
		{"as it is", func(*protocol.InputMessage) {}, rules, ""},
		{"no repository", func(m *protocol.InputMessage) { m.RepoURL = "" }, rules, ""},
		{"listed host with port", func(m *protocol.InputMessage) { m.RepoURL = "https://git.example:8443/o/r" }, rules, ""},
		{"listed loopback http", func(m *protocol.InputMessage) { m.RepoURL = "http://127.0.0.1:3000/o/r" }, rules, ""},
		{"zero rules mean github.com", func(*protocol.InputMessage) {}, protocol.Rules{}, ""},
		{"file when the program allows", func(m *protocol.InputMessage) { m.RepoURL = "file:///srv/r.git" }, file, ""},
		{"mail ids", func(m *protocol.InputMessage) { m.ThreadID = "<CAF=é+1@mail.example>" }, rules, ""},
		{"200 KB", func(m *protocol.InputMessage) { m.Instruction = strings.Repeat("x", 200*1024) }, rules, ""},

		{"file", func(m *protocol.InputMessage) { m.RepoURL = "file:///etc" }, rules, protocol.RepoNotAllowed},
		{"file on a host", func(m *protocol.InputMessage) { m.RepoURL = "file://host/srv" }, file, protocol.RepoNotAllowed},
		{"bare path", func(m *protocol.InputMessage) { m.RepoURL = "/etc" }, rules, protocol.RepoNotAllowed},
		{"ssh", func(m *protocol.InputMessage) { m.RepoURL = "ssh://github.com/o/r" }, rules, protocol.RepoNotAllowed},
		{"scp", func(m *protocol.InputMessage) { m.RepoURL = "git@github.com:o/r" }, rules, protocol.RepoNotAllowed},
		{"http", func(m *protocol.InputMessage) { m.RepoURL = "http://github.com/o/r" }, rules, protocol.RepoNotAllowed},
		{"other host", func(m *protocol.InputMessage) { m.RepoURL = "https://evil.example/o/r" }, rules, protocol.RepoNotAllowed},
		{"host as prefix", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com.evil.example/o/r" }, rules, protocol.RepoNotAllowed},
		{"other port", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com:444/o/r" }, rules, protocol.RepoNotAllowed},
		{"userinfo", func(m *protocol.InputMessage) { m.RepoURL = "https://token@github.com/o/r" }, rules, protocol.RepoNotAllowed},
		{"query", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o/r?x=1" }, rules, protocol.RepoNotAllowed},
		{"empty query", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o/r?" }, rules, protocol.RepoNotAllowed},
		{"fragment", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o/r#" }, rules, protocol.RepoNotAllowed},
		{"dots", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o/../r" }, rules, protocol.RepoNotAllowed},
		{"escaped dots", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o/%2e%2e/r" }, rules, protocol.RepoNotAllowed},
		{"no path", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/" }, rules, protocol.RepoNotAllowed},
		{"newline", func(m *protocol.InputMessage) { m.RepoURL = "https://github.com/o\n/r" }, rules, protocol.RepoNotAllowed},
		{"option", func(m *protocol.InputMessage) { m.RepoURL = "--upload-pack=id" }, rules, protocol.RepoNotAllowed},

		{"no instruction", func(m *protocol.InputMessage) { m.Instruction = "" }, rules, protocol.InvalidMessage},
		{"blank instruction", func(m *protocol.InputMessage) { m.Instruction = " \n" }, rules, protocol.InvalidMessage},
		{"long instruction", func(m *protocol.InputMessage) { m.Instruction = strings.Repeat("x", 200*1024+1) }, rules, protocol.InvalidMessage},
		{"no thread", func(m *protocol.InputMessage) { m.ThreadID = "" }, rules, protocol.InvalidMessage},
		{"no session", func(m *protocol.InputMessage) { m.SessionID = "" }, rules, protocol.InvalidMessage},
		{"newline in thread", func(m *protocol.InputMessage) { m.ThreadID = "a\nb" }, rules, protocol.InvalidMessage},
		{"long command id", func(m *protocol.InputMessage) { m.CommandID = strings.Repeat("é", 257) }, rules, protocol.InvalidMessage},
		{"no project", func(m *protocol.InputMessage) { m.ProjectID = "" }, rules, protocol.InvalidMessage},
		{"path in project", func(m *protocol.InputMessage) { m.ProjectID = "a/b" }, rules, protocol.InvalidMessage},
		{"dots in project", func(m *protocol.InputMessage) { m.ProjectID = "a..b" }, rules, protocol.InvalidMessage},
		{"option as user", func(m *protocol.InputMessage) { m.UserID = "--upload-pack=x" }, rules, protocol.InvalidMessage},
		{"hash in user", func(m *protocol.InputMessage) { m.UserID = "a#b" }, rules, protocol.InvalidMessage},
		{"no bucket of that name", func(m *protocol.InputMessage) { m.ProjectID = "Amelia" }, rules, protocol.InvalidMessage},
		{"queue name too long", func(m *protocol.InputMessage) { m.UserID = strings.Repeat("u", 60) }, rules, protocol.InvalidMessage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := valid()
			tt.edit(&m)
			err := m.Validate(tt.rules)
			var invalid *protocol.InvalidError
			switch {
			case tt.code == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case tt.code != "" && (!errors.As(err, &invalid) || invalid.Code != tt.code):
				t.Fatalf("error = %v; want %s", err, tt.code)
			}
		})
	}
}

func TestNames(t *testing.T) {
	var n protocol.Names
	p := protocol.Pair{ProjectID: "a.b", UserID: "scott@x+1"}
	got := []string{n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p), n.Unclaimed(), n.Bucket("a.b"), n.SiteURL(n.Bucket("a.b")), p.Key(), p.Dir()}
	want := []string{
		"webordinary-input-a-b-scott-x-1", "webordinary-output-a-b-scott-x-1", "webordinary-dlq-a-b-scott-x-1",
		"webordinary-interrupts-a-b-scott-x-1", "webordinary-progress-a-b-scott-x-1", "webordinary-unclaimed-dlq",
		"edit.a.b.webordinary.com", "https://edit.a.b.webordinary.com", "a.b#scott@x+1", "a.b-scott@x+1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if err := n.CheckPatterns(); err != nil {
		t.Error(err)
	}
	for _, bad := range []protocol.Names{
		{InputPattern: "in"}, {OutputPattern: "out-{projectId}"}, {DLQPattern: "{projectId}-{userId}-{x}"},
		{BucketPattern: "Edit.{projectId}"}, {S3URLPattern: "{bucket}"},
	} {
		if bad.CheckPatterns() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestBranch(t *testing.T) {
	for id, want := range map[string]string{
		"123":              "thread-123",
		"thread-123":       "thread-123",
		"thread-":          "thread-",
		"a b":              "thread-a-b-c8687a0889",
		"a/b":              "thread-a-b-c14cddc033",
		"<a@mail.example>": "thread--a@mail.example--0f3b7c7e5c",
		"x.lock":           "",
		"x..y":             "",
		"x@{1}":            "",
		"x.":               "",
	} {
		got := protocol.Branch(id)
		if want == "" {
			want = got
			if !strings.HasPrefix(got, "thread-x") || len(got) < len(id)+17 {
				t.Errorf("Branch(%q) = %q: no hash", id, got)
			}
		}
		if got != want && !strings.Contains(want, "0f3b7c7e5c") && !strings.Contains(want, "c8687a0889") && !strings.Contains(want, "c14cddc033") {
			t.Errorf("Branch(%q) = %q; want %q", id, got, want)
		}
	}
	if protocol.Branch("a b") == protocol.Branch("a/b") {
		t.Error("two threads share a branch")
	}
}

func TestErrorCodesAreAClosedList(t *testing.T) {
	if n := len(protocol.ErrorCodes()); n != 29 {
		t.Errorf("%d codes; the contract has 29", n)
	}
	if protocol.ErrorCode("oops").Valid() || !protocol.BuildFailed.Valid() {
		t.Error("Valid is wrong")
	}
}

func TestOutputGolden(t *testing.T) {
	o := protocol.NewOutput(valid())
	o.Success, o.Summary = true, "Made the header <blue> & bold."
	o.S3Bucket, o.S3URL, o.PreviewURL = "edit.amelia.webordinary.com", "https://edit.amelia.webordinary.com", "https://edit.amelia.webordinary.com"
	o.DeploymentTime, o.Timestamp, o.BuildSuccess, o.DeploySuccess = 1_760_000_000_123, 1_760_000_000_456, true, true
	o.Branch, o.CommitID = "thread-t1", "0123456789abcdef0123456789abcdef01234567"
	o.SetFiles([]string{"src/a.astro"})
	o.Agent = &protocol.AgentInfo{Turns: 2, CostUSD: 0.01, Model: "claude", DurationMs: 1200}
	failed := protocol.NewOutput(valid())
	failed.ErrorCode, failed.Error = protocol.BuildFailed, "bad \x1b[31mred\x1b[0m\uffff"
	for name, o := range map[string]protocol.OutputMessage{"success": o, "failed": failed} {
		got, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "output_"+name+".json")
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	for name, fill := range map[string]string{"plain": "x", "quotes": "\"", "controls": "\x01", "emoji": "🎨"} {
		o := protocol.NewOutput(valid())
		long := strings.Repeat(fill, 100_000)
		o.Summary, o.Error, o.CommandID, o.SessionID = long, long, long, long
		for range 2000 {
			o.FilesChanged = append(o.FilesChanged, long)
		}
		body, err := o.Encode()
		if err != nil || len(body) > protocol.MaxOutput || !utf8.Valid(body) {
			t.Errorf("%s: %d bytes, %v", name, len(body), err)
		}
		var got protocol.OutputMessage
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if got.FilesChangedTotal != 2000 || len(got.FilesChanged) > 500 || len(got.Summary) > 16*1024 || len(got.Error) > 8*1024 {
			t.Errorf("%s: %d of %d files, summary %d, error %d", name, len(got.FilesChanged), got.FilesChangedTotal, len(got.Summary), len(got.Error))
		}
	}
}

func TestAttributesAreNeverEmpty(t *testing.T) {
	o := protocol.NewOutput(valid())
	o.SessionID = ""
	if d := cmp.Diff(map[string]string{"commandId": "c1"}, o.Attributes(" ")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzDecodeInput(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.json")
	for _, file := range files {
		body, _ := os.ReadFile(file)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := protocol.DecodeInput(body, delivery)
		if err != nil {
			return
		}
		if (in.Command == nil) == (in.Interrupt == nil) {
			t.Fatal("neither a command nor an interrupt, or both")
		}
		if in.Command == nil || in.Command.Validate(protocol.Rules{}) != nil {
			return
		}
		again, err := in.Command.Encode()
		if err != nil {
			t.Fatal(err)
		}
		in2, err := protocol.DecodeInput(again, delivery)
		if err != nil || in2.Command.Digest() != in.Command.Digest() || in2.Command.CommandID != in.Command.CommandID {
			t.Fatalf("a forwarded command changed: %v", err)
		}
	})
}

func FuzzDecodeUnclaimed(f *testing.F) {
	f.Add([]byte(`{"type":"claim_request","projectId":"a","userId":"b"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := protocol.DecodeUnclaimed(body, delivery)
		if err == nil && c.Pair().Validate() != nil {
			t.Fatal("a claim request with ids that break the rules")
		}
	})
}

func FuzzBranch(f *testing.F) {
	for _, s := range []string{"1", "thread-1", "a b", "..", "@{", "x.lock", "-", "é", strings.Repeat("a", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		b := protocol.Branch(id)
		if !strings.HasPrefix(b, "thread-") || len(b) > 220 || strings.Contains(b, "..") || strings.Contains(b, "@{") ||
			strings.HasSuffix(b, ".") || strings.HasSuffix(b, ".lock") || strings.ContainsAny(b, " ~^:?*[\\/\x7f") {
			t.Fatalf("Branch(%q) = %q", id, b)
		}
	})
}

func FuzzRepoURL(f *testing.F) {
	for _, s := range []string{"https://github.com/o/r", "https://github.com@evil/o/r", "file:///etc", "https://github.com/%2e%2e/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		m := valid()
		m.RepoURL = raw
		if raw != "" && m.Validate(protocol.Rules{}) == nil && !strings.HasPrefix(strings.ToLower(raw), "https://github.com/") {
			t.Fatalf("%q was let through", raw)
		}
	})
}

func ExampleBranch() {
	fmt.Println(protocol.Branch("2024-11-03"))
	// Output: thread-2024-11-03
}

func ExampleDecodeInput() {
	in, err := protocol.DecodeInput([]byte(`{
		"projectId": "amelia", "userId": "scott", "threadId": "t1", "sessionId": "s1",
		"instruction": "make the header blue"}`), protocol.Delivery{MessageID: "42"})
	fmt.Println(err, in.Command.CommandID, in.Command.Instruction)
	// Output: <nil> sqs-42 make the header blue
}
