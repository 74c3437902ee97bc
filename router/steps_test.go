package router_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/router"
)

// TestStepsTellHowAClaimBeginsAndEnds: who follows them knows what is idle.
func TestStepsTellHowAClaimBeginsAndEnds(t *testing.T) {
	var mu sync.Mutex
	var told []string
	record := func(s handlers.Step) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s.Pair.Key()+" "+s.Name+" "+s.CommandID)
	}
	in(t, func(c *router.Config) { c.Instruction.Step = record }, func(p *platform) {
		p.publish(p.t, unclaimed, denied("amelia", "c-1"))
		<-time.After(5 * time.Minute) // it leaves as idle
		p.publish(p.t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
	})
	want := []string{
		"amelia#scott claim ", "amelia#scott done c-1", "amelia#scott release ",
		"amelia#scott claim ", "amelia#scott release ",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
}
