package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/journal"
)

func newJournal(t *testing.T, fence *int64) *journal.Journal {
	t.Helper()
	d, err := journal.NewDirectory(journal.DirectoryConfig{
		Root:    t.TempDir(),
		Current: func(context.Context, string) (int64, error) { return *fence, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &journal.Journal{Store: d}
}

func TestJournalEntry(t *testing.T) {
	fence := int64(3)
	j := newJournal(t, &fence)
	var wrote []journal.Mark
	j.Wrote = func(m journal.Mark) { wrote = append(wrote, m) }
	if _, ok, err := j.Load(t.Context(), "a#b", "c1"); ok || err != nil {
		t.Fatalf("Load of an unknown command: %v, %v", ok, err)
	}
	e := journal.Entry{ProjectKey: "a#b", CommandID: "c1", Attempt: 1, Output: []byte("{\"é\":1}")}
	e.Add(journal.Opened)
	e.Add(journal.Agent)
	e.Add(journal.Agent)
	if err := j.Save(t.Context(), &e, journal.Fence{ProjectKey: "a#b", Number: 3}); err != nil {
		t.Fatal(err)
	}
	got, ok, err := j.Load(t.Context(), "a#b", "c1")
	if !ok || err != nil {
		t.Fatalf("Load: %v, %v", ok, err)
	}
	if d := cmp.Diff(e, got); d != "" {
		t.Fatalf("entry (-saved +loaded):\n%s", d)
	}
	if d := cmp.Diff([]journal.Mark{journal.Agent}, wrote); d != "" {
		t.Fatalf("Wrote (-want +got):\n%s", d)
	}
	fence = 4
	if err := j.Save(t.Context(), &e, journal.Fence{ProjectKey: "a#b", Number: 3}); !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("Save by a former owner: %v; want ErrFenced", err)
	}
}

// Two commands of one id in two projects are two commands.
func TestJournalKeysAreApart(t *testing.T) {
	fence := int64(1)
	j := newJournal(t, &fence)
	for _, key := range []string{"a#b", "a#b#c"} {
		e := journal.Entry{ProjectKey: key, CommandID: "c1", ThreadID: key}
		if err := j.Save(t.Context(), &e, journal.Fence{ProjectKey: key, Number: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a#b", "a#b#c"} {
		if e, _, err := j.Load(t.Context(), key, "c1"); err != nil || e.ThreadID != key {
			t.Fatalf("Load(%s) = %q, %v", key, e.ThreadID, err)
		}
	}
}

func TestRestartKeepsWhatIsKnown(t *testing.T) {
	e := journal.Entry{
		ProjectKey: "a#b", CommandID: "c1", Digest: "d", Seen: []string{"m1"}, Attempt: 1, Tries: 3, Runs: 2,
		Commit: "abc", Interrupted: true, Done: []journal.Mark{journal.Agent, journal.DeadLettered}, Output: []byte("x"),
	}
	e.Restart()
	want := journal.Entry{ProjectKey: "a#b", CommandID: "c1", Digest: "d", Seen: []string{"m1"}, Attempt: 2}
	if d := cmp.Diff(want, e); d != "" {
		t.Fatalf("Restart (-want +got):\n%s", d)
	}
}

func ExampleJournal() {
	root, err := os.MkdirTemp("", "journal")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root) //nolint:errcheck // a temporary directory
	store, err := journal.NewDirectory(journal.DirectoryConfig{
		Root:    root,
		Current: func(context.Context, string) (int64, error) { return 7, nil }, // from the claim row
	})
	if err != nil {
		panic(err)
	}
	j := journal.Journal{Store: store}
	ctx, fence := context.Background(), journal.Fence{ProjectKey: "amelia#scott", Number: 7}

	e := journal.Entry{ProjectKey: "amelia#scott", CommandID: "cmd-1", Attempt: 1}
	e.Add(journal.Agent) // the agent ran…
	if err := j.Save(ctx, &e, fence); err != nil {
		panic(err)
	}
	again, found, err := j.Load(ctx, "amelia#scott", "cmd-1") // …and after a crash we know
	fmt.Println(found, err, again.Has(journal.Agent), again.Has(journal.Committed))
	// Output: true <nil> true false
}
