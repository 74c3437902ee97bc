package exits

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// TestMain lets several scenes run at a time: they wait more than they work.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(platform.Main(m))
}

// patience bounds each wait. The machine decides how much of it is needed.
const patience = 80 * time.Second

// scene is a project whose owner is about to leave, and one more worker.
type scene struct {
	*platform.Platform
	t       *testing.T
	project *platform.Project
	leaver  *platform.Worker
	other   *platform.Worker
	n       int
}

// newScene returns when the leaver carries out the first command, whose agent works
// for a while; one more waits behind it.
func newScene(t *testing.T, work time.Duration) *scene {
	t.Helper()
	t.Parallel()
	s := &scene{Platform: platform.New(t, platform.Options{Idle: time.Second}), t: t}
	s.project = s.AddProject("amelia", "scott")
	s.Watch(s.project, 400*time.Millisecond)
	s.leaver = s.StartWorker()
	first := s.send(work)
	s.AwaitOwner(s.project, s.leaver, patience)
	s.other = s.StartWorker()
	s.AwaitRun(first, "agent", patience)
	s.send(0)
	return s
}

// send sends one more command, to one of two threads.
func (s *scene) send(work time.Duration) *platform.Command {
	s.n++
	c := s.Command(s.project, fmt.Sprint("t-", s.n%2), site.Add{Work: work})
	s.Send(c)
	return c
}

// settle waits until all is answered and nobody has the project, and checks.
func (s *scene) settle() {
	s.t.Helper()
	s.AwaitAnswers(patience)
	s.AwaitRest(patience)
	s.t.Logf("%+v", s.Check())
}

// TestIdle sends work at many moments while the owner of an idle project gives it
// up, which takes a look of a second or more.
func TestIdle(t *testing.T) {
	t.Parallel()
	p := platform.New(t, platform.Options{Idle: time.Second, Env: []string{"MAX_CLAIMS=8"}})
	p.StartWorker()
	p.StartWorker()
	var all sync.WaitGroup
	for i := range 6 {
		j := p.AddProject(fmt.Sprint("idle", i), "scott")
		all.Go(func() {
			send := func() { p.Send(p.Command(j, "1", site.Add{})) }
			send()
			p.AwaitStatus(j, "releasing", patience)
			platform.Wait(time.Duration(i) * 300 * time.Millisecond)
			send()
			platform.Wait(50 * time.Millisecond)
			send()
			p.AwaitStatus(j, "released", patience)
			send()
		})
	}
	all.Wait()
	p.AwaitAnswers(patience)
	p.AwaitRest(patience)
	t.Logf("%+v", p.Check())
}

// TestTerminated sends SIGTERM while a job runs that can finish in time, and while
// one runs that cannot.
func TestTerminated(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]time.Duration{"finishes": time.Second, "is cut": 8 * time.Second} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, work)
			s.leaver.Terminate()
			for range 3 {
				s.send(0)
				platform.Wait(300 * time.Millisecond)
			}
			if code := s.leaver.Exit(s.Options.Grace + time.Second); code != 0 {
				t.Errorf("exited with %d", code)
			}
			s.send(0)
			s.settle()
		})
	}
}

// TestKilled ends the owner, or its whole machine, without a word.
func TestKilled(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(*platform.Worker){
		"worker":  func(w *platform.Worker) { w.Kill() },
		"machine": func(w *platform.Worker) { w.KillTree() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 2*time.Second)
			kill(s.leaver)
			s.send(0)
			s.AwaitOwner(s.project, s.other, patience)
			s.send(0)
			s.settle()
		})
	}
}

// TestFrozen stops the owner, or its whole machine, for longer than the lease
// lasts, and lets it go on while another works.
func TestFrozen(t *testing.T) {
	t.Parallel()
	for name, freeze := range map[string]func(*platform.Worker){
		"worker":  func(w *platform.Worker) { w.Freeze() },
		"machine": func(w *platform.Worker) { w.FreezeTree() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 2*time.Second)
			freeze(s.leaver)
			s.send(0)
			s.AwaitOwner(s.project, s.other, patience)
			long := s.send(2 * time.Second)
			s.leaver.Thaw()
			s.send(0)
			s.AwaitAnswers(patience, long)
			s.send(0)
			s.settle()
		})
	}
}

// TestCutOff cuts the owner's network for longer than the lease lasts.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for name, swallow := range map[string]bool{"reset": false, "silence": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 2*time.Second)
			s.leaver.Cut(swallow)
			s.send(0)
			s.AwaitOwner(s.project, s.other, patience)
			long := s.send(2 * time.Second)
			s.leaver.Restore()
			s.send(0)
			s.AwaitAnswers(patience, long)
			s.send(0)
			s.settle()
		})
	}
}
