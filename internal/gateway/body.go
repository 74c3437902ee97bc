package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
)

// What is looked at is bounded: a body may hold a million of "{}", each of which
// takes many times its size, and some time.
const (
	maxParts   = 100_000 // elements of lists; the service takes as many messages
	maxMembers = 1000    // of an object
	// maxDepth is how deep contents lie in each other: a picture in a document in
	// the result of a tool.
	maxDepth = 4
)

// examination looks at one body. It refuses what the model's service would do by
// itself: run tools, and fetch what an address leads to.
type examination struct{ parts int }

func examineBody(parts map[string]json.RawMessage) *refusal {
	var e examination
	if refused := e.tools(parts); refused != nil {
		return refused
	}
	if refused := e.content(parts["system"], 0); refused != nil {
		return refused
	}
	return e.each("messages", parts["messages"], func(raw json.RawMessage) *refusal {
		m, err := members(raw)
		if err != nil {
			return invalid("a message is not an object with each name once")
		}
		return e.content(m["content"], 0)
	})
}

// each looks at the elements of a list, one after the other; there may be none.
func (e *examination) each(name string, raw json.RawMessage, look func(json.RawMessage) *refusal) *refusal {
	if isNone(raw) {
		return nil
	}
	if raw[0] != '[' {
		return invalid(name + " is no list")
	}
	for element := range items(raw) {
		if e.parts++; e.parts > maxParts {
			return invalid("there are too many messages, parts of them, and tools")
		}
		if refused := look(element); refused != nil {
			return refused
		}
	}
	return nil
}

// content refuses pictures and documents that the service would fetch. A content is
// a text or a list of blocks.
func (e *examination) content(raw json.RawMessage, depth int) *refusal {
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	if depth == maxDepth {
		return invalid("contents lie too deep in each other")
	}
	return e.each("content", raw, func(raw json.RawMessage) *refusal {
		block, err := members(raw)
		if err != nil {
			return invalid("a part of a message is not an object with each name once")
		}
		if s := block["source"]; len(s) > 0 && s[0] == '{' {
			source, err := members(s)
			var kind string
			if err != nil || json.Unmarshal(source["type"], &kind) != nil || kind != "base64" && kind != "text" && kind != "content" {
				return invalid("pictures and documents must be in the message")
			}
			if refused := e.content(source["content"], depth+1); refused != nil {
				return refused
			}
		}
		return e.content(block["content"], depth+1)
	})
}

// tools refuses those of the service. Those of the caller's own have no type, or the
// type custom.
func (e *examination) tools(parts map[string]json.RawMessage) *refusal {
	for _, name := range []string{"mcp_servers", "container"} {
		if v := parts[name]; !isNone(v) {
			return invalid(name + " are not allowed")
		}
	}
	return e.each("tools", parts["tools"], func(raw json.RawMessage) *refusal {
		tool, err := members(raw)
		if err != nil {
			return invalid("a tool is not an object with each name once")
		}
		var kind string
		if t := tool["type"]; !isNone(t) && json.Unmarshal(t, &kind) != nil || kind != "" && kind != "custom" {
			return invalid("tools of the model's service are not allowed")
		}
		return nil
	})
}

// isNone reports whether a value is absent, null or an empty list.
func isNone(v json.RawMessage) bool {
	v = bytes.TrimSpace(v)
	return len(v) == 0 || bytes.Equal(v, []byte("null")) || len(v) >= 2 && v[0] == '[' && len(bytes.TrimSpace(v[1:len(v)-1])) == 0
}

// members returns the members of a valid JSON object, which are not copied. Names
// count as they are, case and all, and each may be there once: the service must not
// read another value than was looked at here.
func members(raw json.RawMessage) (map[string]json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] != '{' {
		return nil, errors.New("no object")
	}
	all := map[string]json.RawMessage{}
	for item := range items(raw) {
		end := 1 + endOfText(item[1:])
		var name string
		if err := json.Unmarshal(item[:end], &name); err != nil {
			return nil, err
		}
		if _, again := all[name]; again {
			return nil, errors.New("a name twice")
		}
		if len(all) == maxMembers {
			return nil, errors.New("too many names")
		}
		all[name] = bytes.TrimSpace(bytes.TrimSpace(item[end:])[1:]) // behind the colon
	}
	return all, nil
}

// items cuts a valid JSON object or list at the commas that are its own.
func items(raw json.RawMessage) iter.Seq[json.RawMessage] {
	return func(yield func(json.RawMessage) bool) {
		inner := raw[1 : len(raw)-1]
		depth, from := 0, 0
		for i := 0; i < len(inner); i++ {
			switch inner[i] {
			case '"':
				i += endOfText(inner[i+1:])
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			case ',':
				if depth > 0 {
					continue
				}
				if !yield(bytes.TrimSpace(inner[from:i])) {
					return
				}
				from = i + 1
			}
		}
		if last := bytes.TrimSpace(inner[from:]); len(last) > 0 {
			yield(last)
		}
	}
}

// endOfText is the length of a text in JSON behind its first quotation mark, with
// the last one.
func endOfText(raw []byte) int {
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}
