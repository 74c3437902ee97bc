package middleware

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	tests := []struct {
		name, in string
		limit    int
		want     string
	}{
		{"plain", "as it is: é 🍞", 64, "as it is: é 🍞"},
		{"lines", " one\r\n\ttwo\u2028three ", 64, "one   two three"},
		{"terminal escape", "\x1b[31mred\x07", 64, "\uFFFD[31mred\uFFFD"},
		{"one-byte escape", "\u009b31mred", 64, "\uFFFD31mred"},
		{"turned around", "abc\u202Efdp.exe", 64, "abc\uFFFDfdp.exe"},
		{"refused by SQS", "a\uFFFEb\uFFFFc\x00d", 64, "a\uFFFDb\uFFFDc\uFFFDd"},
		{"not UTF-8", "a\xffb", 64, "a\uFFFDb"},
		{"cut between runes", "ééé", 5, "éé"},
		{"replacements are longer", "\x00\x00\x00", 3, "\uFFFD"},
		{"nothing left", " \n\t", 64, ""},
		{"no room", "abc", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := printable(tt.in, tt.limit); got != tt.want {
				t.Errorf("printable(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain", 3)
	f.Add("\x1b[2J\xff\u202E\uFFFF é", 7)
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit = max(limit, 0) % 4096
		got := printable(in, limit)
		if len(got) > limit {
			t.Errorf("%d bytes, limit %d", len(got), limit)
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
		// What SQS takes, less line ends and tabs.
		if i := strings.IndexFunc(got, func(r rune) bool {
			return r < ' ' || r == 0xFFFE || r == 0xFFFF || r >= 0x7F && r <= 0x9F
		}); i >= 0 {
			t.Errorf("%q has a refused character at %d", got, i)
		}
		if again := printable(got, limit); again != got {
			t.Errorf("not stable: %q, then %q", got, again)
		}
	})
}
