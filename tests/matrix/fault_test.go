package matrix

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// workerKilled ends a worker as the kernel does that is out of memory: by SIGKILL,
// in the midst of a command. Another one does the command.
func workerKilled(t *testing.T) {
	w := newWorld(t, platform.Options{})
	victim, next := w.StartWorker(), w.StartWorker()
	c := w.Command(w.j, "1", site.Add{Work: 5 * time.Second})
	w.Send(c)
	w.AwaitRun(c, "agent", patience)
	if w.Owner(w.j) == next {
		victim, next = next, victim
	}
	victim.Kill("agent")
	w.AwaitOwner(w.j, next, 30*time.Second)
	w.AwaitAnswers(patience)
	w.AwaitRest(patience)
	if r := w.Check(); r.Reruns != 1 {
		t.Errorf("report %+v, want the agent run again once", r)
	}
}

// greedy is a build that takes memory until V8 has no more.
const greedy = `{"name":"site","version":"1.0.0","scripts":{"build":"node --max-old-space-size=16 -e 'const all=[];for(;;)all.push(new Array(1e5).fill(1.5))'"}}` + "\n"

// buildOutOfMemory does not end the worker, nor hold the thread up.
func buildOutOfMemory(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second, Npm: true})
	w.Git.Commit(t, w.j.Repo, "main", "a greedy build", map[string]string{"package.json": greedy})
	worker := w.StartWorker()
	first := w.Command(w.j, "1", site.Add{})
	out := w.do(first)
	w.failed(out, protocol.BuildOutOfMemory, "out of memory")
	if out.BuildSuccess || out.DeploySuccess || out.CommitID != w.git("rev-parse", "thread-1") {
		t.Errorf("answer %+v", out)
	}
	w.holds("thread-1", first)
	w.Git.Commit(t, w.j.Repo, "thread-1", "a modest build", map[string]string{"package.json": site.Files()["package.json"]})
	second := w.Command(w.j, "1", site.Add{})
	w.well(second)
	if !worker.Alive() || !w.shows(second) {
		t.Error("the worker did not go on")
	}
	if dead := w.TakeDead(); len(dead) > 0 {
		t.Errorf("dead letters %v: what the user caused is answered only", dead)
	}
}
