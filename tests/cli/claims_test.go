package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// claims is what `claims` prints for programs.
type claims struct {
	Claims []struct {
		Key, Container, Status string
		ClaimedAt              time.Time
		LeaseLeftMs            int64
		Stale                  bool
		Queue                  struct{ Waiting, InFlight int }
	}
	Requests struct{ Waiting int }
}

func TestClaimsShowsOwnersAndTakesProjectsFromThem(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: time.Minute})
	if out := w.well("claims"); out != "Nobody has a project.\n" {
		t.Errorf("claims prints %q", out)
	}
	first := w.StartWorker()
	c := w.Command(w.j, "t1", site.Add{Work: 20 * time.Second})
	w.Send(c)
	w.AwaitRun(c, "agent", patience)

	var now claims
	w.read(&now, "claims")
	if len(now.Claims) != 1 {
		t.Fatalf("claims %+v", now)
	}
	got := now.Claims[0]
	if got.Key != "amelia#scott" || got.Container != first.Name || got.Status != "active" || got.Stale || got.LeaseLeftMs <= 0 ||
		time.Since(got.ClaimedAt) > patience || got.Queue.InFlight != 1 {
		t.Errorf("claim %+v", got)
	}
	if l := line(w.well("claims"), "amelia#scott", first.Name, "active", "0 waiting, 1 in work"); l == "" {
		t.Errorf("claims prints\n%s", w.well("claims"))
	}

	// A living owner ends its job; the other worker does it.
	second := w.StartWorker()
	out := w.well("claims", "release", "amelia#scott", "--yes")
	if line(out, "amelia#scott was taken from "+first.Name) == "" || line(out, "claim request") == "" {
		t.Errorf("release prints\n%s", out)
	}
	w.await("the first worker gives up", func() bool { return strings.Contains(first.Log(), "lease") })
	w.AwaitAnswers(patience)
	if owner := w.Owner(w.j); owner != first && owner != second {
		t.Errorf("nobody has the project")
	}
	row, err := w.Row(w.j)
	if err != nil || row.Fence < 2 {
		t.Errorf("the row is %+v, %v", row, err)
	}
	w.fails("nobody has nobody#scott", "claims", "release", "nobody#scott", "--yes")
}

// TestReleaseAsks on a terminal, and does nothing unless the answer is yes.
func TestReleaseAsks(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	for _, tt := range []struct {
		typed string
		says  string
		code  int
	}{
		{"n\n", "amelia#scott was not released", 1},
		{"\n", "amelia#scott was not released", 1},
		{"sure\n", "amelia#scott was not released", 1},
		{"\x04", "amelia#scott was not released", 1}, // Ctrl-D
		{"\x03", "amelia#scott was not released", 1}, // Ctrl-C
		{"yes\n", "amelia#scott was taken from", 0},
		{" Y \n", "amelia#scott was taken from", 0},
	} {
		w.PutRow(w.j, "active", time.Now())
		before, err := w.Row(w.j)
		if err != nil {
			t.Fatal(err)
		}
		w.take(w.UnclaimedURL)
		shown, code := w.onTerminal("Release amelia#scott? [y/N] ", tt.typed, "claims", "release", "amelia#scott")
		if code != tt.code || !strings.Contains(shown, "Its owner lives") || !strings.Contains(shown, tt.says) {
			t.Errorf("after %q release ended with %d, want %d and %q:\n%s", tt.typed, code, tt.code, tt.says, shown)
		}
		after, err := w.Row(w.j)
		if err != nil {
			t.Fatal(err)
		}
		if tt.code != 0 && after != before || tt.code == 0 && after.Status != "releasing" {
			t.Errorf("after %q the row is %+v, and was %+v", tt.typed, after, before)
		}
		w.has(w.UnclaimedURL, 1-tt.code) // claim requests
	}

	// Who reads JSON, or is no person, is not asked.
	w.PutRow(w.j, "active", time.Now())
	w.fails("say --yes", "claims", "release", "amelia#scott")
	if shown, code := w.onTerminal("say --yes", "", "claims", "release", "amelia#scott", "--output", "json"); code != 1 {
		t.Errorf("release for programs ended with %d:\n%s", code, shown)
	}
	if row, err := w.Row(w.j); err != nil || row.Status != "active" {
		t.Errorf("the row is %+v, %v", row, err)
	}
}

func TestClaimsMarksTheStale(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: time.Minute, Lease: 3 * time.Second})
	worker := w.StartWorker()
	c := w.Command(w.j, "t1", site.Add{})
	w.Send(c)
	w.AwaitAnswers(patience)
	worker.Freeze()
	defer worker.Thaw()
	w.await("the claim is stale", func() bool {
		var now claims
		w.read(&now, "claims")
		return len(now.Claims) == 1 && now.Claims[0].Stale && now.Claims[0].LeaseLeftMs <= 0
	})
	out := w.well("claims")
	if line(out, "amelia#scott", "none", "active, stale") == "" || line(out, "1 claim stale") == "" {
		t.Errorf("claims prints\n%s", out)
	}
	if line(w.well("status", "amelia", "scott"), "claim", "stale") == "" {
		t.Error("status does not say that the claim is stale")
	}
}

func TestClaimsRequestAsksOnlyWhereNobodyIs(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	if out := w.well("claims", "request", "amelia#scott"); !strings.Contains(out, "was sent") {
		t.Error(out)
	}
	w.has(w.UnclaimedURL, 1)
	w.PutRow(w.j, "active", time.Now())
	if out := w.well("claims", "request", "amelia#scott"); !strings.Contains(out, "nothing was sent") {
		t.Error(out)
	}
	w.has(w.UnclaimedURL, 1)
}
