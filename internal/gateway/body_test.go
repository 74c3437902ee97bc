package gateway

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyValue draws a value of JSON.
func anyValue(t *rapid.T, depth int) any {
	kinds := 6
	if depth == 0 {
		kinds = 4
	}
	text := rapid.StringMatching(`[a-c"\\,:\[\]{}\n é]{0,6}`)
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Float64Range(-1e9, 1e9).Draw(t, "number")
	case 2:
		return rapid.Bool().Draw(t, "bool")
	case 3:
		return text.Draw(t, "text")
	case 4:
		list := make([]any, rapid.IntRange(0, 4).Draw(t, "length"))
		for i := range list {
			list[i] = anyValue(t, depth-1)
		}
		return list
	}
	object := map[string]any{}
	for range rapid.IntRange(0, 4).Draw(t, "length") {
		object[text.Draw(t, "name")] = anyValue(t, depth-1)
	}
	return object
}

// TestMembersAreThoseOfJSON compares what is cut here with what encoding/json finds.
func TestMembersAreThoseOfJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, err := json.Marshal(anyValue(t, 3))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indented") {
			var b bytes.Buffer
			if err := json.Indent(&b, raw, " \t", "\r\n "); err != nil {
				t.Fatal(err)
			}
			raw = b.Bytes()
		}
		var object map[string]json.RawMessage
		isObject := raw[0] == '{' && json.Unmarshal(raw, &object) == nil
		got, err := members(raw)
		if (err == nil) != isObject || isObject && cmp.Diff(object, got) != "" {
			t.Fatalf("members of %s: %s, %v", raw, got, err)
		}
		var list []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
			return
		}
		var elements []json.RawMessage
		for e := range items(raw) {
			elements = append(elements, e)
		}
		if len(list) != len(elements) || len(list) > 0 && cmp.Diff(list, elements) != "" {
			t.Fatalf("elements of %s: %s", raw, elements)
		}
	})
}
