package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/terminal"
)

func TestColoursAreForTerminals(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	_, tty := terminal.Open(t)
	for name, tt := range map[string]struct {
		style style
		want  bool
	}{
		"terminal": {styleOf(tty, nil), true},
		"NO_COLOR": {styleOf(tty, []string{"NO_COLOR=1"}), false},
		"empty":    {styleOf(tty, []string{"NO_COLOR="}), true},
		"dumb":     {styleOf(tty, []string{"TERM=dumb"}), false},
		"file":     {styleOf(file, nil), false},
		"buffer":   {styleOf(&bytes.Buffer{}, nil), false},
	} {
		if tt.style.on != tt.want {
			t.Errorf("%s: colours %v", name, tt.style.on)
		}
	}
}

func TestGridAligns(t *testing.T) {
	g := &grid{}
	g.head("NAME", "WHAT")
	g.add(painted(red, "übung"), plain("a\x1b[2J\nb"))
	g.add(plain("b"), plain(""))
	var plainly, coloured strings.Builder
	if err := g.write(&plainly, style{}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME   WHAT\nübung  a\uFFFD[2J b\nb\n"; plainly.String() != want {
		t.Errorf("%q, want %q", plainly.String(), want)
	}
	if err := g.write(&coloured, style{on: true}); err != nil {
		t.Fatal(err)
	}
	if got := coloured.String(); !strings.Contains(got, "\x1b[31mübung\x1b[0m  a") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("%q", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 25 * time.Hour: "25h00m", 50 * time.Hour: "2d02h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
