package protocol_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// published encodes a message and holds the body against what is promised for
// every message.
func published(t rapid.TB, o protocol.OutputMessage) protocol.OutputMessage {
	t.Helper()
	body, err := o.Encode()
	if err != nil {
		t.Fatalf("%v", err)
	}
	again, err := o.Encode()
	if err != nil || !bytes.Equal(body, again) {
		t.Fatalf("encoded twice, it differs: %v", err)
	}
	if len(body) > protocol.MaxOutput || !sqsTakes(body) {
		t.Fatalf("SQS or a consumer refuses it: %d bytes: %.200q", len(body), body)
	}
	var got protocol.OutputMessage
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v", err)
	}
	switch {
	case len(got.Summary) > 16*1024 || len(got.Error) > 8*1024 || len(got.FilesChanged) > 500 || got.FilesChanged == nil:
		t.Fatalf("summary %d, error %d, files %d", len(got.Summary), len(got.Error), len(got.FilesChanged))
	case got.FilesChangedTotal < len(o.FilesChanged) || got.FilesChangedTotal < len(got.FilesChanged):
		t.Fatalf("%d of %d files in all", len(got.FilesChanged), got.FilesChangedTotal)
	case got.Type != "response" || got.PreviewURL != got.S3URL || got.ErrorCode != "" && !got.ErrorCode.Valid():
		t.Fatalf("%.300s", body)
	}
	if i := strings.IndexFunc(got.Summary+got.Error+strings.Join(got.FilesChanged, ""), func(r rune) bool {
		return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	}); i >= 0 {
		t.Fatalf("a terminal would obey it: %.300s", body)
	}
	return got
}

func TestOutputIsBounded(t *testing.T) {
	for name, fill := range map[string]string{
		"plain": "x", "quotes": `"`, "controls": "\x01", "line separators": "\u2028", "emoji": "🎨", "refused": "\uffff", "damaged": "\xff",
	} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat(fill, 300_000/len(fill))
			o := protocol.OutputMessage{
				Type: long, CommandID: long, SessionID: long, ProjectID: long, UserID: long, Summary: long, S3Bucket: long, S3URL: long,
				PreviewURL: long, Branch: long, CommitID: long, Error: long, ErrorCode: protocol.ErrorCode(long), Agent: &protocol.AgentInfo{Model: long},
			}
			for range 600 {
				o.FilesChanged = append(o.FilesChanged, long)
			}
			got := published(t, o)
			if len(got.FilesChanged) < 50 || len(got.FilesChanged[0]) < 1000 {
				t.Errorf("only %d files are named; there is room for more", len(got.FilesChanged))
			}
			if o.Agent.Model != long || o.FilesChanged[0] != long {
				t.Error("Encode changed the caller's message")
			}
		})
	}
}

func TestOutputKeepsWhatFits(t *testing.T) {
	o := protocol.NewOutput(valid())
	o.Summary, o.Error = strings.Repeat("s", 16*1024), strings.Repeat("e", 8*1024)
	for i := range 501 {
		o.FilesChanged = append(o.FilesChanged, fmt.Sprintf("src/pages/%d.astro", i))
	}
	got := published(t, o)
	if got.Summary != o.Summary || got.Error != o.Error || len(got.FilesChanged) != 500 || got.FilesChangedTotal != 501 {
		t.Errorf("summary %d, error %d, files %d of %d", len(got.Summary), len(got.Error), len(got.FilesChanged), got.FilesChangedTotal)
	}
}

func TestOutputIsCutBetweenRunes(t *testing.T) {
	for pad := range 4 {
		o := protocol.NewOutput(valid())
		o.Summary = strings.Repeat("x", pad) + strings.Repeat("🎨", 5000)
		got := published(t, o).Summary
		text, cut := strings.CutSuffix(got, "…")
		if !cut || !strings.HasPrefix(o.Summary, text) || len(got) < 16*1024-6 {
			t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-8:])
		}
	}
}

func TestOutputOfOddNumbers(t *testing.T) {
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		o := protocol.NewOutput(valid())
		o.Agent = &protocol.AgentInfo{CostUSD: cost}
		if got := published(t, o); got.Agent.CostUSD != 0 {
			t.Errorf("costUsd = %v", got.Agent.CostUSD)
		}
	}
}

func TestErrorCodeOutOfTheListIsInternal(t *testing.T) {
	o := protocol.NewOutput(valid())
	o.ErrorCode = "oops"
	if got := published(t, o); got.ErrorCode != protocol.Internal {
		t.Errorf("errorCode = %q", got.ErrorCode)
	}
}

func TestEveryOutputIsPublishable(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(string(rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(t, "unit")), rapid.IntRange(0, 20_000).Draw(t, "times"))
	}))
	rapid.Check(t, func(t *rapid.T) {
		published(t, protocol.OutputMessage{
			CommandID: text.Draw(t, "command"), Summary: text.Draw(t, "summary"), Error: text.Draw(t, "error"),
			Branch: text.Draw(t, "branch"), S3URL: text.Draw(t, "url"), FilesChanged: rapid.SliceOf(text).Draw(t, "files"),
			FilesChangedTotal: rapid.IntRange(0, 1000).Draw(t, "total"),
		})
	})
}

func TestAttributes(t *testing.T) {
	o := protocol.NewOutput(valid())
	o.SessionID = ""
	if d := cmp.Diff(map[string]string{"commandId": "c1"}, o.Attributes(" ")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	o.CommandID, o.SessionID = strings.Repeat("🎨", 256), "a\x00\xff\uffff"
	want := map[string]string{"commandId": o.CommandID, "sessionId": "a\ufffd\ufffd\ufffd", "correlation_id": "x"}
	if d := cmp.Diff(want, o.Attributes("x")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
