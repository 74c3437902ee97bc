package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

const (
	idleWindow = 2 * time.Minute
	commands   = 10
)

// BenchmarkCalls counts the calls of two workers side by side, with the default
// settings: one that has nothing, and one that has a project and waits for commands.
// Then the second one gets some.
func BenchmarkCalls(b *testing.B) {
	o := defaults()
	o.Idle = time.Hour // so that the project stays claimed
	nothing, claimed := platform.New(b, o), platform.New(b, o)
	without, with := watch(b, nothing.Set), watch(b, claimed.Set)
	nothing.StartWorker(without.servers...)
	claimed.StartWorker(with.servers...)
	j := claimed.AddProject("amelia", "scott")
	answer := func() {
		c := claimed.Command(j, "1", site.Add{})
		claimed.Send(c)
		claimed.AwaitAnswers(patience, c)
	}
	answer()
	platform.Wait(5 * time.Second) // what a command leaves behind is over
	from := time.Now()
	platform.Wait(idleWindow)
	to := time.Now()
	idle := rates(with.between(from, to), to.Sub(from))
	none := rates(without.between(from, to), to.Sub(from))

	from = time.Now()
	for range commands {
		answer()
	}
	platform.Wait(time.Second) // the last one is deleted after its answer
	to = time.Now()
	each := counts{}
	for name, at := range with.between(from, to) {
		idly := idle[name] * to.Sub(from).Hours()
		if n := (float64(len(at)) - idly) / commands; n > 0.05 {
			each[name] = n
		}
	}
	b.Logf("%d commands in %s: %v", commands, to.Sub(from), each)
	window := fmt.Sprintf("%.0f s", idleWindow.Seconds())
	results.set(callsIdle, row{none.text(0), "", window})
	results.set(callsClaimed, row{idle.text(0), "", window})
	results.set(callsMessage, row{each.text(1), "without what an idle claim makes meanwhile", fmt.Sprintf("%d commands", commands)})
}
