package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/runlog"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// claimInTime is with the worker's own times, not the tests' short ones.
func claimInTime(t *testing.T) {
	w := newWorld(t, platform.Options{Npm: true, Env: []string{
		"LEASE_DURATION=", "LEASE_RENEWAL=", "SWEEP_INTERVAL=", "VISIBILITY_TIMEOUT=", "IDLE_TIMEOUT=", "SHUTDOWN_GRACE=",
	}})
	worker := w.StartWorker()
	w.await(patience, "the worker has started", func() bool { return strings.Contains(worker.Log(), "worker started") })
	c := w.Command(w.j, "1", site.Add{})
	w.Send(c)
	w.AwaitOwner(w.j, worker, 15*time.Second)
	t.Logf("claimed after %s", time.Since(c.Sent).Round(time.Millisecond))
	row, err := w.Row(w.j)
	if err != nil || time.Since(row.LastActivity) > 15*time.Second || row.Fence == 0 {
		t.Errorf("row %+v, %v", row, err)
	}
	if out := w.answer(c, 1); !out.Success {
		t.Errorf("answer %+v", out)
	}
}

// idsEchoed sends ids such as mail has.
func idsEchoed(t *testing.T) {
	w := newWorld(t, platform.Options{})
	w.StartWorker()
	c := w.Command(w.j, "<CAF=x+1@mail.example.com>", site.Add{})
	c.ID, c.Session = "command/7 <ü@example.com>", "session: 1, of two"
	edit(t, c, map[string]any{"commandId": c.ID, "sessionId": c.Session})
	out := w.well(c)
	if out.CommandID != c.ID || out.SessionID != c.Session || out.ProjectID != "amelia" || out.UserID != "scott" {
		t.Errorf("answer %+v", out)
	}
	want := map[string]string{"commandId": c.ID, "sessionId": c.Session, "correlation_id": c.ID}
	got := w.Answers(c.ID)[0].Attributes
	for name := range got {
		if strings.HasPrefix(name, "_") {
			delete(got, name) // Watermill's own
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	if out.Branch != protocol.Branch(c.Thread) {
		t.Errorf("branch %q, want %q", out.Branch, protocol.Branch(c.Thread))
	}
	w.holds(out.Branch, c)
}

// severalThreads are all worked on under one claim, by one of two workers.
func severalThreads(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second})
	w.StartWorker()
	w.StartWorker()
	for n := range 5 {
		w.Send(w.Command(w.j, fmt.Sprint(n%3), site.Add{}))
	}
	first := w.AwaitRow(w.j, 15*time.Second, "an owner", func(r platform.Row) bool { return r.Status == "active" })
	w.AwaitAnswers(patience)
	row, err := w.Row(w.j)
	if err != nil || row.Fence != first.Fence || row.ContainerID != first.ContainerID {
		t.Errorf("the claim changed hands: %+v, then %+v (%v)", first, row, err)
	}
	workers := map[string]int{}
	for _, r := range w.Runs() {
		if r.Event == runlog.Start && r.Kind == "agent" {
			workers[r.Worker]++
		}
	}
	if d := cmp.Diff(map[string]int{first.ContainerID: 5}, workers); d != "" {
		t.Errorf("who ran the agent (-want +got):\n%s", d)
	}
	w.Check()
}

// thereAndBack goes on where a thread was left, and carries nothing along.
func thereAndBack(t *testing.T) {
	w := newWorld(t, platform.Options{})
	w.StartWorker()
	var all []*platform.Command
	for _, thread := range []string{"A", "B", "A"} {
		c := w.Command(w.j, thread, site.Add{})
		w.well(c)
		if !w.shows(c) {
			t.Errorf("the site does not show %s", c.ID)
		}
		all = append(all, c)
	}
	w.holds("thread-A", all[0], all[2])
	w.holds("thread-B", all[1])
	if w.shows(all[1]) {
		t.Error("thread A's site shows what thread B did")
	}
	w.Check()
}

// usersAndProjects are three pairs, of which two share a repository and a bucket.
func usersAndProjects(t *testing.T) {
	w := newWorld(t, platform.Options{Env: []string{"MAX_CLAIMS=2"}})
	pairs := []*platform.Project{w.j, w.AddProject("amelia", "jenny"), w.AddProject("bert", "scott")}
	w.StartWorker()
	w.StartWorker()
	for range 2 {
		for _, j := range pairs {
			w.Send(w.Command(j, "of-"+j.UserID, site.Add{Work: 200 * time.Millisecond}))
		}
	}
	w.AwaitAnswers(patience)
	dirs := map[string]string{}
	for _, r := range w.Runs() {
		if pair := r.Token[:strings.LastIndex(r.Token, "-")]; r.Kind == "agent" {
			dirs[filepath.Base(filepath.Dir(r.Dir))] = pair
		}
	}
	want := map[string]string{"amelia-scott": "amelia-scott", "amelia-jenny": "amelia-jenny", "bert-scott": "bert-scott"}
	if d := cmp.Diff(want, dirs); d != "" {
		t.Errorf("who worked where (-want +got):\n%s", d)
	}
	w.AwaitRest(patience)
	w.Check()
}

