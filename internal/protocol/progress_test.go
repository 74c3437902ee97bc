package protocol_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func TestProgressIsWrittenAsDocumented(t *testing.T) {
	p := protocol.NewProgress(protocol.InputMessage{ProjectID: "amelia", UserID: "scott", ThreadID: "t-1", SessionID: "s-1", CommandID: "c-1"})
	p.Step, p.Tool, p.Text, p.Files = "agent", "Edit", "src/Header.astro", []string{"src/Header.astro"}
	p.Timestamp, p.Sequence = 1760000000000, 3
	got, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"progress","commandId":"c-1","threadId":"t-1","sessionId":"s-1","projectId":"amelia","userId":"scott",` +
		`"step":"agent","tool":"Edit","text":"src/Header.astro","files":["src/Header.astro"],"filesTotal":1,` +
		`"timestamp":1760000000000,"sequence":3}`
	if d := cmp.Diff(want, strings.TrimSpace(string(got))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"commandId": "c-1", "sessionId": "s-1", "correlation_id": "x"}, p.Attributes("x")); d != "" {
		t.Error(d)
	}
}

func TestProgressIsBounded(t *testing.T) {
	p := protocol.Progress{Step: "agent", Text: strings.Repeat("\x1b[1m", 10_000)}
	for i := range 1000 {
		p.Files = append(p.Files, fmt.Sprintf("%d%s", i, strings.Repeat("<\x00", 10_000)))
	}
	body, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var got protocol.Progress
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if len(body) > protocol.MaxOutput || len(got.Text) > protocol.MaxProgressText || strings.Contains(got.Text, "\x1b") {
		t.Errorf("%d bytes, text of %d", len(body), len(got.Text))
	}
	if len(got.Files) != protocol.MaxProgressFiles || got.FilesTotal != 1000 || !strings.HasPrefix(got.Files[99], "999") {
		t.Errorf("%d of %d files, the last is %.5q", len(got.Files), got.FilesTotal, got.Files[len(got.Files)-1])
	}
}
