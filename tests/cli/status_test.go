package cli

import (
	"testing"

	"github.com/webordinary/claude-code-container/tests/platform"
)

func TestStatus(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	empty := w.well("status", "amelia", "scott")
	for _, words := range [][]string{{"claim", "nobody ever had it"}, {"deploy", "nothing yet"}, {"No command is known."}, {"dlq", "none"}} {
		if line(empty, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, empty)
		}
	}

	unknown := w.well("status", "nobody", "scott")
	if line(unknown, "queue", "it was not set up") == "" || line(unknown, "dlq") != "" {
		t.Errorf("of a project that is not there it prints\n%s", unknown)
	}

	worker := w.StartWorker()
	w.well(w.send("--thread", "t1", "--command", "c-1", "--follow", add("one"))...)
	w.fails("", w.send("--thread", "t2", "--command", "c-2", "--follow", "what the agent cannot do")...)
	w.well(w.send("--thread", "t1", "--command", "c-3", "--follow", add("three"))...)

	var s struct {
		Claim *struct {
			Container, Status string
			Stale             bool
		}
		Queues  map[string]struct{ Waiting int }
		Threads []struct {
			ThreadID, Branch string
			Commands         int
			Last             struct{ CommandID, State, Summary string }
		}
		LastError *struct{ CommandID, ErrorCode, Error string }
		Deploy    *struct {
			Bucket, CommandID, CommitID string
			Complete                    bool
		}
		Partial bool
	}
	w.read(&s, "status", "amelia", "scott")
	if s.Claim == nil || s.Claim.Container != worker.Name || s.Claim.Status != "active" || s.Claim.Stale || len(s.Queues) != 4 || s.Partial {
		t.Errorf("status %+v", s)
	}
	if len(s.Threads) != 2 || s.Threads[0].Branch != "thread-t1" || s.Threads[0].Commands != 2 || s.Threads[0].Last.CommandID != "c-3" ||
		s.Threads[0].Last.State != "done" || s.Threads[1].Last.State != "failed" {
		t.Errorf("threads %+v", s.Threads)
	}
	if s.LastError == nil || s.LastError.CommandID != "c-2" || s.LastError.ErrorCode != "agent_failed" || s.LastError.Error == "" {
		t.Errorf("last error %+v", s.LastError)
	}
	if s.Deploy == nil || s.Deploy.Bucket != w.j.Bucket || s.Deploy.CommandID != "c-3" || s.Deploy.CommitID == "" || !s.Deploy.Complete {
		t.Errorf("deploy %+v", s.Deploy)
	}

	out := w.well("status", "amelia", "scott")
	for _, words := range [][]string{
		{"project", "amelia#scott"},
		{"claim", "active by " + worker.Name},
		{"queue", "input 0 waiting; output 0 waiting"},
		{"deploy", w.j.Bucket, "by c-3"},
		{"error", "agent_failed"},
		{"of command c-2"},
		{"thread-t1", "2", "c-3", "done", "Added three."},
		{"thread-t2", "1", "c-2", "failed, agent_failed"},
	} {
		if line(out, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, out)
		}
	}
	if line(w.well("status", "amelia", "scott", "--scan", "1"), "--scan N looks further") == "" {
		t.Error("it does not say that it has not seen all")
	}
}
