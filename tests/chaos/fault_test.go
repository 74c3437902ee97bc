package chaos

import (
	"fmt"
	"math/rand/v2"
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

// breakWorkers does one fault after the other.
func (c *chaos) breakWorkers(rnd *rand.Rand) {
	for {
		platform.Wait(time.Duration(200+rnd.IntN(1200)) * time.Millisecond)
		f, ok := c.draw()
		if !ok {
			return
		}
		slot := c.reach(f.boundary)
		if slot < 0 {
			f.boundary = anyMoment
			slot = c.anyone(rnd)
		}
		c.do(f, slot, rnd)
		c.mu.Lock()
		c.happens = append(c.happens, f)
		c.busy[slot] = false
		c.mu.Unlock()
	}
}

// draw takes the next fault.
func (c *chaos) draw() (fault, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == len(c.faults) {
		return fault{}, false
	}
	c.next++
	return c.faults[c.next-1], true
}

// reserve makes a worker this breaker's alone; false if it is another's.
func (c *chaos) reserve(slot int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy[slot] {
		return false
	}
	c.busy[slot] = true
	return true
}

// anyone reserves a worker that has a project, if there is one, else any.
func (c *chaos) anyone(rnd *rand.Rand) int {
	order := rnd.Perm(len(c.slots))
	for _, slot := range order {
		if c.owned(c.worker(slot), "active") > 0 && c.reserve(slot) {
			return slot
		}
	}
	for i := 0; ; i++ { // there are more workers than breakers
		if slot := order[i%len(order)]; c.reserve(slot) {
			return slot
		}
	}
}

func (c *chaos) worker(slot int) *platform.Worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[slot]
}

// enough is how long a breaker waits for a boundary. After a crash it takes a
// while until somebody works again.
const enough = 20 * time.Second

// reach waits until a worker is at a boundary, and reserves it; less than nothing
// if none came there in time, or any moment will do. At a mark the command is held.
func (c *chaos) reach(boundary string) int {
	if boundary == anyMoment {
		return -1
	}
	found, seen := -1, make([]*watched, len(c.slots))
	poll(enough, func() bool {
		for slot := range c.slots {
			w := c.worker(slot)
			if seen[slot] == nil || seen[slot].w != w { // it was replaced
				seen[slot] = c.watch(w, boundary)
			}
			if seen[slot].is() && c.reserve(slot) {
				found = slot
				return true
			}
		}
		return false
	})
	for slot, other := range seen {
		if slot != found && other != nil {
			other.w.Disarm(boundary)
			other.w.Release(boundary)
		}
	}
	return found
}

// watched is a worker of which is reports whether it is at a boundary.
type watched struct {
	w  *platform.Worker
	is func() bool
}

func (c *chaos) watch(w *platform.Worker, boundary string) *watched {
	switch boundary {
	case "agent runs", "build runs":
		kind := strings.Fields(boundary)[0]
		return &watched{w, func() bool { return c.runs(w, kind) }}
	case "claimed":
		was := c.owned(w, "active")
		return &watched{w, func() bool {
			now := c.owned(w, "active")
			grown := now > was
			was = now
			return grown
		}}
	case "leaving":
		return &watched{w, func() bool { return c.owned(w, "releasing") > 0 }}
	}
	if err := w.Arm(boundary, "hold"); err != nil {
		c.t.Error(err)
	}
	return &watched{w, func() bool { return w.Fired(boundary) }}
}

// poll reports whether something becomes true in time.
func poll(within time.Duration, is func() bool) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(40 * time.Millisecond)
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
	w := c.worker(slot)
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
func table(all []fault) string {
	counts := map[fault]int{}
	for _, h := range all {
		counts[h]++
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
	happens []fault
}

func (t *tally) add(c *chaos) {
	t.happens = append(t.happens, c.happens...)
}

// String describes all rounds.
func (t *tally) String() string {
	return table(t.happens)
}
