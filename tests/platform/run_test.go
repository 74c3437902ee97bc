package platform_test

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// TestOneWorker is the whole of it without a fault: two projects, three threads.
func TestOneWorker(t *testing.T) {
	t.Parallel()
	p := platform.New(t, platform.Options{Idle: time.Second, Npm: true})
	one, two := p.AddProject("amelia", "scott"), p.AddProject("bert", "scott")
	p.Watch(one, 50*time.Millisecond)
	p.StartWorker()
	p.StartWorker()
	for range 2 {
		p.Send(p.Command(one, "1", site.Add{}))
		p.Send(p.Command(one, "thread-2", site.Add{Work: 100 * time.Millisecond}))
		p.Send(p.Command(two, "3", site.Add{Build: 100 * time.Millisecond}))
	}
	again := p.Command(two, "3", site.Add{})
	p.Send(again)
	p.Send(again)
	p.AwaitAnswers(time.Minute)
	p.AwaitRest(time.Minute)
	for _, w := range p.Workers() {
		w.Terminate()
	}
	for _, w := range p.Workers() {
		if code := w.Exit(20 * time.Second); code != 0 {
			t.Errorf("worker %s exited with %d", w.Name, code)
		}
	}
	r := p.Check()
	if r.Agents != 7 || r.Reruns != 0 || r.Pages == 0 {
		t.Errorf("report %+v, want seven runs of the agent, none of them again, and pages", r)
	}
	t.Logf("%+v", r)
}

// TestFaultsAreFelt orders each fault at a mark, and sees it.
func TestFaultsAreFelt(t *testing.T) {
	t.Parallel()
	p := platform.New(t, platform.Options{})
	j := p.AddProject("amelia", "scott")
	w := p.StartWorker()
	for mark, how := range map[string]string{"opened": "hold", "committed": "freeze", "pushed": "term"} {
		if err := w.Arm(mark, how); err != nil {
			t.Fatal(err)
		}
	}
	p.Send(p.Command(j, "1", site.Add{}))
	for _, mark := range []string{"opened", "committed", "pushed"} {
		p.AwaitFired(w, mark, 30*time.Second)
		w.Release(mark)
		w.Thaw()
	}
	if code := w.Exit(20 * time.Second); code != 0 {
		t.Errorf("exited with %d after a SIGTERM", code)
	}
	w = p.StartWorker()
	if err := w.Arm("answered", "kill"); err != nil {
		t.Fatal(err)
	}
	p.Send(p.Command(j, "1", site.Add{}))
	if code := w.Exit(30 * time.Second); code != -1 {
		t.Errorf("exited with %d after a SIGKILL", code)
	}
	if left := w.Left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
