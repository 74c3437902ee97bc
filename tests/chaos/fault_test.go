package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/runlog"
)

// fault is what is to be done to a worker, and when.
type fault struct{ kind, boundary string }

// The moments. A mark is the time after it was written into the journal.
func boundaries() []string {
	return []string{
		"opened", "agent runs", "agent", "committed", "build runs", "built", "deployed", "pushed", "finished", "answered",
		"claimed", "leaving", anyMoment,
	}
}

const anyMoment = "any moment"

func kinds() []string {
	return []string{"kill", "kill tree", "freeze", "freeze tree", "term", "roll", "cut (reset)", "cut (silence)", "cut one server", "slow"}
}

// deck is a number of faults: all kinds at all boundaries in turn, beginning
// anywhere in the turn, and shuffled within what is taken.
func deck(n, from int, rnd *rand.Rand) []fault {
	ks, bs := kinds(), boundaries()
	all := make([]fault, n)
	for i := range all {
		at := from + i
		// The numbers of kinds and boundaries have no common divisor: this way
		// each meets each.
		all[i] = fault{ks[at%len(ks)], bs[at%len(bs)]}
	}
	rnd.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// happened is a fault that happened. The boundary is what it was, and not what was
// wanted, if it did not come in time.
type happened struct{ fault }

// breakWorkers does one fault after the other.
func (c *chaos) breakWorkers(rnd *rand.Rand) {
	for {
		platform.Wait(time.Duration(200+rnd.IntN(1200)) * time.Millisecond)
		f, slot, ok := c.begin(rnd)
		if !ok {
			return
		}
		w := c.slots[slot]
		f.boundary = c.reach(w, f.boundary)
		c.do(f, slot, rnd)
		c.mu.Lock()
		c.happens = append(c.happens, happened{f})
		c.busy[slot] = false
		c.mu.Unlock()
	}
}

// begin takes the next fault, and a worker for it: one that has a project if there
// is one.
func (c *chaos) begin(rnd *rand.Rand) (fault, int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == len(c.faults) {
		return fault{}, 0, false
	}
	f := c.faults[c.next]
	c.next++
	var free, owners []int
	for i, w := range c.slots {
		if c.busy[i] {
			continue
		}
		free = append(free, i)
		if slices.ContainsFunc(c.projects, func(j *platform.Project) bool { return c.Owner(j) == w }) {
			owners = append(owners, i)
		}
	}
	if len(owners) > 0 {
		free = owners
	}
	slot := free[rnd.IntN(len(free))]
	c.busy[slot] = true
	return f, slot, true
}

// reach waits until a worker is at a boundary, and returns which one it is: any
// moment, if the boundary did not come in time. At a mark the command is held there.
func (c *chaos) reach(w *platform.Worker, boundary string) string {
	const enough = 8 * time.Second
	is := func() bool { return w.Fired(boundary) }
	switch boundary {
	case anyMoment:
		return anyMoment
	case "agent runs", "build runs":
		kind := strings.Fields(boundary)[0]
		is = func() bool { return c.runs(w, kind) }
	case "claimed":
		was := c.owned(w, "active")
		is = func() bool { now := c.owned(w, "active"); grown := now > was; was = min(was, now); return grown }
	case "leaving":
		is = func() bool { return c.owned(w, "releasing") > 0 }
	default:
		if err := w.Arm(boundary, "hold"); err != nil {
			c.t.Error(err)
		}
	}
	if poll(enough, is) {
		return boundary
	}
	w.Disarm(boundary)
	w.Release(boundary)
	return anyMoment
}

// poll reports whether something becomes true in time.
func poll(within time.Duration, is func() bool) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(15 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-late.C:
			return false
		}
	}
	return true
}

// runs reports whether an agent or a build runs below a worker.
func (c *chaos) runs(w *platform.Worker, kind string) bool {
	running := map[int]bool{}
	for _, r := range c.Runs() {
		if r.Worker == w.Name && r.Kind == kind {
			running[r.Pid] = r.Event == runlog.Start
		}
	}
	for _, is := range running {
		if is {
			return true
		}
	}
	return false
}

// owned counts the rows of a status that name a worker.
func (c *chaos) owned(w *platform.Worker, status string) int {
	n := 0
	for _, j := range c.projects {
		if row, err := c.Row(j); err == nil && row.ContainerID == w.Name && row.Status == status {
			n++
		}
	}
	return n
}

