package agent

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes a text of foreign origin fit for a log or a screen: valid UTF-8
// without terminal escapes and without control characters but newline and tab.
func clean(s string) string {
	var b strings.Builder
	s = strings.ToValidUTF8(s, "\uFFFD")
	for s != "" {
		if n := escape(s); n > 0 {
			s = s[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// escape returns the length of the terminal escape that s begins with, 0 if it
// begins with none: ESC [ ... letter, ESC ] ... BEL or ESC \, ESC and one more.
func escape(s string) int {
	if s[0] != 0x1b {
		return 0
	}
	if len(s) == 1 {
		return 1
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']', 'P', '_', '^':
		if i := strings.IndexByte(s, 0x07); i >= 0 {
			return i + 1
		}
		if i := strings.Index(s, "\x1b\\"); i >= 0 {
			return i + 2
		}
		return 2
	}
	return 1
}

// redact takes secrets out of a text: those given, and whatever looks like a key
// of the model's service.
func redact(s string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	const prefix = "sk-ant-"
	for {
		i := strings.Index(s, prefix)
		if i < 0 {
			return s
		}
		end := i + len(prefix)
		for end < len(s) && (s[end] == '-' || s[end] == '_' || isAlphanumeric(s[end])) {
			end++
		}
		s = s[:i] + "[redacted]" + s[end:]
	}
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// clip cuts a text to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// tail is the last n bytes of a text, between characters.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}
