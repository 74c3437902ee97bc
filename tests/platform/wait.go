package platform

import (
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform/runlog"
)

// AwaitAnswers waits until each of the commands has an answer; without any, each
// that was sent.
func (p *Platform) AwaitAnswers(within time.Duration, of ...*Command) {
	p.tb.Helper()
	if len(of) == 0 {
		of = p.Commands()
	}
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		left, arrived := p.history.missing(of)
		if len(left) == 0 {
			return
		}
		select {
		case <-arrived:
		case <-late.C:
			var ids []string
			for _, c := range left {
				ids = append(ids, c.ID+" (sent "+c.Sent.Format(time.TimeOnly)+")")
			}
			p.tb.Fatalf("no answer within %s to %s\n%s", within, strings.Join(ids, ", "), p.state())
		}
	}
}

// AwaitRest waits until every queue is empty and no row has an owner.
func (p *Platform) AwaitRest(within time.Duration) {
	p.tb.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		if len(p.unrest()) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-late.C:
			p.tb.Fatalf("not at rest within %s\n%s", within, p.state())
		}
	}
}

// AwaitRow waits until a row is as wanted, and returns it.
func (p *Platform) AwaitRow(j *Project, within time.Duration, wanted string, is func(Row) bool) Row {
	p.tb.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(30 * time.Millisecond)
	defer again.Stop()
	for {
		row, err := p.Row(j)
		if err == nil && is(row) {
			return row
		}
		select {
		case <-again.C:
		case <-late.C:
			p.tb.Fatalf("the row of %s is %+v (%v) after %s; want %s\n%s", j.Key(), row, err, within, wanted, p.state())
		}
	}
}

// AwaitOwner waits until a worker has a project.
func (p *Platform) AwaitOwner(j *Project, w *Worker, within time.Duration) {
	p.tb.Helper()
	p.AwaitRow(j, within, "active by "+w.Name, func(r Row) bool { return r.Status == "active" && r.ContainerID == w.Name })
}

// AwaitRun waits until the agent or the build runs for a command.
func (p *Platform) AwaitRun(c *Command, kind string, within time.Duration) {
	p.tb.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		for _, r := range p.Runs() {
			if r.Kind == kind && r.Token == c.Add.Token && r.Event == runlog.Start {
				return
			}
		}
		select {
		case <-again.C:
		case <-late.C:
			p.tb.Fatalf("no %s for %s within %s\n%s", kind, c.ID, within, p.state())
		}
	}
}

// Wait lets a while pass.
func Wait(d time.Duration) { <-time.After(d) }

// AwaitStatus waits until a row has a status. It may be called by other goroutines
// than the test's: it fails the test and returns.
func (p *Platform) AwaitStatus(j *Project, status string, within time.Duration) {
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(30 * time.Millisecond)
	defer again.Stop()
	for {
		row, err := p.Row(j)
		if err == nil && row.Status == status {
			return
		}
		select {
		case <-again.C:
		case <-late.C:
			p.tb.Errorf("the row of %s is %+v (%v) after %s; want %s", j.Key(), row, err, within, status)
			return
		}
	}
}
