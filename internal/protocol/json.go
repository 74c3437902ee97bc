package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// readObject reads exactly one JSON object, of which no field comes twice:
// readers disagree on which of two counts. Names of fields are compared as they
// are, not in any case as encoding/json would.
func readObject(body []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	switch open, err := dec.Token(); {
	case errors.Is(err, io.EOF):
		return nil, &DecodeError{Reason: "it is empty"}
	case err != nil:
		return nil, syntaxError(dec)
	case open != json.Delim('{'):
		return nil, &DecodeError{Reason: "it is not a JSON object"}
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, syntaxError(dec)
		}
		name, ok := key.(string)
		if !ok {
			return nil, syntaxError(dec)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, syntaxError(dec)
		}
		if _, twice := fields[name]; twice {
			return nil, &DecodeError{Reason: "a field comes twice"}
		}
		fields[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, syntaxError(dec)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &DecodeError{Reason: "something follows the JSON object"}
	}
	return fields, nil
}

// syntaxError says where, not what: the decoder's own text would show it.
func syntaxError(dec *json.Decoder) error {
	return &DecodeError{Reason: fmt.Sprintf("it is not JSON, or nested too deep, near byte %d", dec.InputOffset())}
}

// wellFormed reports whether a JSON string is text. encoding/json replaces what
// is not without a word: bytes that are no UTF-8, and the escape of one half of
// a surrogate pair, as a producer writes that cut a text within an emoji.
func wellFormed(raw []byte) bool {
	if !utf8.Valid(raw) {
		return false
	}
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return true
		}
		raw = raw[i:]
		r, ok := unicodeEscape(raw)
		switch {
		case !ok:
			raw = raw[min(2, len(raw)):] // \n, \\ and their like
			continue
		case utf16.IsSurrogate(r):
			raw = raw[escapeLen:]
			if low, ok := unicodeEscape(raw); !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
				return false
			}
		}
		raw = raw[escapeLen:]
	}
	return true
}

const escapeLen = len(`\u0000`)

// unicodeEscape returns the value of the \u escape that raw begins with.
func unicodeEscape(raw []byte) (rune, bool) {
	if len(raw) < escapeLen || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(raw[2:escapeLen]), 16, 16)
	return rune(v), err == nil
}

// marshal is json.Marshal without the escapes that HTML would need, and with
// those that SQS needs: it takes no body with U+FFFE or U+FFFF as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	body := bytes.ReplaceAll(b.Bytes(), []byte("\ufffe"), []byte(`\ufffe`))
	body = bytes.ReplaceAll(body, []byte("\uffff"), []byte(`\uffff`))
	return slices.Clip(bytes.TrimSuffix(body, []byte("\n"))), nil
}
