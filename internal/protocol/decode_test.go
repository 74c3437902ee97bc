package protocol_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// refusal returns why Validate refuses what a body decodes to.
func refusal(t *testing.T, body string) string {
	t.Helper()
	in, err := protocol.DecodeInput([]byte(body), delivery)
	if err != nil {
		t.Fatal(err)
	}
	var invalid *protocol.InvalidError
	if err := in.Command.Validate(protocol.Rules{}); !errors.As(err, &invalid) || invalid.Code != protocol.InvalidMessage {
		t.Fatalf("error = %v; want %s", err, protocol.InvalidMessage)
	}
	if !in.Command.Answerable() {
		t.Error("nobody would be told")
	}
	comesBack(t, in.Command)
	return invalid.Reason
}

func TestDefectsAreAnsweredNotReplaced(t *testing.T) {
	const message = `{"projectId":"amelia","userId":"scott","threadId":"t","sessionId":"s","instruction":%s}`
	for name, tt := range map[string]struct{ instruction, want string }{
		"a byte that is no UTF-8":   {"\"a\xffb\"", "instruction is not valid UTF-8"},
		"a low half alone":          {`"\udfa8"`, "instruction is not valid UTF-8"},
		"a high half, then text":    {`"\ud83cab"`, "instruction is not valid UTF-8"},
		"a high half, then another": {`"\ud83c\ud83c"`, "instruction is not valid UTF-8"},
		"a high half at the end":    {`"\ud83c"`, "instruction is not valid UTF-8"},
		"a list":                    {`["secret"]`, "instruction is not a string"},
		"true":                      {`true`, "instruction is not a string"},
		"a number that interrupts":  {`5,"type":"interrupt"`, "instruction is not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refusal(t, fmt.Sprintf(message, tt.instruction)); got != tt.want {
				t.Errorf("reason = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestReplacementCharacterItselfIsText(t *testing.T) {
	in, err := protocol.DecodeInput([]byte(`{"instruction":"\ufffd \\ud83c`+"\ufffd"+`"}`), delivery)
	if err != nil || in.Command.Defect != "" || in.Command.Instruction != "\ufffd \\ud83c\ufffd" {
		t.Errorf("got %+v, %v", in.Command, err)
	}
}

func TestHostileBodies(t *testing.T) {
	for name, body := range map[string]string{
		"deep list":            `{"x":` + strings.Repeat("[", 100_000),
		"deep and balanced":    `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}",
		"deep from the start":  strings.Repeat(`{"a":`, 20_000),
		"only white space":     " \n\t",
		"byte order mark":      "\ufeff{}",
		"number as a name":     `{1:2}`,
		"no comma":             `{"a":1 "b":2}`,
		"no colon":             `{"a" 1}`,
		"comma at the end":     `{"a":1,}`,
		"closed by a bracket":  `{"a":1]`,
		"not closed":           `{"a":1`,
		"two objects":          `{} {}`,
		"escaped name twice":   `{"instruction":"a","\u0069nstruction":"b"}`,
		"unknown name twice":   `{"x":1,"x":1}`,
		"unfinished escape":    `{"instruction":"\ud8"}`,
		"control in a string":  "{\"instruction\":\"a\nb\"}",
		"a secret in a syntax": `{"instruction":"hunter2" hunter2`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := protocol.DecodeInput([]byte(body), delivery)
			if _, ok := errors.AsType[*protocol.DecodeError](err); !ok {
				t.Fatalf("error = %v; want a DecodeError", err)
			}
			if text := err.Error(); strings.Contains(text, "hunter2") || len(text) > 100 {
				t.Errorf("the error shows the body: %s", text)
			}
		})
	}
}

func TestCommandID(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		d    protocol.Delivery
		want string
	}{
		"the message's own":      {`{"commandId":"c"}`, protocol.Delivery{MessageID: "m", CommandID: "a"}, "c"},
		"the alias":              {`{"messageId":"c"}`, protocol.Delivery{MessageID: "m"}, "c"},
		"given with the message": {`{}`, protocol.Delivery{MessageID: "m", CommandID: "a"}, "a"},
		"derived":                {`{"commandId":""}`, protocol.Delivery{MessageID: "m"}, "sqs-m"},
		"none":                   {`{}`, protocol.Delivery{}, ""},
	} {
		in, err := protocol.DecodeInput([]byte(tt.body), tt.d)
		if err != nil || in.Command.CommandID != tt.want {
			t.Errorf("%s: commandId = %q, %v; want %q", name, in.Command.CommandID, err, tt.want)
		}
	}
}

func TestTimestamps(t *testing.T) {
	want := time.UnixMilli(1_760_000_000_123).UTC()
	for raw, want := range map[string]time.Time{
		`1760000000123`:                   want,
		`1760000000.123`:                  want,
		`1.760000000123e12`:               want,
		`1760000000`:                      want.Truncate(time.Second),
		`"2025-10-09T08:53:20.123456Z"`:   want,
		`"2025-10-09T10:53:20.123+02:00"`: want,
		`0`:                               time.UnixMilli(0).UTC(),
		`99999999999`:                     time.Unix(99999999999, 0).UTC(), // the last that is seconds
		`100000000000`:                    time.UnixMilli(100000000000).UTC(),
		`null`:                            {},
	} {
		in, err := protocol.DecodeInput([]byte(`{"timestamp":`+raw+`}`), delivery)
		if err != nil || in.Command.Defect != "" || !in.Command.Timestamp.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", raw, in.Command, err, want)
		}
	}
	for _, raw := range []string{`-1`, `1e300`, `1e999`, `"1760000000"`, `""`, `{}`, `true`, `"0001-01-01T00:00:00Z"`, `253402300800000`} {
		in, err := protocol.DecodeInput([]byte(`{"timestamp":`+raw+`}`), delivery)
		if err != nil || in.Command.Defect == "" || !in.Command.Timestamp.IsZero() {
			t.Errorf("%s was taken: %v, %v", raw, in.Command, err)
		}
	}
}

// TestEncodeKeepsEverything: a command that is sent on arrives as it was, in a
// body that SQS takes.
func TestEncodeKeepsEverything(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("\x00\x1b\"\\<&\u2028\ufffe\uffff🎨\n"))))
	rapid.Check(t, func(t *rapid.T) {
		sent := protocol.InputMessage{
			ProjectID: text.Draw(t, "project"), UserID: text.Draw(t, "user"), ThreadID: text.Draw(t, "thread"),
			SessionID: text.Draw(t, "session"), CommandID: text.Draw(t, "command") + "!", RepoURL: text.Draw(t, "repo"),
			Instruction: text.Draw(t, "instruction") + "!", PreviousCommit: text.Draw(t, "commit"),
			Interrupts: rapid.Bool().Draw(t, "interrupts"), Defect: text.Draw(t, "defect"), Delivery: delivery,
		}
		if rapid.Bool().Draw(t, "stamped") {
			ms := rapid.OneOf(rapid.Int64Range(0, 253402300799999), rapid.Int64Range(0, 2e11)).Draw(t, "ms")
			sent.Timestamp = time.UnixMilli(ms).UTC()
		}
		body, err := sent.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !sqsTakes(body) {
			t.Fatalf("SQS refuses %q", body)
		}
		got, err := protocol.DecodeInput(body, delivery)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&sent, got.Command); d != "" {
			t.Fatalf("(-sent +received):\n%s", d)
		}
	})
}

// sqsTakes reports whether a body has only the runes that SQS documents.
func sqsTakes(body []byte) bool {
	return utf8.Valid(body) && !bytes.ContainsFunc(body, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

func TestClaimRequestComesBack(t *testing.T) {
	sent := protocol.ClaimRequest{ProjectID: "amelia", UserID: "scott", SessionID: "s", ThreadID: "t", QueueURL: "https://sqs/q"}
	body, err := sent.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := protocol.DecodeUnclaimed(body, delivery)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sent, got); d != "" {
		t.Errorf("(-sent +received):\n%s", d)
	}
}

func TestDigestTellsContentsApart(t *testing.T) {
	m := valid()
	same := m
	same.CommandID, same.SessionID, same.Timestamp, same.Delivery = "other", "other", time.Now(), delivery
	if m.Digest() != same.Digest() {
		t.Error("the digest depends on more than thread, instruction and repository")
	}
	moved := m
	moved.ThreadID, moved.Instruction = m.ThreadID+m.Instruction[:1], m.Instruction[1:]
	if m.Digest() == moved.Digest() {
		t.Error("the border between two fields does not count")
	}
}

func TestDeliveryIsNotInJSON(t *testing.T) {
	m := valid()
	m.Delivery.MessageID = "handle"
	if body, err := json.Marshal(m); err != nil || bytes.Contains(body, []byte("handle")) {
		t.Errorf("%s, %v", body, err)
	}
}
