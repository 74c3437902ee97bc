package chaos

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// backlog bounds the commands of a project that wait for their answers.
const backlog = 4

// send sends commands for one project until it is to stop: in bursts, with pauses
// in which the project becomes idle, some of them twice, or late, or by the
// unclaimed queue.
func (c *chaos) send(project int, stop <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(c.seed), uint64(1+project)))
	ms := func(most int) time.Duration { return time.Duration(rnd.IntN(most)) * time.Millisecond }
	j := c.projects[project]
	var sent []*platform.Command
	for {
		pause := 300*time.Millisecond + ms(1500)
		if rnd.IntN(8) == 0 {
			pause = 4*time.Second + ms(6000) // time to be idle, and to leave
		}
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		choice, thread := rnd.IntN(20), strconv.Itoa(rnd.IntN(threads))
		cmd := c.Command(j, thread, site.Add{Work: ms(1200), Build: ms(300)})
		late := time.Duration(1+rnd.IntN(2)) * time.Second
		again := 0
		if len(sent) > 0 {
			again = rnd.IntN(min(len(sent), 3))
		}
		if c.waiting(sent) >= backlog {
			continue
		}
		switch {
		case choice == 0:
			c.SendLate(cmd, late)
		case choice == 1:
			c.SendUnclaimed(cmd)
		case choice <= 3 && len(sent) > 0: // a duplicate, perhaps of what runs
			c.Send(sent[len(sent)-1-again])
			continue
		case choice == 4:
			c.RequestClaim(j, late)
			c.Send(cmd)
		case choice == 5:
			c.Send(cmd)
			c.Send(cmd)
		default:
			c.Send(cmd)
		}
		sent = append(sent, cmd)
	}
}

func (c *chaos) waiting(sent []*platform.Command) int {
	n := 0
	for _, cmd := range sent {
		if len(c.Answers(cmd.ID)) == 0 {
			n++
		}
	}
	return n
}

// watchDead says of each dead letter that it should not be.
func (c *chaos) watchDead(stop <-chan struct{}) {
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		for _, d := range c.TakeDead() {
			c.t.Errorf("a dead letter in %s: %s %v", d.Queue, d.Body, d.Attributes)
		}
		select {
		case <-stop:
			return
		case <-again.C:
		}
	}
}
