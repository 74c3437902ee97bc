package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

func TestMain(m *testing.M) { os.Exit(platform.Main(m)) }

// patience bounds each wait for the platform to come to rest.
const patience = 2 * time.Minute

// number reads a variable.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, v)
	}
	return n
}

// TestChaos is one short round, or what the environment asks for.
func TestChaos(t *testing.T) {
	seed := number(t, "CHAOS_SEED", int(time.Now().UnixNano()%1_000_000))
	rounds, faults := number(t, "CHAOS_ROUNDS", 1), number(t, "CHAOS_FAULTS", 6)
	total := &tally{}
	for round := range rounds {
		seed := seed + round
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Logf("CHAOS_SEED=%d CHAOS_ROUNDS=1 CHAOS_FAULTS=%d repeats this", seed, faults)
			c := newChaos(t, seed, faults, round*faults)
			c.run()
			total.add(c)
		})
	}
	t.Logf("in all:\n%s", total)
}

// chaos is one round.
type chaos struct {
	*platform.Platform
	t        *testing.T
	seed     int
	faults   []fault // what is to happen, in order
	projects []*platform.Project

	mu      sync.Mutex
	slots   [3]*platform.Worker // those that ought to live
	busy    [3]bool             // something is done to it
	next    int                 // of faults
	happens []fault
}

const threads = 2 // of each project

func newChaos(t *testing.T, seed, faults, from int) *chaos {
	t.Helper()
	c := &chaos{t: t, seed: seed, faults: deck(faults, from, rand.New(rand.NewPCG(uint64(seed), 0)))}
	c.Platform = platform.New(t, platform.Options{Idle: 2 * time.Second, Env: []string{"MAX_CLAIMS=2"}})
	for _, project := range []string{"amelia", "bert", "carol"} {
		j := c.AddProject(project, "scott")
		c.Watch(j, 150*time.Millisecond)
		c.projects = append(c.projects, j)
	}
	for i := range c.slots {
		c.slots[i] = c.StartWorker()
	}
	return c
}

// run sends and breaks until all faults have happened, and then waits for rest.
func (c *chaos) run() {
	stop := make(chan struct{})
	var senders, breakers sync.WaitGroup
	for i := range c.projects {
		senders.Go(func() { c.send(i, stop) })
	}
	senders.Go(func() { c.watchDead(stop) })
	// One worker is always left alone.
	for i := range len(c.slots) - 1 {
		breakers.Go(func() { c.breakWorkers(rand.New(rand.NewPCG(uint64(c.seed), uint64(100+i)))) })
	}
	breakers.Wait()
	close(stop)
	senders.Wait()
	c.settle()
	for i, j := range c.projects { // what is sent last is what the site shows
		c.Send(c.Command(j, strconv.Itoa(i%threads), site.Add{}))
	}
	c.settle()
	c.end()
}

// settle waits until everything is answered and at rest.
func (c *chaos) settle() {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watchDead(done) })
	defer watching.Wait()
	defer close(done)
	c.AwaitAnswers(patience)
	c.AwaitRest(patience)
}

// end checks that each worker ends in order, and the history.
func (c *chaos) end() {
	for _, w := range c.slots {
		w.Terminate("at rest")
	}
	for _, w := range c.slots {
		if code := w.Exit(c.Options.Grace + 2*time.Second); code != 0 {
			c.t.Errorf("worker %s exited with %d", w.Name, code)
		}
	}
	r := c.Check()
	c.t.Logf("%+v", r)
}
