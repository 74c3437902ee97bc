package handlers

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func TestSubject(t *testing.T) {
	long := strings.Repeat("word ", 20) // 100 characters
	tests := []struct{ name, instruction, want string }{
		{"nothing", "", ""},
		{"blank", " \n\t\n ", ""},
		{"one line", "Make it blue", "Make it blue"},
		{"the first line", "Make it blue\nand bold", "Make it blue"},
		{"empty lines before it", "\n \n\tMake it blue\n", "Make it blue"},
		{"a line of Windows", "Make it blue\r\nand bold", "Make it blue"},
		{"spaces within", "Make \t it\u00a0 blue", "Make it blue"},
		{"72 characters", strings.Repeat("x", 72), strings.Repeat("x", 72)},
		{"72 characters of two bytes", strings.Repeat("ü", 72), strings.Repeat("ü", 72)},
		{"cut at a word", long, strings.TrimSpace(strings.Repeat("word ", 14)) + "…"},
		{"cut at a word of two bytes", strings.Repeat("wörd ", 20), strings.TrimSpace(strings.Repeat("wörd ", 14)) + "…"},
		{"one long word", strings.Repeat("x", 73), strings.Repeat("x", 71) + "…"},
		{"one long word of four bytes", strings.Repeat("🥐", 100), strings.Repeat("🥐", 71) + "…"},
		{"a long word after a short one", "Open " + strings.Repeat("x", 100), "Open " + strings.Repeat("x", 66) + "…"},
		{"a long word after short ones of two bytes", "Öffne ändere süße " + strings.Repeat("ü", 100), "Öffne ändere süße " + strings.Repeat("ü", 53) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := subject(tt.instruction)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if n := utf8.RuneCountInString(got); n > maxSubject || !utf8.ValidString(got) {
				t.Errorf("%d characters, valid %v", n, utf8.ValidString(got))
			}
		})
	}
}

func TestCommitMessage(t *testing.T) {
	in := protocol.InputMessage{ThreadID: "t", SessionID: "s", CommandID: "c", UserID: "u", Instruction: "Do it.\n\nWith care.\n"}
	trailers := "Thread-Id: t\nSession-Id: s\nCommand-Id: c\nUser: u\n"
	many := make([]string, 51)
	for i := range many {
		many[i] = "f"
	}
	tests := []struct {
		name  string
		files []string
		want  string
	}{
		{"one file", []string{"a.html"}, "- a.html\n"},
		{"a name that is not UTF-8", []string{"a\xff"}, "- a�\n"},
		{"50 files", many[:50], strings.Repeat("- f\n", 50)},
		{"51 files", many, strings.Repeat("- f\n", 50) + "- and more\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := "Do it.\n\nDo it.\n\nWith care.\n\nFiles:\n" + tt.want + "\n" + trailers
			if d := cmp.Diff(want, commitMessage(in, tt.files)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	want := "WIP: Do it.\n\nDo it.\n\nWith care.\n\nThread-Id: t\nSession-Id: s\nWip-For: c\nUser: u\n"
	if d := cmp.Diff(want, wipMessage(in)(nil)); d != "" {
		t.Errorf("message of unfinished work (-want +got):\n%s", d)
	}
}
