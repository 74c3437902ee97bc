package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// examineBody refuses what the model's service would do by itself: run tools, and
// fetch what an address leads to.
func examineBody(parts map[string]json.RawMessage) *refusal {
	if refused := examineTools(parts); refused != nil {
		return refused
	}
	if refused := examineContent(parts["system"], 0); refused != nil {
		return refused
	}
	messages, err := list(parts["messages"])
	if err != nil {
		return invalid("messages is no list")
	}
	for _, raw := range messages {
		m, err := members(raw)
		if err != nil {
			return invalid("a message is not an object with each name once")
		}
		if refused := examineContent(m["content"], 0); refused != nil {
			return refused
		}
	}
	return nil
}

// maxDepth is how deep contents lie in each other: a picture in a document in the
// result of a tool.
const maxDepth = 4

// examineContent refuses pictures and documents that the service would fetch. A
// content is a text or a list of blocks.
func examineContent(raw json.RawMessage, depth int) *refusal {
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	blocks, err := list(raw)
	if err != nil || depth == maxDepth {
		return invalid("contents lie too deep in each other")
	}
	for _, raw := range blocks {
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
			if refused := examineContent(source["content"], depth+1); refused != nil {
				return refused
			}
		}
		if refused := examineContent(block["content"], depth+1); refused != nil {
			return refused
		}
	}
	return nil
}

// examineTools refuses tools of the service. Those of the caller's own have no
// type, or the type custom.
func examineTools(parts map[string]json.RawMessage) *refusal {
	for _, name := range []string{"mcp_servers", "container"} {
		if v := parts[name]; !isNone(v) {
			return invalid(name + " are not allowed")
		}
	}
	tools, err := list(parts["tools"])
	if err != nil {
		return invalid("tools is no list")
	}
	for _, raw := range tools {
		tool, err := members(raw)
		if err != nil {
			return invalid("a tool is not an object with each name once")
		}
		var kind string
		if t := tool["type"]; !isNone(t) && json.Unmarshal(t, &kind) != nil || kind != "" && kind != "custom" {
			return invalid("tools of the model's service are not allowed")
		}
	}
	return nil
}

// isNone reports whether a value is absent, null or an empty list.
func isNone(v json.RawMessage) bool {
	v = bytes.TrimSpace(v)
	return len(v) == 0 || bytes.Equal(v, []byte("null")) || len(v) >= 2 && v[0] == '[' && len(bytes.TrimSpace(v[1:len(v)-1])) == 0
}

// list returns the elements of a list; none if there is none.
func list(raw json.RawMessage) ([]json.RawMessage, error) {
	if isNone(raw) {
		return nil, nil
	}
	var all []json.RawMessage
	err := json.Unmarshal(raw, &all)
	return all, err
}

// members returns the members of a JSON object. Names count as they are, case and
// all, and each may be there once: the service must not read another value than
// was looked at here.
func members(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("no object")
	}
	all := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil || !ok {
			return nil, errors.New("no member")
		}
		if _, again := all[name]; again {
			return nil, errors.New("a name twice")
		}
		all[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than an object")
	}
	return all, nil
}
