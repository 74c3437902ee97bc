package middleware

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable makes foreign text fit for a log line and a message attribute: one
// line of valid UTF-8, at most limit bytes, without the characters that terminals
// obey, that turn text around, or that SQS refuses.
func printable(s string, limit int) string {
	s = strings.ToValidUTF8(clip(s, limit), "\uFFFD")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == 0xFFFE, r == 0xFFFF:
			return utf8.RuneError
		}
		return r
	}, s)
	return strings.TrimSpace(clip(s, limit)) // a replacement is longer than what it replaces
}

// clip cuts a text to at most limit bytes, between two runes.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
