// Package claimtest is the conformance suite of [claim.Table]. Every table
// passes it.
package claimtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// Run runs the suite, each test against a table of its own.
func Run(t *testing.T, newTable func(t *testing.T) claim.Table) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, claim.Table){
		"GetMissing":      getMissing,
		"InsertOnce":      insertOnce,
		"ReplaceSeenOnly": replaceSeenOnly,
		"MissingIsMoved":  missingIsMoved,
		"Cancelled":       cancelled,
		"OneTakerWins":    oneTakerWins,
		"LiveRows":        liveRows,
		"ForeignRow":      foreignRow,
	} {
		t.Run(name, func(t *testing.T) { test(t, newTable(t)) })
	}
}

func row(fence, rev int64) claim.Row {
	at := time.UnixMilli(1_760_000_000_123).UTC()
	return claim.Row{
		ProjectKey: "amelia#scott", ContainerID: "c1", ClaimedAt: at, LastActivity: at.Add(time.Second),
		Status: claim.Active, Fence: fence, Rev: rev, Tenure: "t1", Expires: at.Add(time.Hour).Truncate(time.Second),
	}
}

func want(t *testing.T, table claim.Table, r claim.Row) {
	t.Helper()
	got, err := table.Get(t.Context(), r.ProjectKey)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got); d != "" {
		t.Fatalf("row (-want +got):\n%s", d)
	}
}

func getMissing(t *testing.T, table claim.Table) {
	if _, err := table.Get(t.Context(), "nobody#here"); !errors.Is(err, claim.ErrNoRow) {
		t.Fatalf("Get: %v; want ErrNoRow", err)
	}
}

func insertOnce(t *testing.T, table claim.Table) {
	first := row(5, 1)
	if err := table.Put(t.Context(), first, claim.Row{}); err != nil {
		t.Fatal(err)
	}
	if err := table.Put(t.Context(), row(5, 1), claim.Row{}); !errors.Is(err, claim.ErrMoved) {
		t.Fatalf("second insert: %v; want ErrMoved", err)
	}
	want(t, table, first)
}

func replaceSeenOnly(t *testing.T, table claim.Table) {
	if err := table.Put(t.Context(), row(5, 1), claim.Row{}); err != nil {
		t.Fatal(err)
	}
	released := row(5, 2)
	released.Status, released.ContainerID = claim.Released, ""
	if err := table.Put(t.Context(), released, row(5, 1)); err != nil {
		t.Fatal(err)
	}
	want(t, table, released)
	for _, stale := range []claim.Row{row(5, 1), row(4, 2), row(6, 2)} {
		if err := table.Put(t.Context(), row(7, 3), stale); !errors.Is(err, claim.ErrMoved) {
			t.Fatalf("Put over what is no longer there: %v; want ErrMoved", err)
		}
	}
	want(t, table, released)
}

func missingIsMoved(t *testing.T, table claim.Table) {
	if err := table.Put(t.Context(), row(5, 2), row(5, 1)); !errors.Is(err, claim.ErrMoved) {
		t.Fatalf("Put over a row that never was: %v; want ErrMoved", err)
	}
}

func cancelled(t *testing.T, table claim.Table) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := table.Put(ctx, row(5, 1), claim.Row{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Put: %v", err)
	}
	if _, err := table.Get(ctx, "amelia#scott"); !errors.Is(err, context.Canceled) {
		t.Fatalf("Get: %v", err)
	}
	if _, err := table.Live(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Live: %v", err)
	}
}

// liveRows: what names a container is listed, once written for a while.
func liveRows(t *testing.T, table claim.Table) {
	want := map[string]claim.Row{}
	for i, key := range []string{"a#b", "c#d", "e#f"} {
		r := row(int64(i+1), 1)
		r.ProjectKey = key
		if err := table.Put(t.Context(), r, claim.Row{}); err != nil {
			t.Fatal(err)
		}
		want[key] = r
	}
	released := want["c#d"]
	released.Rev, released.Status, released.ContainerID = 2, claim.Released, ""
	if err := table.Put(t.Context(), released, want["c#d"]); err != nil {
		t.Fatal(err)
	}
	delete(want, "c#d")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d := "not listed"; d != ""; {
		rows, err := table.Live(ctx)
		if err != nil {
			t.Fatalf("%v; at last (-want +got):\n%s", err, d)
		}
		got := map[string]claim.Row{}
		for _, r := range rows {
			got[r.ProjectKey] = r
		}
		if d = cmp.Diff(want, got); d != "" {
			<-tick.C
		}
	}
}

// foreignRow: one without rev, written by something else, is replaced only as it
// was seen.
func foreignRow(t *testing.T, table claim.Table) {
	foreign := row(0, 0)
	foreign.Tenure = ""
	if err := table.Put(t.Context(), foreign, claim.Row{}); err != nil {
		t.Fatal(err)
	}
	want(t, table, foreign)
	stale := foreign
	stale.LastActivity = foreign.LastActivity.Add(-time.Minute)
	for _, seen := range []claim.Row{stale, {}, row(5, 1)} {
		if err := table.Put(t.Context(), row(9, 1), seen); !errors.Is(err, claim.ErrMoved) {
			t.Fatalf("Put over what is no longer there: %v; want ErrMoved", err)
		}
	}
	if err := table.Put(t.Context(), row(9, 1), foreign); err != nil {
		t.Fatal(err)
	}
	if err := table.Put(t.Context(), row(10, 1), foreign); !errors.Is(err, claim.ErrMoved) {
		t.Fatalf("Put over a row that has a rev by now: %v; want ErrMoved", err)
	}
	want(t, table, row(9, 1))
}

func oneTakerWins(t *testing.T, table claim.Table) {
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch err := table.Put(t.Context(), row(5, 1), claim.Row{}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, claim.ErrMoved):
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Fatalf("%d takers won", n)
	}
}
