package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// TestTwinIsAnswered: a worker that was frozen pushes the command late, and its
// commit is the command's.
func TestTwinIsAnswered(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{true, false} {
		t.Run(fmt.Sprint("older ", older), func(t *testing.T) {
			w := newWorld(t)
			fence := w.h.Lease.Fence()
			if older {
				fence--
			}
			twin := ""
			w.step = func(name string) {
				if name == "build" {
					twin = w.git.Commit(t, repoName, "thread-t", fmt.Sprintf("page one\n\nThread-Id: t\nSession-Id: s\nCommand-Id: c-1\nUser: scott\nFence: %d", fence),
						map[string]string{"page.html": "one\n", "more.txt": "x\n"})
				}
			}
			m := w.message("t", "c-1", "page one")
			out := w.succeed(m)
			if w.step = nil; !older {
				if out.CommitID == twin || strings.Contains(out.Summary, "carried out twice") {
					t.Errorf("answer %+v", out)
				}
				return
			}
			if out.CommitID != twin || out.Branch != "thread-t" || w.head("thread-t") != twin {
				t.Errorf("answer %+v, the thread is at %s", out, w.head("thread-t"))
			}
			if d := cmp.Diff([]string{"more.txt", "page.html"}, out.FilesChanged); d != "" {
				t.Error("files:", d)
			}
			if strings.Contains(out.Summary, "carried out twice") { // it lacks nothing
				t.Errorf("summary %q", out.Summary)
			}
			w.succeed(w.message("t", "c-2", "page two"))
			if w.live() != "two" || w.page("thread-t") != "two" {
				t.Errorf("live page %q, on the branch %q", w.live(), w.page("thread-t"))
			}
		})
	}
}

// TestTwinWithOtherWork: the answer says where ours is, and the next command shows
// the thread as it is.
func TestTwinWithOtherWork(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "build" {
			w.git.Commit(t, repoName, "thread-t", fmt.Sprintf("x\n\nThread-Id: t\nSession-Id: s\nCommand-Id: c-1\nUser: scott\nFence: %d", w.h.Lease.Fence()-1),
				map[string]string{"page.html": "theirs\n"})
		}
	}
	out := w.succeed(w.message("t", "c-1", "page ours"))
	const side = "thread-t-conflict-c-1"
	if !strings.Contains(out.Summary, side) || w.page(side) != "ours" || w.page("thread-t") != "theirs" {
		t.Errorf("summary %q; beside the branch is %q", out.Summary, w.page(side))
	}
	w.step = nil
	w.succeed(w.message("t", "c-2", "look"))
	if w.live() != "theirs" {
		t.Errorf("live page %q", w.live())
	}
}

// TestCrashAfterTheCommitWasAmended: the lock file is in it, and the journal does
// not know yet. The agent had finished, and does not run again.
func TestCrashAfterTheCommitWasAmended(t *testing.T) {
	w := newWorld(t)
	w.git.Commit(t, repoName, "main", "no lock file", map[string]string{"package-lock.json": ""})
	w.write = func(r journal.Record) error {
		if strings.HasPrefix(r.Key, "cmd#") && strings.Contains(string(r.Body), `"built"`) {
			panic("crash")
		}
		return nil
	}
	m := w.message("t", "c-1", "page one")
	w.crash(m)
	w.write = nil
	out := w.succeed(m)
	if d := cmp.Diff([]string{"package-lock.json", "page.html"}, out.FilesChanged); d != "" {
		t.Error("files:", d)
	}
	if d := cmp.Diff([]string{"page one"}, w.log("thread-t")); d != "" {
		t.Error("commits:", d)
	}
	if w.agent.ran() != 1 || out.CommitID != w.head("thread-t") || w.live() != "one" {
		t.Errorf("the agent ran %d times, live page %q, answer %+v", w.agent.ran(), w.live(), out)
	}
}
