package protocol_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// addGolden makes the golden inputs the seeds.
func addGolden(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden inputs: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
}

// comesBack checks that a command can be sent on, also one to be refused.
func comesBack(t *testing.T, m *protocol.InputMessage) {
	t.Helper()
	body, err := m.Encode()
	if err != nil || !sqsTakes(body) {
		t.Fatalf("%q, %v", body, err)
	}
	again, err := protocol.DecodeInput(body, m.Delivery)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, again.Command); d != "" {
		t.Fatalf("(-sent +received):\n%s", d)
	}
}

func FuzzDecodeInput(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := protocol.DecodeInput(body, delivery)
		var undecodable *protocol.DecodeError
		switch {
		case err != nil && (!errors.As(err, &undecodable) || len(err.Error()) > 100):
			t.Fatalf("error = %v", err)
		case err == nil && (!json.Valid(body) || (in.Command == nil) == (in.Interrupt == nil)):
			t.Fatalf("decoded to %+v", in)
		case in.Command != nil:
			comesBack(t, in.Command)
		}
	})
}

func FuzzDecodeUnclaimed(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := protocol.DecodeUnclaimed(body, delivery)
		var undecodable *protocol.DecodeError
		switch {
		case err != nil && !errors.As(err, &undecodable):
			t.Fatalf("error = %v", err)
		case err == nil && c.Pair().Validate() != nil:
			t.Fatal("a claim request with ids that break the rules")
		case c.Work != nil:
			if c.Work.Pair() != c.Pair() {
				t.Fatal("the work is another pair's")
			}
			comesBack(t, c.Work)
		}
	})
}

func FuzzBranch(f *testing.F) {
	for _, s := range []string{"1", "thread-1", "a b", "..", "@{", "x.lock", "-", "é", strings.Repeat("a", 300), "a-0123456789abcde"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		b := protocol.Branch(id)
		if !strings.HasPrefix(b, "thread-") || len(b) > 176 || strings.Contains(b, "..") || strings.Contains(b, "@{") ||
			strings.HasSuffix(b, ".") || strings.HasSuffix(b, ".lock") || strings.ContainsAny(b, " ~^:?*[\\/\x7f") ||
			strings.IndexFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
			t.Fatalf("Branch(%q) = %q", id, b)
		}
		if id != "" && b != id && b != "thread-"+id && protocol.Branch(b) == b {
			t.Fatalf("the thread %q would share %q", b, b)
		}
	})
}

func FuzzRepoURL(f *testing.F) {
	for _, s := range []string{
		"https://github.com/o/r", "https://github.com@evil/o/r", "https://evil\\@github.com/o", "file:///etc", "https://github.com/%2e%2e/x",
		"http://127.0.0.1:3000/o/r", "https://github.com:443/x", "ext::sh -c id", "--upload-pack=id",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		m := valid()
		m.RepoURL = raw
		if raw == "" || m.Validate(protocol.Rules{}) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil || !strings.HasPrefix(strings.ToLower(raw), "https://github.com/") || strings.ContainsAny(raw, "@?# \\") && !strings.Contains(u.Path, "@") ||
			strings.Contains(u.Path+"/", "/../") || strings.ContainsAny(u.Path, "\x00\n\\") {
			t.Fatalf("%q was let through", raw)
		}
	})
}

func FuzzEncodeOutput(f *testing.F) {
	f.Add("summary", "error", "file", 3, 1.5)
	f.Add("\x1b[2J", "\xff\uffff\u2028", strings.Repeat("\"", 2000), 600, 0.0)
	f.Fuzz(func(t *testing.T, summary, text, file string, n int, cost float64) {
		o := protocol.OutputMessage{
			CommandID: text, Summary: strings.Repeat(summary, 50), Error: text, ErrorCode: protocol.ErrorCode(file), Branch: file,
			Agent: &protocol.AgentInfo{CostUSD: cost, Model: summary},
		}
		for range max(n, 0) % 700 {
			o.FilesChanged = append(o.FilesChanged, file)
		}
		published(t, o)
	})
}
