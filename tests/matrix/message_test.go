package matrix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// orderedMessages come faster than they can be done, and are done in order.
func orderedMessages(t *testing.T) {
	w := newWorld(t, platform.Options{})
	w.StartWorker()
	var want []string
	for range 6 {
		c := w.Command(w.j, "1", site.Add{})
		w.Send(c)
		want = append(want, c.ID)
	}
	w.AwaitAnswers(patience)
	got := slices.Clone(want)
	slices.SortStableFunc(got, func(a, b string) int { return w.Answers(a)[0].At.Compare(w.Answers(b)[0].At) })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("order of the answers (-want +got):\n%s", d)
	}
	w.Check()
}

// rapidMessages of somebody who keeps correcting himself: each is answered once, and
// the last one wins.
func rapidMessages(t *testing.T) {
	w := newWorld(t, platform.Options{Policy: "thread"})
	w.StartWorker()
	var all []*platform.Command
	for range 5 {
		c := w.Command(w.j, "1", site.Add{Work: time.Second})
		w.Send(c)
		all = append(all, c)
		platform.Wait(400 * time.Millisecond)
	}
	interrupted := 0
	for i, c := range all {
		switch out := w.answer(c, 1); {
		case out.Interrupted && !out.Success && out.ErrorCode == protocol.Interrupted && i < len(all)-1:
			interrupted++
		case !out.Success || out.Interrupted:
			t.Errorf("message %d: %+v", i, out)
		}
	}
	if last := all[len(all)-1]; interrupted == 0 || !w.shows(last) {
		t.Errorf("%d messages were interrupted, and the site shows the last: %v", interrupted, w.shows(last))
	}
}

// twoSecondsIntoABuild returns a command whose build has run for two seconds, and
// would run for long.
func (w *world) twoSecondsIntoABuild() *platform.Command {
	w.t.Helper()
	c := w.Command(w.j, "1", site.Add{Build: 50 * time.Second})
	w.Send(c)
	w.AwaitRun(c, "build", patience)
	platform.Wait(2 * time.Second)
	return c
}

// cutOff checks the answer of a command whose build was interrupted just now: TERM
// is heeded at once, and KILL would come after 2 s. The rest is for a busy machine;
// the build would take longer.
func (w *world) cutOff(c *platform.Command, worker *platform.Worker) {
	w.t.Helper()
	began := time.Now()
	out := w.answer(c, 1)
	w.t.Logf("answered %s after the interruption was sent", time.Since(began).Round(time.Millisecond))
	w.failed(out, protocol.Interrupted, "kept on the branch")
	if took := time.Since(began); took > 20*time.Second {
		w.t.Errorf("answered after %s", took)
	}
	if !out.Interrupted || out.BuildSuccess || out.DeploySuccess {
		w.t.Errorf("answer %+v", out)
	}
	w.await(5*time.Second, "the build is gone", func() bool {
		return !slices.ContainsFunc(worker.Left(), func(p string) bool { return strings.HasSuffix(p, " build") })
	})
}

func interruptedBuild(t *testing.T) {
	w := newWorld(t, platform.Options{Policy: "thread", Npm: true})
	worker := w.StartWorker()
	c := w.twoSecondsIntoABuild()
	w.Interrupt(w.j, "I have changed my mind")
	w.cutOff(c, worker)
	w.holds("thread-1", c)
	if subject := w.git("log", "-1", "--format=%s", "thread-1"); !strings.HasPrefix(subject, "WIP: ") {
		t.Errorf("its work was saved as %q", subject)
	}
	if w.shows(c) {
		t.Error("it was deployed")
	}
	next := w.Command(w.j, "1", site.Add{})
	w.well(next)
	w.holds("thread-1", c, next)
	w.await(patience, "the interrupt is acknowledged", func() bool {
		q, err := w.Queue(w.j.InterruptsURL)
		return err == nil && q == platform.Queue{}
	})
}

func overtakenBuild(t *testing.T) {
	w := newWorld(t, platform.Options{Policy: "thread", Npm: true})
	worker := w.StartWorker()
	c := w.twoSecondsIntoABuild()
	newer := w.Command(w.j, "1", site.Add{})
	w.Send(newer)
	w.cutOff(c, worker)
	if out := w.answer(newer, 1); !out.Success || !w.shows(newer) {
		t.Errorf("the newer one's answer: %+v", out)
	}
	w.holds("thread-1", c, newer)
}

// malformed messages go to dead-letter queues with the reason, and hold nothing up.
func malformed(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second})
	w.StartWorker()
	w.Put(w.UnclaimedURL, "{this is no JSON", 0)
	w.Put(w.j.InputURL, "neither is this", 0)
	w.Put(w.j.InputURL, `{"projectId":"../..","userId":"x","commandId":"c","instruction":"escape"}`, 0)
	empty := edit(t, w.Command(w.j, "1", site.Add{}), map[string]any{"instruction": " "})
	w.failed(w.do(empty), protocol.InvalidMessage, "instruction")
	w.well(w.Command(w.j, "1", site.Add{}))
	var dead []string
	w.await(patience, "four dead letters", func() bool {
		for _, d := range w.TakeDead() {
			where := "of the pair"
			if d.Queue == w.Names.UnclaimedDLQ {
				where = "unclaimed"
			}
			if d.Attributes["poison_reason"] == "" {
				t.Errorf("a dead letter without a reason: %+v", d)
			}
			dead = append(dead, fmt.Sprintf("%s: %.16s", where, d.Body))
		}
		return len(dead) >= 4
	})
	slices.Sort(dead)
	want := []string{
		"of the pair: " + empty.Body[:16], "unclaimed: neither is this", `unclaimed: {"projectId":"..`, "unclaimed: {this is no JSON",
	}
	if d := cmp.Diff(want, dead); d != "" {
		t.Errorf("dead letters (-want +got):\n%s", d)
	}
}
