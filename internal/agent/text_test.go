package agent

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	tests := map[string]string{
		"plain\n\ttext · 日本":         "plain\n\ttext · 日本",
		"\x1b[31mred\x1b[0m":         "red",
		"\x1b]0;title\x07after":      "after",
		"\x1b]8;;http://x\x1b\\link": "link",
		"\x1b]never closed":          "never closed",
		"\x1bc\x1b":                  "c",
		"\x1b[":                      "",
		"a\r\x00\x08\x7fb":           "ab",
		"\u009b31mx":                 "31mx",
		"\xffx":                      "\uFFFDx",
	}
	for in, want := range tests {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b]x\x07\x1bP")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x00\x07\r\u009b") {
			t.Errorf("%q became %q", s, got)
		}
		if again := clean(got); again != got {
			t.Errorf("%q became %q, then %q", s, got, again)
		}
	})
}

func TestRedact(t *testing.T) {
	got := redact("a TOKEN b sk-ant-api03_x-Y9, TOKEN sk-ant-", "TOKEN", "")
	if want := "a [redacted] b [redacted], [redacted] [redacted]"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestClipAndTail(t *testing.T) {
	const s = "aäö" // 1 + 2 + 2 bytes
	for n, want := range []struct{ clip, tail string }{{"", ""}, {"a", ""}, {"a", "ö"}, {"aä", "ö"}, {"aä", "äö"}, {s, s}, {s, s}} {
		if got := clip(s, n); got != want.clip {
			t.Errorf("clip %d: %q", n, got)
		}
		if got := tail(s, n); got != want.tail {
			t.Errorf("tail %d: %q", n, got)
		}
	}
}
