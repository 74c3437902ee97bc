package platform

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform/runlog"
)

// Report is what Check counted.
type Report struct {
	Commands int
	Copies   int // of answers, beyond the first, each byte for byte the same
	Agents   int // runs of the agent
	Reruns   int // of these, beyond the first of a command
	Beside   int // runs that began in a fresh checkout while a frozen one had not ended
	Pages    int // served while the test ran
}

// Check checks the history of a test whose commands are all answered, each of them
// with success:
//
//   - a command has one answer: further copies are the same bytes;
//   - a command has one commit, in the order they were sent, per thread;
//   - the agent ran again only for a command whose former run was hit by a fault,
//     and no two runs were in one checkout at a time;
//   - no dead letters;
//   - the site is what the last command made, and every page served found its
//     assets;
//   - nothing is left of the processes of workers that have ended.
func (p *Platform) Check() Report {
	p.tb.Helper()
	r := Report{Commands: len(p.Commands())}
	p.checkAnswers(&r)
	p.checkCommits()
	if !p.Options.Unlogged {
		p.checkRuns(&r)
	}
	for _, d := range p.TakeDead() {
		p.tb.Errorf("a dead letter in %s: %s %v", d.Queue, d.Body, d.Attributes)
	}
	p.checkSites()
	p.checkPages(&r)
	for _, w := range p.Workers() {
		if !w.Alive() {
			for _, left := range w.Left() {
				p.tb.Errorf("worker %s has ended, and its child has not: %s", w.Name, left)
			}
		}
	}
	return r
}

func (p *Platform) checkAnswers(r *Report) {
	p.tb.Helper()
	for _, c := range p.Commands() {
		all := p.Answers(c.ID)
		if len(all) == 0 {
			p.tb.Errorf("%s has no answer", c.ID)
			continue
		}
		first := all[0]
		if !first.Output.Success || first.Output.SessionID != c.Session {
			p.tb.Errorf("the answer to %s: %s", c.ID, first.Body)
		}
		if d := cmp.Diff(c.ID, first.Attributes["commandId"]); d != "" {
			p.tb.Errorf("attribute commandId of the answer: %s", d)
		}
		for _, again := range all[1:] {
			r.Copies++
			if !bytes.Equal(first.Body, again.Body) {
				p.tb.Errorf("%s has two answers:\n%s\n%s", c.ID, first.Body, again.Body)
			}
		}
	}
}

type threadOf struct {
	project *Project
	id      string
}

func (t threadOf) branch() string { return protocol.Branch(t.id) }

// threads returns the commands by their threads. Two users of a project share its
// repository, so they do not share a thread.
func (p *Platform) threads() map[threadOf][]*Command {
	all := map[threadOf][]*Command{}
	for _, c := range p.Commands() {
		t := threadOf{c.Project, c.Thread}
		all[t] = append(all[t], c)
	}
	return all
}

func (p *Platform) checkCommits() {
	p.tb.Helper()
	for t, commands := range p.threads() {
		bare := p.Git.Bare(t.project.Repo)
		log := gitserver.Git(p.tb, bare, "log", "--reverse", "--first-parent", "--format=%(trailers:key=Command-Id,valueonly,separator=%x2C)", "main.."+t.branch())
		var got, want []string
		late := map[string]bool{}
		for _, c := range commands {
			late[c.ID] = c.Late
			if !c.Late {
				want = append(want, c.ID)
			}
		}
		seen := map[string]int{}
		for id := range strings.FieldsSeq(log) {
			seen[id]++
			if !late[id] {
				got = append(got, id)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			p.tb.Errorf("commits of %s in %s (-want +got): %s", t.branch(), t.project.Repo, d)
		}
		for _, c := range commands {
			if seen[c.ID] != 1 {
				p.tb.Errorf("%d commits of %s in %s, want one", seen[c.ID], c.ID, t.branch())
			}
		}
	}
}

// checkRuns looks at what agents and builds logged.
func (p *Platform) checkRuns(r *Report) {
	p.tb.Helper()
	starts, all := map[string][]*agentRun{}, p.Runs()
	open := map[int]*agentRun{} // by process id
	for _, run := range all {
		switch run.Event {
		case runlog.Overlap:
			p.tb.Errorf("two in one checkout: %+v came while another ran", run)
		case runlog.End:
			if it := open[run.Pid]; it != nil {
				it.end = run.At
			}
			delete(open, run.Pid)
		case runlog.Start:
			for _, other := range open {
				if other.Dir == run.Dir && other.Inode != run.Inode && p.frozenAt(other.Worker, run.At) {
					r.Beside++
					break
				}
			}
			open[run.Pid] = &agentRun{Run: run}
			if run.Kind == "agent" {
				starts[run.Token] = append(starts[run.Token], open[run.Pid])
			}
		}
	}
	for _, c := range p.Commands() {
		runs := starts[c.Add.Token]
		r.Agents += len(runs)
		if len(runs) == 0 {
			p.tb.Errorf("the agent never ran for %s", c.ID)
			continue
		}
		for i := range runs[1:] {
			r.Reruns++
			if !p.explained(runs[i], runs[i+1]) {
				p.tb.Errorf("the agent ran again for %s on %s at %s, and nothing had happened to %s while it ran from %s to %s",
					c.ID, runs[i+1].Worker, runs[i+1].At, runs[i].Worker, runs[i].At, runs[i].end)
			}
		}
	}
}

// agentRun is a run of an agent or a build; end is zero if it was cut off.
type agentRun struct {
	runlog.Run
	end time.Time
}

// recording is the time in which a worker surely has recorded that the agent ended.
const recording = 5 * time.Second

// explained reports whether a fault hit the worker of a run before the next one: in
// the agent's step, if that came to its end.
func (p *Platform) explained(run, next *agentRun) bool {
	until := next.At
	if !run.end.IsZero() && run.end.Add(recording).Before(until) {
		until = run.end.Add(recording)
	}
	return slices.ContainsFunc(p.Faults(), func(f Fault) bool {
		return f.Worker == run.Worker && f.From.Before(until) && (f.To.IsZero() || f.To.After(run.At))
	})
}

// frozenAt reports whether a worker's whole tree was frozen.
func (p *Platform) frozenAt(worker string, at time.Time) bool {
	return slices.ContainsFunc(p.Faults(), func(f Fault) bool {
		return f.Worker == worker && f.Kind == FreezeTree && f.From.Before(at) && (f.To.IsZero() || f.To.After(at))
	})
}