// do does it, and heals what can be healed: whoever died is replaced.
func (c *chaos) do(f fault, slot int, rnd *rand.Rand) {
	w := c.slots[slot]
	pastLease := c.Options.Lease + time.Duration(rnd.IntN(3000))*time.Millisecond
	c.t.Logf("%s %s at %s: %s", time.Now().Format("15:04:05.000"), w.Name, f.boundary, f.kind)
	switch f.kind {
	case "kill":
		w.Kill(f.boundary)
		c.replace(slot)
	case "kill tree":
		w.KillTree(f.boundary)
		c.replace(slot)
	case "freeze", "freeze tree":
		if f.kind == "freeze" {
			w.Freeze(f.boundary)
		} else {
			w.FreezeTree(f.boundary)
		}
		w.Release(f.boundary)
		platform.Wait(pastLease)
		w.Thaw()
	case "term":
		w.Terminate(f.boundary)
		w.Release(f.boundary)
		c.ends(w)
		c.replace(slot)
	case "roll":
		c.replace(slot)
		w.Terminate(f.boundary)
		w.Release(f.boundary)
		c.ends(w)
	case "cut (reset)", "cut (silence)":
		w.Cut(f.kind == "cut (silence)", f.boundary)
		w.Release(f.boundary)
		platform.Wait(pastLease)
		w.Restore()
	case "cut one server":
		c.cutOne(w, f.boundary, rnd)
	case "slow":
		c.slow(w, f.boundary, rnd)
	}
	w.Release(f.boundary)
}

func (c *chaos) cutOne(w *platform.Worker, boundary string, rnd *rand.Rand) {
	end := c.Note(platform.Fault{Worker: w.Name, Kind: "cut one server", Boundary: boundary})
	defer end()
	link := []*platform.Link{w.SQS, w.DynamoDB, w.S3, w.Git}[rnd.IntN(4)]
	if rnd.IntN(2) == 0 {
		link.Reset()
	} else {
		link.Swallow()
	}
	defer link.Restore()
	w.Release(boundary)
	platform.Wait(time.Duration(500+rnd.IntN(6000)) * time.Millisecond)
}

func (c *chaos) slow(w *platform.Worker, boundary string, rnd *rand.Rand) {
	end := c.Note(platform.Fault{Worker: w.Name, Kind: "slow", Boundary: boundary})
	defer end()
	for _, l := range []*platform.Link{w.SQS, w.DynamoDB, w.S3, w.Git} {
		l.Delay(time.Duration(rnd.IntN(300)) * time.Millisecond)
		defer l.Delay(0)
	}
	w.Release(boundary)
	platform.Wait(time.Duration(2000+rnd.IntN(3000)) * time.Millisecond)
}

// ends waits for a worker that was told to end.
func (c *chaos) ends(w *platform.Worker) {
	within := c.Options.Grace + 2*time.Second
	select {
	case <-w.Ended():
		if code := w.Exit(time.Second); code != 0 {
			c.t.Errorf("worker %s exited with %d after SIGTERM", w.Name, code)
		}
	case <-time.After(within):
		c.t.Errorf("worker %s has not ended within %s of SIGTERM", w.Name, within)
		w.KillTree("did not end")
	}
}

func (c *chaos) replace(slot int) {
	w := c.StartWorker()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots[slot] = w
}

// table counts faults by kind and boundary.
func table(all []happened) string {
	counts := map[fault]int{}
	for _, h := range all {
		counts[h.fault]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s", "")
	for _, k := range kinds() {
		fmt.Fprintf(&b, " %14s", k)
	}
	b.WriteString("\n")
	for _, at := range boundaries() {
		fmt.Fprintf(&b, "%-12s", at)
		for _, k := range kinds() {
			fmt.Fprintf(&b, " %14d", counts[fault{k, at}])
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d faults", len(all))
	return b.String()
}

// tally adds rounds up.
type tally struct {
	happens []happened
	redrove int
}

func (t *tally) add(c *chaos) {
	t.happens = append(t.happens, c.happens...)
	t.redrove += c.redrove
}

// String describes all rounds.
func (t *tally) String() string {
	return fmt.Sprintf("%s\n%d dead letters put back", table(t.happens), t.redrove)
}
