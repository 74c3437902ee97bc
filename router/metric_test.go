package router_test

import (
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/metric/metrictest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/router"
)

// measure returns what a worker measured during a test.
func measure(t *testing.T, change func(*router.Config), test func(*platform)) []metrictest.Line {
	t.Helper()
	var out strings.Builder
	in(t, func(c *router.Config) {
		c.Metrics = &out
		if change != nil {
			change(c)
		}
	}, func(p *platform) {
		test(p)
		p.leave(p.t) // and with it the writer
	})
	return metrictest.Read(t, out.String())
}

func wantSum(t *testing.T, got []metrictest.Line, want float64, name metric.Name, members ...string) {
	t.Helper()
	if sum := metrictest.Sum(got, name, members...); sum != want {
		t.Errorf("%s %v is %v, want %v", name, members, sum, want)
	}
}

// TestRefusedCommandIsMeasured: what it comes to, and what lies in the dead-letter
// queue. The handlers of projects have one name.
func TestRefusedCommandIsMeasured(t *testing.T) {
	got := measure(t, nil, func(p *platform) {
		p.publish(p.t, unclaimed, denied("amelia", "c-1"))
		<-time.After(30 * time.Second)
	})
	wantSum(t, got, 1, metric.Commands, "outcome", string(protocol.RepoNotAllowed), "command_id", "c-1", "correlation_id", "c-1", "project_key", "amelia#scott")
	wantSum(t, got, 1, metric.DeadLetters, "command_id", "c-1")
	wantSum(t, got, 1, "messages", "handler", "instruction", "outcome", "poisoned")
	wantSum(t, got, 1, "messages", "handler", "claim", "outcome", "ok")
	wantSum(t, got, 0, metric.Takeovers)
	if metrictest.Sum(got, metric.CommandLatency) <= 0 || metrictest.Sum(got, metric.Sweeps) == 0 {
		t.Errorf("no latency, or no sweep: %v", got)
	}
}

func TestTakeoverAndLossAreMeasured(t *testing.T) {
	got := measure(t, nil, func(p *platform) {
		t := p.t
		p.dies(t, "amelia#scott")
		<-time.After(2 * time.Minute)
		seen, err := p.table.Get(t.Context(), "amelia#scott")
		if err != nil {
			t.Fatal(err)
		}
		next := seen
		next.Fence, next.ContainerID = seen.Fence+1, "thief"
		if err := p.table.Put(t.Context(), next, seen); err != nil {
			t.Fatal(err)
		}
		<-time.After(30 * time.Second)
	})
	wantSum(t, got, 1, metric.Takeovers)
	wantSum(t, got, 1, metric.LeaseLosses)
}

func TestOrphansAreMeasured(t *testing.T) {
	got := measure(t, func(c *router.Config) { c.IdleTimeout = time.Hour }, func(p *platform) {
		p.publish(p.t, unclaimed, request("bakery"))
		p.dies(p.t, "florist#scott")
		<-time.After(2 * time.Minute)
	})
	if metrictest.Sum(got, metric.Orphans) == 0 {
		t.Error("no orphan was counted")
	}
}
