package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const summary = `receipts: one bread for order-1
receipts: one cake for order-2
orders_dead: stones for order-3, attempts 1: nobody bakes stones
orders_dead: pie for order-4, attempts 1: panic (string): the oven is gone
`

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfterN(out.String(), "\n", 5)
	if diff := cmp.Diff(summary, lines[len(lines)-1]); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	var got []string
	for _, line := range lines[:len(lines)-1] {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, fmt.Sprintln(m["correlation_id"], m["handler"], m["topic"], m["outcome"], m["failure"], m["attempt"], m["produced"]))
	}
	want := []string{
		"order-1 bake orders ok <nil> 1 1\n",
		"order-2 bake orders ok <nil> 2 1\n",
		"order-3 bake orders poisoned permanent 1 0\n",
		"order-4 bake orders poisoned panic 1 0\n",
	}
	slices.Sort(got) // a line may come after that of the next order
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}
