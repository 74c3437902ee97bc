package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/modelserver"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

const interrupts = 7 // in each way, and one that does not count

// cutting is one way to be at work when a newer command comes.
type cutting struct {
	name string
	// script is asked for a turn that makes a file when it has begun, or reaches a gate.
	script func(file string) (modelserver.Turn, *modelserver.Gate)
	gone   []time.Duration // from sending the newer command
	next   []time.Duration // from there to its first request of the model
}

// BenchmarkInterrupt sends a newer command of the same thread while the real CLI works
// on one.
func BenchmarkInterrupt(b *testing.B) {
	model := modelserver.Start(b)
	o := defaults()
	o.Policy, o.Unlogged = "thread", true
	o.Env = append(o.Env, "AGENT=claude", "CLAUDE_PATH="+realCLI(b), "ANTHROPIC_BASE_URL="+model.URL(), "ANTHROPIC_API_KEY=sk-ant-bench", "SANDBOX=auto")
	p := platform.New(b, o)
	j := p.AddProject("amelia", "scott")
	w := p.StartWorker(straight(p.Set)...)
	tool := func(script string) func(string) (modelserver.Turn, *modelserver.Gate) {
		return func(file string) (modelserver.Turn, *modelserver.Gate) {
			return modelserver.Bash(fmt.Sprintf(script, file)), nil
		}
	}
	ways := []*cutting{
		{name: "the model thinks", script: func(string) (modelserver.Turn, *modelserver.Gate) {
			gate := modelserver.NewGate()
			return modelserver.Say("never").Behind(gate), gate
		}},
		{name: "a tool runs", script: tool("touch %s; sleep 301")},
		{name: "a tool ignores TERM", script: tool(`(trap '' TERM; setsid nohup sleep 302 & touch %s; while :; do sleep 1; done)`)},
	}
	for round := range interrupts + 1 {
		for i, way := range ways {
			cut := &cut{b: b, p: p, w: w, j: j, model: model, thread: strconv.Itoa(round*len(ways) + i)}
			gone, next := cut.run(way)
			if round > 0 {
				way.gone, way.next = append(way.gone, gone), append(way.next, next)
			}
		}
	}
	var gone, next []string
	for _, way := range ways {
		b.Logf("%s: gone after %v, next request after further %v", way.name, way.gone, way.next)
		gone = append(gone, way.name+": "+spread(way.gone, time.Millisecond, 0))
		next = append(next, way.name+": "+spread(way.next, time.Millisecond, 0))
	}
	runs := fmt.Sprintf("%d each", interrupts)
	results.set(interruptGone, row{strings.Join(gone, "; "), "goals ≤ 300 ms, ≤ 2,500 ms where TERM is ignored", runs})
	results.set(interruptNext, row{strings.Join(next, "; "), "goal ≤ 1,500 ms, counted from gone", runs})
}

// cut is one interruption, in a thread of its own.
type cut struct {
	b      *testing.B
	p      *platform.Platform
	w      *platform.Worker
	j      *platform.Project
	model  *modelserver.Server
	thread string
}

// run returns how long after the newer command was sent nothing of the older one's
// processes is left, and how long after that the model is asked about the newer one.
func (c *cut) run(way *cutting) (gone, next time.Duration) {
	c.b.Helper()
	older, newer := c.p.Command(c.j, c.thread, site.Add{}), c.p.Command(c.j, c.thread, site.Add{})
	file := "reached-" + c.thread // another one's may still be there
	turn, gate := way.script(file)
	c.model.Play(older.Add.String(), turn)
	c.model.Play(newer.Add.String(), modelserver.Bash("rm -f "+file), modelserver.Say("Done."))
	c.p.Send(older)
	c.await(way.name+" is reached", func() bool { return c.reached(file, gate) })
	tree := c.w.Tree()[1:]
	if len(tree) == 0 {
		c.b.Fatalf("%s: nothing runs", way.name)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sent := time.Now()
	sending.Go(func() { c.p.Send(newer) })
	c.await("the end of "+way.name, func() bool {
		return !slices.ContainsFunc(c.w.Tree(), func(pid int) bool { return slices.Contains(tree, pid) })
	})
	ended := time.Now()
	asked := time.Time{}
	c.await("a request of the newer command", func() bool {
		for _, r := range c.model.Requests() {
			if r.Script == newer.Add.String() {
				asked = r.At
				return true
			}
		}
		return false
	})
	c.p.AwaitAnswers(patience, older, newer)
	if out := c.p.Answers(older.ID)[0].Output; !out.Interrupted {
		c.b.Fatalf("%s: it was not interrupted: %+v", way.name, out)
	}
	return ended.Sub(sent), asked.Sub(ended)
}

func (c *cut) reached(file string, gate *modelserver.Gate) bool {
	if gate == nil {
		_, err := os.Stat(filepath.Join(c.p.Workspaces, "amelia-scott", "site", file))
		return err == nil
	}
	select {
	case <-gate.Reached():
		return true
	default:
		return false
	}
}

func (c *cut) await(what string, is func() bool) {
	c.b.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-late.C:
			c.b.Fatalf("no %s within %s", what, patience)
		}
	}
}