// sharedBucket has a later command deployed before an older one comes to it: the
// older one must not undo it.
func sharedBucket(t *testing.T) {
	w := newWorld(t, platform.Options{})
	jenny := w.AddProject("amelia", "jenny")
	slow := w.StartWorker()
	if err := slow.Arm("committed", "hold"); err != nil {
		t.Fatal(err)
	}
	older := w.Command(w.j, "1", site.Add{})
	w.Send(older)
	w.AwaitFired(slow, "committed", patience)
	w.StartWorker()
	later := w.Command(jenny, "2", site.Add{})
	if out := w.well(later); out.Superseded || !out.DeploySuccess {
		t.Errorf("the later one's answer: %+v", out)
	}
	slow.Release("committed")
	if out := w.answer(older, 1); !out.Success || !out.Superseded || out.DeploySuccess {
		t.Errorf("the older one's answer: %+v", out)
	}
	w.holds("thread-1", older) // its work is kept
	w.Check()
}

// ambiguousIDs are pairs whose input queue is the same. They have output queues of
// their own here, to see where an answer goes.
func ambiguousIDs(t *testing.T) {
	p := platform.New(t, platform.Options{})
	p.Names.OutputPattern = strings.TrimSuffix(p.Names.OutputPattern, "{projectId}-{userId}") + "{projectId}_{userId}"
	one, two := p.AddProject("a-b", "c"), p.AddProject("a", "b-c")
	w := &world{p, t, one}
	if one.InputURL != two.InputURL || one.Dir() != two.Dir() || one.OutputURL == two.OutputURL {
		t.Fatalf("not ambiguous: %+v, %+v", one, two)
	}
	w.StartWorker()
	w.Command(two, "1", site.Add{}) // its id is that of the other's first
	first, stray := w.Command(one, "1", site.Add{}), w.Command(two, "1", site.Add{})
	w.well(first)
	w.Put(two.InputURL, stray.Body, 0) // the first one's worker finds it
	w.failed(w.answer(stray, 1), protocol.WrongProject, `"a-b"`)
	if at := w.Answers(stray.ID)[0].Queue; at != p.Names.Output(two.Pair) {
		t.Errorf("answered on %s", at)
	}
	d := w.dead()
	if d.CommandID != stray.ID || d.Queue != p.Names.DLQ(two.Pair) {
		t.Errorf("dead letter %+v", d)
	}
	w.AwaitStatus(one, "released", patience)
	w.redrive(two, d)
	if out := w.answer(stray, 2); !out.Success {
		t.Errorf("under a claim of its own: %+v", out)
	}
	entries, err := os.ReadDir(p.Workspaces)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), one.Dir()) {
			dirs = append(dirs, e.Name())
		}
	}
	if len(dirs) != 2 {
		t.Errorf("directories %v, want one for each pair", dirs)
	}
	seen := map[string]string{}
	for _, r := range w.Runs() {
		if other, ok := seen[r.Dir]; ok && other != r.Token {
			t.Errorf("%s worked where %s had worked: %s", r.Token, other, r.Dir)
		}
		seen[r.Dir] = r.Token
	}
}

// withoutLegacy starts a worker with the least it needs.
func withoutLegacy(t *testing.T) {
	w := newWorld(t, platform.Options{})
	worker := w.StartWorker()
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", worker.Tree()[0]))
	if err != nil || !strings.Contains(string(environ), "UNCLAIMED_QUEUE_URL=") {
		t.Fatalf("%q, %v", environ, err)
	}
	for _, name := range []string{"CLIENT_ID", "REPO_URL", "DEFAULT_USER_ID"} {
		if strings.Contains("\x00"+string(environ), "\x00"+name+"=") {
			t.Errorf("%s is set, so nothing is shown", name)
		}
	}
	w.well(w.Command(w.j, "1", site.Add{}))
	w.Check()
}

// unclaimedWork sends whole InputMessages to the unclaimed queue: one for a project
// that nobody has, and one for it when somebody has it.
func unclaimedWork(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second, Env: []string{"MAX_CLAIMS=2"}})
	w.StartWorker()
	for range 2 {
		c := w.Command(w.j, "1", site.Add{})
		w.SendUnclaimed(c)
		if out := w.answer(c, 1); !out.Success {
			t.Errorf("answer %+v", out)
		}
	}
	w.Check()
}

// terminated ends an idle worker, and one in the midst of a command, which another
// worker then finishes.
func terminated(t *testing.T) {
	w := newWorld(t, platform.Options{})
	idle := w.StartWorker()
	w.await(patience, "the worker has started", func() bool { return strings.Contains(idle.Log(), "worker started") })
	idle.Terminate()
	if code := idle.Exit(w.Options.Grace); code != 0 {
		t.Errorf("an idle worker exited with %d", code)
	}
	busy := w.StartWorker()
	c := w.Command(w.j, "1", site.Add{Work: 5 * time.Second})
	w.Send(c)
	w.AwaitRun(c, "agent", patience)
	busy.Terminate()
	if code := busy.Exit(w.Options.Grace); code != 0 {
		t.Errorf("a busy worker exited with %d", code)
	}
	if len(w.Answers(c.ID)) > 0 {
		t.Fatal("it had finished the command, so nothing was shown")
	}
	w.StartWorker()
	w.AwaitAnswers(patience)
	w.AwaitRest(patience)
	w.Check()
}
