package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
)

// screen is a terminal that knows what the display uses.
type screen struct {
	lines []string
	row   int
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.lines = s.lines[:min(s.row, len(s.lines))]
			text = text[len("\x1b[J"):]
		case strings.HasPrefix(text, "\x1b["):
			n := int(text[2] - '0')
			s.row -= n
			text = text[len("\x1b[1A"):]
		case text[0] == '\r':
			text = text[1:]
		default:
			line, rest, _ := strings.Cut(text, "\n")
			s.lines = append(s.lines[:s.row], line)
			s.row++
			text = rest
		}
	}
	return len(p), nil
}

// TestDisplay: what is done stays, what is at work moves below it and fits.
func TestDisplay(t *testing.T) {
	s := &screen{}
	now := time.Unix(0, 0)
	d := &display{out: s, width: func() int { return 60 }, now: func() time.Time { return now }}
	want := func(lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, s.lines); diff != "" {
			t.Error(diff)
		}
	}
	d.print("  remote      /r")
	d.step(handlers.Step{Name: handlers.StepClaimed, Text: "working for you"})
	d.took(handlers.StepClaimed, 50*time.Millisecond, false)
	d.took(handlers.StepWait, time.Millisecond, false)
	d.step(handlers.Step{Name: "agent", Text: "carrying out the instruction"})
	now = now.Add(65 * time.Second)
	d.step(handlers.Step{Name: "agent", Tool: "Edit", Text: "src/\x1b[2J" + strings.Repeat("long/", 20), Files: []string{"a"}})
	d.step(handlers.Step{Name: "agent", Tool: "Edit", Text: "src/\x1b[2J" + strings.Repeat("long/", 20), Files: []string{"a"}})
	want(
		"  remote      /r",
		"  ✓ claim         0.1s  working for you",
		"  ⠋ agent        1m05s  Edit src/�[2Jlong/long/long/long/…",
	)
	d.took("agent", 65*time.Second, false)
	d.step(handlers.Step{Name: "deploy", Text: "uploading"})
	d.step(handlers.Step{Name: "push", Text: "pushing"})
	d.print("  dead        a message")
	d.took("push", 2*time.Second, true)
	d.step(handlers.Step{Name: handlers.StepDone})
	want(
		"  remote      /r",
		"  ✓ claim         0.1s  working for you",
		"  ✓ agent        1m05s  2 uses of tools, 1 file edited",
		"  dead        a message",
		"  ✗ push          2.0s  pushing",
		"  ⠋ deploy        0.0s  uploading",
	)
	d.stop, d.stopped = make(chan struct{}), make(chan struct{})
	go d.run()
	d.close()
	if last := s.lines[len(s.lines)-1]; strings.Contains(last, "deploy") {
		t.Errorf("a moving line is left: %q", last)
	}
}
