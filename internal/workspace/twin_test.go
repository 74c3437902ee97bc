package workspace_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/workspace"
)

// isTwin is what the handler's would be for the command c1.
func isTwin(message string) bool { return strings.HasSuffix(message, "\n\nCommand-Id: c1\n") }

func twins(sha string) workspace.PushRequest {
	return workspace.PushRequest{SHA: sha, CommandID: "c1", IsTwin: isTwin}
}

// TestTwinIsKept: a worker that was frozen has pushed the same command, and somebody
// went on from there. To do it again, after a crash, changes nothing.
func TestTwinIsKept(t *testing.T) {
	tests := map[string]struct {
		ours map[string]string
		side bool
	}{
		"ours has more":     {map[string]string{"style.css": "a{color:blue}\n", "more.txt": "x"}, true},
		"ours is different": {map[string]string{"style.css": "a{color:navy}\n"}, true},
		"ours is the same":  {map[string]string{"style.css": "a{color:blue}\n"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			w := f.open(f.request("1", "c1"))
			for file, content := range tt.ours {
				f.write(w, file, content)
			}
			c := f.commit(w, "blue")
			twin := f.Commit(t, "site.git", "thread-1", "blue\n\nCommand-Id: c1", map[string]string{"style.css": "a{color:blue}\n"})
			theirs := f.Commit(t, "site.git", "thread-1", "external", map[string]string{"other.txt": "x"})
			want := workspace.Push{SHA: theirs, Twin: twin}
			if tt.side {
				want.Side = "thread-1-conflict-c1"
			}
			for range 2 {
				got, err := w.Push(t.Context(), twins(c.SHA))
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				if w = f.open(f.request("1", "c1")); w.Head() != theirs {
					t.Error("the thread does not continue from the remote's head")
				}
				if has, err := w.Contains(t.Context(), c.SHA); err != nil || !has {
					t.Errorf("our commit is lost: %v, %v", has, err)
				}
			}
			if f.remote("rev-parse", "thread-1") != theirs {
				t.Error("the branch moved")
			}
			if got := f.remote("for-each-ref", "--format=%(objectname)", "refs/heads/thread-1-conflict-*"); tt.side != (got == c.SHA) {
				t.Errorf("beside the branch is %q, ours is %s", got, c.SHA)
			}
		})
	}
}

// TestOurOwnCommitIsNoTwin: what counts is new at the remote. An agent may have had
// a commit of ours say anything.
func TestOurOwnCommitIsNoTwin(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c0"))
	f.write(w, "a.txt", "a")
	forged, err := w.Commit(t.Context(), workspace.CommitRequest{Message: func([]string) string { return "a\n\nCommand-Id: c1\n" }})
	if err != nil {
		t.Fatal(err)
	}
	f.push(w, forged.SHA)
	w = f.open(f.request("1", "c1"))
	f.write(w, "b.txt", "b")
	c := f.commit(w, "b")
	f.Commit(t, "site.git", "thread-1", "external", map[string]string{"other.txt": "x"})
	p, err := w.Push(t.Context(), twins(c.SHA))
	if err != nil || p.Twin != "" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if got := f.remote("show", "thread-1:b.txt"); got != "b" {
		t.Errorf("the branch has %q", got)
	}
}

// TestConflictCutByACrash: our commit is not lost when the thread has gone on
// without it.
func TestConflictCutByACrash(t *testing.T) {
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	f.write(w, "style.css", "a{color:blue}\n")
	c := f.commit(w, "blue")
	f.Commit(t, "site.git", "thread-1", "external", map[string]string{"style.css": "a{color:red}\n"})
	for range 2 {
		if _, err := w.Push(t.Context(), workspace.PushRequest{SHA: c.SHA, CommandID: "c1"}); err == nil {
			t.Fatal("no conflict")
		}
		w = f.open(f.request("1", "c1"))
		if has, err := w.Contains(t.Context(), c.SHA); err != nil || !has {
			t.Errorf("our commit is lost: %v, %v", has, err)
		}
	}
}
