package soak

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
	"github.com/webordinary/claude-code-container/tests/program"
)

func TestMain(m *testing.M) { os.Exit(platform.Main(m)) }

var update = flag.Bool("update", false, "write the table into docs/benchmarks.md")

const (
	workers = 3
	// inTurn are the commands of a visit, atOnce the visits that are not over.
	inTurn, atOnce = 5, 8
	// patience bounds the wait for the answers of a visit.
	patience = 2 * time.Minute
)

// number reads a variable.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number from 1 on", name, v)
	}
	return n
}

// TestSoak is short, or what the environment asks for.
func TestSoak(t *testing.T) {
	s := newSoak(t, number(t, "SOAK_COMMANDS", 40), number(t, "SOAK_PROJECTS", 4), cmp.Or(os.Getenv("SOAK_SANDBOX"), "off"))
	s.run()
	s.compare()
	text := s.markdown()
	t.Log("\n" + text)
	if *update && !t.Failed() {
		if err := write("../../docs/benchmarks.md", text); err != nil {
			t.Error(err)
		}
	}
}

// soak is one run.
type soak struct {
	*platform.Platform
	t        *testing.T
	commands int // as many as asked for; those of the planted projects come on top
	sandbox  string
	head     string
	begun    time.Time
	took     time.Duration
	projects []*platform.Project
	slots    []*platform.Worker
	report   platform.Report
	fresh    figures // of a worker that has done nothing
	rested   figures // of those that have done it all, the most of each
	trimmed  map[string]int
	items    int // in the table

	mu       sync.Mutex
	answered int
	samples  []sample
	disk     []disk
}

func newSoak(t *testing.T, commands, projects int, sandbox string) *soak {
	t.Helper()
	s := &soak{t: t, commands: commands, sandbox: sandbox, trimmed: map[string]int{}, head: machine()}
	// The program as it is used, not the one that has faults to order.
	s.Platform = platform.New(t, platform.Options{
		Program: program.Build(t), Unlogged: sandbox != "off", Idle: 500 * time.Millisecond, Lease: 9 * time.Second, Renewal: 2 * time.Second, Sweep: time.Second, Visibility: 9 * time.Second,
		Env: []string{"MAX_CLAIMS=8", "LOG_LEVEL=info", "ASSET_GRACE=" + assetGrace.String(), "SANDBOX=" + sandbox},
	})
	for i := range projects {
		s.projects = append(s.projects, s.AddProject(fmt.Sprintf("p%02d", i), "scott"))
	}
	for range workers {
		s.slots = append(s.slots, s.StartWorker())
	}
	for _, w := range s.slots {
		s.awaitLooks(w, 1)
	}
	return s
}

// visit is a few commands of one project.
type visit struct {
	project  *platform.Project
	commands []*platform.Command
}

// run sends all commands, waits for their answers, and looks meanwhile.
func (s *soak) run() {
	old, large := s.newPlanted("old"), s.newPlanted("large")
	s.begun = time.Now()
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { s.watch(stop) })
	beside.Go(func() { s.plant(old, oldThings) })
	beside.Go(func() { s.plant(large, largeThings) })
	s.load()
	s.took = time.Since(s.begun)
	close(stop)
	beside.Wait()
	s.AwaitRest(patience)
	s.checkBounds()
	s.end()
}

// load makes the visits, of each project in turn. Threads change with each command.
func (s *soak) load() {
	var open []visit
	finish := func() {
		v := open[0]
		open = open[1:]
		s.AwaitAnswers(patience, v.commands...)
		s.look(v)
	}
	for n := 0; n < s.commands; {
		for _, j := range s.projects {
			if n >= s.commands {
				break
			}
			v := visit{project: j}
			for ; len(v.commands) < inTurn && n < s.commands; n++ {
				v.commands = append(v.commands, s.Command(j, strconv.Itoa(n%2), site.Add{}))
			}
			for _, c := range v.commands {
				s.Send(c)
			}
			if open = append(open, v); len(open) >= atOnce || len(open) >= len(s.projects) {
				finish()
			}
		}
	}
	for len(open) > 0 {
		finish()
	}
}

// look measures what a visit has left.
func (s *soak) look(v visit) {
	d, err := measure(s.dir(v.project))
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered += len(v.commands)
	d.answered = s.answered
	s.disk = append(s.disk, d)
	s.sample()
	if s.answered/500 > (s.answered-len(v.commands))/500 {
		s.t.Logf("%d commands after %s", s.answered, time.Since(s.begun).Round(time.Second))
	}
}

func (s *soak) dir(j *platform.Project) string {
	return filepath.Join(s.Workspaces, j.ProjectID+"-"+j.UserID)
}

// end compares the workers with a fresh one, ends one of them in order and makes the
// others tell their goroutines, and checks the history.
func (s *soak) end() {
	fresh := s.StartWorker()
	s.slots = append(s.slots, fresh)
	s.awaitLooks(fresh, 2) // then it is at rest, and waits for work
	for _, w := range s.slots[1:] {
		f, err := processOf(w.Pid())
		if err != nil {
			s.t.Fatal(err)
		}
		if f.goroutines, err = goroutines(w); err != nil {
			s.t.Fatal(err)
		}
		if w == fresh {
			s.fresh = f
		} else {
			s.rested = s.rested.most(f)
		}
	}
	s.slots[0].Terminate("at rest")
	if code := s.slots[0].Exit(s.Options.Grace); code != 0 {
		s.t.Errorf("the worker exited with %d", code)
	}
	s.report = s.Check()
	if s.report.Copies+s.report.Reruns > 0 {
		s.t.Errorf("want one answer and one run of the agent for each command: %+v", s.report)
	}
	s.checkBuckets()
	s.checkJournal()
}

// awaitLooks waits until a worker has looked for dead owners so often.
func (s *soak) awaitLooks(w *platform.Worker, often int) {
	s.t.Helper()
	for late := time.Now().Add(patience); strings.Count(w.Log(), `"sweeps":1`) < often; {
		if !w.Alive() || time.Now().After(late) {
			s.t.Fatalf("the worker has not begun:\n%s", w.Log())
		}
		platform.Wait(100 * time.Millisecond)
	}
}
