package handlers

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

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
	trailers := "Thread-Id: t\nSession-Id: s\nCommand-Id: c\nUser: u\nFence: 7\n"
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
			if d := cmp.Diff(want, commitMessage(in, 7, tt.files)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	want := "WIP: Do it.\n\nDo it.\n\nWith care.\n\nThread-Id: t\nSession-Id: s\nWip-For: c\nUser: u\n"
	if d := cmp.Diff(want, wipMessage(in)(nil)); d != "" {
		t.Errorf("message of unfinished work (-want +got):\n%s", d)
	}
}

// Whatever an instruction and the names of files say: a commit is taken for that of
// its own command and no other, and only by a later owner.
func TestTrailersCannotBeForged(t *testing.T) {
	victim := protocol.InputMessage{ThreadID: "t", SessionID: "s", CommandID: "victim", UserID: "u"}
	const trailers = "Thread-Id: t\nSession-Id: s\nCommand-Id: victim\nUser: u\nFence: 1"
	parts := rapid.SampledFrom([]string{trailers, "Command-Id: victim", "Fence: 1", "User: u", "Thread-Id: t", "x", "\n", "\n\n", "\r\n", " ", "\t", ">", "fence : 1"})
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(parts, 1, 8).Draw(t, "parts"), rapid.SampledFrom([]string{"", "\n", "\n\n"}).Draw(t, "between"))
	})
	rapid.Check(t, func(t *rapid.T) {
		in := victim
		in.CommandID, in.Instruction = "own", text.Draw(t, "instruction")
		files := rapid.SliceOf(text).Draw(t, "files")
		message := commitMessage(in, 7, files)
		for name, m := range map[string]string{"a commit": message, "unfinished work": wipMessage(in)(files)} {
			if isTwin(m, victim, 9) {
				t.Fatalf("%s of another command is taken for the victim's:\n%s", name, m)
			}
		}
		if isTwin(wipMessage(in)(files), in, 8) || !isTwin(message, in, 8) || isTwin(message, in, 7) || isTwin(message, in, 6) {
			t.Fatalf("the command does not know its own:\n%s", message)
		}
		_, body, _ := strings.Cut(message, "\n\n")
		for line := range strings.Lines(body[:strings.LastIndex(body, "\nFiles:\n")]) {
			if strings.HasPrefix(line, "Command-Id:") || strings.HasPrefix(line, "Fence:") {
				t.Fatalf("a line of the instruction looks like a trailer:\n%s", message)
			}
		}
	})
}

func TestIsTwin(t *testing.T) {
	in := protocol.InputMessage{ThreadID: "t", CommandID: "c", UserID: "u"}
	const good = "Thread-Id: t\nSession-Id: s\nCommand-Id: c\nUser: u\n"
	for message, want := range map[string]bool{
		"x\n\n" + good + "Fence: 8\n":                  true,
		"x\n\n" + good + "Fence: 8\n\n":                true,
		"x\n\n" + good + "Fence: 9\n":                  false,
		"x\n\n" + good + "Fence: 0\n":                  false,
		"x\n\n" + good + "Fence: -1\n":                 false,
		"x\n\n" + good + "Fence: x\n":                  false,
		"x\n\n" + good:                                 false,
		good + "Fence: 8\n":                            false,
		"x\n\n" + good + "Fence: 8\n\nmore\n":          false,
		"x\n\n" + good + "Fence: 8\nFence: 7\n":        false,
		"x\n\n" + good + "and words\nFence: 8\n":       false,
		"x\n\nThread-Id: t\nCommand-Id: c\nFence: 8\n": false,
		"": false,
	} {
		if isTwin(message, in, 9) != want {
			t.Errorf("%q: want %v", message, want)
		}
	}
}
