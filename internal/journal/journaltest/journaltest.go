// Package journaltest is the conformance suite of [journal.Store]. Every store
// passes it.
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// Harness is one store under test.
type Harness struct {
	// Open opens the store anew; what was put through an earlier one is there.
	Open func(t *testing.T) journal.Store
	// Take makes somebody the new owner of a project's claim and returns the
	// fence that owner writes under.
	Take func(t *testing.T, projectKey string) journal.Fence
	// Now is the store's clock.
	Now func() time.Time
}

// Run runs the suite. It calls newHarness once per test.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"GetMissing":           getMissing,
		"PutThenGet":           putThenGet,
		"PutReplaces":          putReplaces,
		"DurableAcrossOpen":    durable,
		"ExpiredIsMissing":     expired,
		"OldFenceIsRefused":    oldFence,
		"NoClaimIsRefused":     noClaim,
		"OtherProjectsFence":   otherProject,
		"CancelledContext":     cancelled,
		"KeysDoNotCollide":     keys,
		"LargeRecord":          large,
		"ConcurrentPutsAreOne": concurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, newHarness(t)) })
	}
}

func (h Harness) record(key, body string) journal.Record {
	return journal.Record{Key: key, Body: []byte(body), Expires: h.Now().Add(time.Hour).UTC().Truncate(time.Second)}
}

func put(t *testing.T, s journal.Store, r journal.Record, f journal.Fence) {
	t.Helper()
	if err := s.Put(t.Context(), r, f); err != nil {
		t.Fatalf("Put(%s): %v", r.Key, err)
	}
}

func want(t *testing.T, s journal.Store, r journal.Record) {
	t.Helper()
	got, err := s.Get(t.Context(), r.Key)
	if err != nil {
		t.Fatalf("Get(%s): %v", r.Key, err)
	}
	if d := cmp.Diff(r, got); d != "" {
		t.Fatalf("Get(%s) (-want +got):\n%s", r.Key, d)
	}
}

func wantMissing(t *testing.T, s journal.Store, key string) {
	t.Helper()
	if r, err := s.Get(t.Context(), key); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("Get(%s) = %v, %v; want ErrNotFound", key, r, err)
	}
}

func getMissing(t *testing.T, h Harness) { wantMissing(t, h.Open(t), "cmd#a#b#1") }

func putThenGet(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	r := h.record("cmd#a#b#1", "one \x00 \xff bytes are bytes")
	put(t, s, r, f)
	want(t, s, r)
}

func putReplaces(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	put(t, s, h.record("k", "a long first body"), f)
	second := h.record("k", "two")
	put(t, s, second, f)
	want(t, s, second)
}

func durable(t *testing.T, h Harness) {
	f := h.Take(t, "a#b")
	r := h.record("k", "kept")
	put(t, h.Open(t), r, f)
	want(t, h.Open(t), r)
}

func expired(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	r := h.record("k", "old")
	r.Expires = h.Now().Add(-time.Second)
	put(t, s, r, f)
	wantMissing(t, s, "k")
	wantMissing(t, h.Open(t), "k")
}

func oldFence(t *testing.T, h Harness) {
	s, old := h.Open(t), h.Take(t, "a#b")
	r := h.record("k", "by the old owner")
	put(t, s, r, old)
	fresh := h.Take(t, "a#b")
	if fresh.Number <= old.Number {
		t.Fatalf("fence did not grow: %d then %d", old.Number, fresh.Number)
	}
	if err := s.Put(t.Context(), h.record("k", "by a ghost"), old); !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("Put under the old fence: %v; want ErrFenced", err)
	}
	want(t, s, r)
	r = h.record("k", "by the new owner")
	put(t, s, r, fresh)
	want(t, s, r)
}

func noClaim(t *testing.T, h Harness) {
	s := h.Open(t)
	err := s.Put(t.Context(), h.record("k", "x"), journal.Fence{ProjectKey: "never#claimed", Number: 7})
	if !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("Put without a claim: %v; want ErrFenced", err)
	}
	wantMissing(t, s, "k")
}

func otherProject(t *testing.T, h Harness) {
	s, a := h.Open(t), h.Take(t, "a#b")
	h.Take(t, "c#d")
	h.Take(t, "c#d")
	put(t, s, h.record("k", "a new owner elsewhere changes nothing here"), a)
}

func cancelled(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, h.record("k", "x"), f); !errors.Is(err, context.Canceled) {
		t.Fatalf("Put with a cancelled context: %v", err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Fatalf("Get with a cancelled context: %v", err)
	}
}

func keys(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	odd := []string{"a", "A", "a/b", "a#b", "../a", "a\x01", "é", "é", strings.Repeat("k", 1000), strings.Repeat("k", 1001)}
	var records []journal.Record
	for _, k := range odd {
		r := h.record(k, "body of "+k)
		put(t, s, r, f)
		records = append(records, r)
	}
	for _, r := range records {
		want(t, s, r)
	}
}

func large(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	r := h.record("k", "")
	r.Body = bytes.Repeat([]byte{0, 'x', 0xff, '"'}, 350*1000/4)
	put(t, s, r, f)
	want(t, s, r)
}

func concurrent(t *testing.T, h Harness) {
	s, f := h.Open(t), h.Take(t, "a#b")
	bodies := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 8 {
		body := strings.Repeat(fmt.Sprint(i), 10_000)
		bodies[body] = true
		wg.Go(func() {
			if err := s.Put(t.Context(), h.record("k", body), f); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	got, err := s.Get(t.Context(), "k")
	if err != nil || !bodies[string(got.Body)] {
		t.Fatalf("Get after concurrent puts: %d bytes, %v; want one of the bodies whole", len(got.Body), err)
	}
}
