package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/runlog"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

const (
	kills = 5
	terms = 3
	// shrink divides the default times, for more runs in less time.
	shrink = 5
)

// BenchmarkRecovery kills workers.
func BenchmarkRecovery(b *testing.B) {
	short := defaults()
	for _, d := range []*time.Duration{&short.Lease, &short.Renewal, &short.Sweep, &short.Visibility} {
		*d /= shrink
	}
	measure := func(o platform.Options, runs int) []time.Duration {
		var all []time.Duration
		for i := range runs {
			b.Run(fmt.Sprintf("lease=%s/%d", o.Lease, i), func(b *testing.B) {
				all = append(all, elsewhere(b, o, time.Minute, (*platform.Worker).Kill))
			})
		}
		return all
	}
	inLeases := func(all []time.Duration, o platform.Options) row {
		if len(all) == 0 {
			return row{figure: "not measured: its benchmark failed"}
		}
		return row{
			fmt.Sprintf("**%.2f lease durations**, %s", float64(median(all))/float64(o.Lease), spread(all, time.Second, 1)),
			fmt.Sprintf("lease %s, renewal %s, sweep %s, visibility %s", o.Lease, o.Renewal, o.Sweep, o.Visibility), fmt.Sprint(len(all)),
		}
	}
	results.set(recovery, inLeases(measure(short, kills), short))
	results.set(recoveryReal, inLeases(measure(defaults(), 1), defaults()))
}

// BenchmarkShutdown terminates workers.
func BenchmarkShutdown(b *testing.B) {
	o := defaults()
	mayRun := o.Grace - 10*time.Second // what the rest of the grace is for takes ten seconds
	var all, after []time.Duration
	for i := range terms {
		b.Run(fmt.Sprint(i), func(b *testing.B) {
			d := elsewhere(b, o, 5*time.Minute, (*platform.Worker).Terminate)
			all, after = append(all, d), append(after, d-mayRun)
		})
	}
	if len(all) == 0 {
		return // the failure says why
	}
	results.set(shutdown, row{
		spread(all, time.Second, 1), fmt.Sprintf("SHUTDOWN_GRACE %s; a job may go on for %s of it", o.Grace, mayRun), fmt.Sprint(len(all)),
	})
	results.set(shutdownAfter, row{spread(after, time.Second, 1), "", fmt.Sprint(len(after))})
}

// elsewhere has one of two workers work, breaks it in the agent's step, and returns
// how long it takes until the other one has started the agent for the same command.
func elsewhere(b *testing.B, o platform.Options, work time.Duration, end func(*platform.Worker, ...string)) time.Duration {
	b.Helper()
	p := platform.New(b, o)
	j := p.AddProject("amelia", "scott")
	for range 2 {
		p.StartWorker(straight(p.Set)...)
	}
	c := p.Command(j, "1", site.Add{Work: work})
	p.Send(c)
	p.AwaitRun(c, "agent", patience)
	platform.Wait(rand.N(o.Renewal)) // any moment between two renewals is as likely
	first := agents(p, c)[0]
	owner := p.Owner(j)
	if owner == nil || owner.Name != first.Worker {
		b.Fatalf("the row names %v, the agent runs at %s", owner, first.Worker)
	}
	ended := time.Now()
	end(owner)
	late := time.NewTimer(patience)
	defer late.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-late.C:
			b.Fatalf("nobody else works on it after %s", patience)
		}
		if runs := agents(p, c); len(runs) > 1 {
			b.Logf("%s at %s, %s later at %s", c.ID, first.Worker, runs[1].At.Sub(ended), runs[1].Worker)
			return runs[1].At.Sub(ended)
		}
	}
}

// agents are the starts of the agent for a command.
func agents(p *platform.Platform, c *platform.Command) []runlog.Run {
	var all []runlog.Run
	for _, r := range p.Runs() {
		if r.Kind == "agent" && r.Event == runlog.Start && r.Token == c.Add.Token {
			all = append(all, r)
		}
	}
	return all
}
