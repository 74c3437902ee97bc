package router_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
	"github.com/webordinary/claude-code-container/router"
)

// dies leaves a project as a crash does: its row is active and stands still.
func (p *platform) dies(t *testing.T, key string) {
	t.Helper()
	l, err := (&claim.Claims{Table: p.table, ContainerID: "dead"}).Acquire(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	l.Abandon()
}

// TestDeadOwnersProjectIsTakenOver: nobody asks for it, as the row says that
// somebody works.
func TestDeadOwnersProjectIsTakenOver(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.dies(t, "amelia#scott")
		p.publish(t, input, denied("amelia", "c-1"))
		<-time.After(45 * time.Second)
		if got := p.answers(t, output); len(got) != 0 {
			t.Fatalf("answers %v while the row may still be somebody's", got)
		}
		// Seen at the first look, taken at one of the looks after 45 s, and
		// then gathered until what the dead owner held is visible again.
		<-time.After(45 * time.Second)
		if d := cmp.Diff([]string{"c-1 repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error(d)
		}
		// The tenure began uncleanly, so it ends with a claim request for what
		// may have been invisible; that one finds nothing, and leaves.
		<-time.After(10 * time.Minute)
		row, err := p.table.Get(t.Context(), "amelia#scott")
		if err != nil || row.Status != claim.Released || row.Fence < 946684802 {
			t.Errorf("row %+v, %v", row, err)
		}
	})
}

// TestTakeoverKeepsTheOrder: a command that the dead owner held comes back after
// one that was sent later, and is still worked on first.
func TestTakeoverKeepsTheOrder(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.dies(t, "amelia#scott")
		<-time.After(50 * time.Second)
		held := message.NewMessage(watermill.NewUUID(), []byte(denied("amelia", "held")))
		held.Metadata.Set(protocol.AttrSentAt, protocol.Delivery{Sent: time.Now().Add(-time.Hour)}.SentAt())
		p.publish(t, input, denied("amelia", "later"))
		<-time.After(4 * time.Second)
		if err := p.queues.Memory.Publish(input, held); err != nil {
			t.Fatal(err)
		}
		<-time.After(30 * time.Second)
		if d := cmp.Diff([]string{"held repo_not_allowed", "later repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error(d)
		}
	})
}

func TestNoRoomForAnOrphanIsCounted(t *testing.T) {
	var metrics strings.Builder
	in(t, func(c *router.Config) { c.Metrics, c.IdleTimeout = &metrics, time.Hour }, func(p *platform) {
		t := p.t
		p.publish(t, unclaimed, request("bakery"))
		p.dies(t, "amelia#scott")
		<-time.After(2 * time.Minute)
		p.leave(t) // and with it the writer
		if !strings.Contains(metrics.String(), `"orphans":1`) || p.status(t, "amelia#scott") != claim.Active {
			t.Errorf("metrics %s", metrics.String())
		}
	})
}

// downTable is a table that is out of reach for a while.
type downTable struct {
	*claim.Memory
	until time.Time
}

var errTableDown = errors.New("the table is down")

// Get implements claim.Table.
func (d *downTable) Get(ctx context.Context, key string) (claim.Row, error) {
	if time.Now().Before(d.until) {
		return claim.Row{}, errTableDown
	}
	return d.Memory.Get(ctx, key)
}

// TestClaimRequestOutlivesAnOutage of the table: dead-lettered, it would leave
// its project to nobody.
func TestClaimRequestOutlivesAnOutage(t *testing.T) {
	in(t, func(c *router.Config) {
		c.Claims.Table = &downTable{Memory: c.Claims.Table.(*claim.Memory), until: time.Now().Add(10 * time.Minute)}
	}, func(p *platform) {
		t := p.t
		p.collect(t, output, dead, unclaimed+"-dlq")
		p.publish(t, unclaimed, denied("amelia", "c-1"))
		<-time.After(11 * time.Minute)
		if d := cmp.Diff([]string{"c-1 repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error(d)
		}
		if n := len(p.take(unclaimed + "-dlq")); n != 0 {
			t.Errorf("%d dead letters", n)
		}
	})
}

// TestShutdownEndsInTimeWhateverIsDown: here it is the output queue.
func TestShutdownEndsInTimeWhateverIsDown(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.queues.mu.Lock()
		p.queues.hang = output
		p.queues.mu.Unlock()
		p.publish(t, unclaimed, denied("amelia", "c-1"))
		<-time.After(5 * time.Second)
		p.leave(t) // asserts 25 s
		if n := p.queues.Waiting(input); n != 1 {
			t.Errorf("%d messages left in the input queue, want the unanswered one", n)
		}
	})
}

const interruptsTopic = "webordinary-interrupts-amelia-scott"

func TestInterruptsQueue(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead, unclaimed+"-dlq")
		p.publish(t, interruptsTopic, `{"type":"INTERRUPT"}`) // the queue exists, and nothing runs
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
		if n := p.queues.Waiting(interruptsTopic); n != 0 {
			t.Fatalf("%d interrupts are left in their queue", n)
		}
		p.publish(t, interruptsTopic, "not JSON")
		p.publish(t, interruptsTopic, strings.Replace(denied("amelia", "c-9"), `"work"`, `"interrupt"`, 1))
		<-time.After(5 * time.Second)
		if d := cmp.Diff([]string{"c-9 repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error("an instruction by the interrupts queue:", d)
		}
		if got := p.take(unclaimed + "-dlq"); len(got) != 1 || got[0].Metadata.Get(middleware.PoisonReason) == "" {
			t.Errorf("%d dead letters, want what is not JSON", len(got))
		}
		<-time.After(5 * time.Minute)
		if s := p.status(t, "amelia#scott"); s != claim.Released {
			t.Errorf("status %q, want released", s)
		}
	})
}

// TestAnnouncesWhatItFinds: two pairs can share a queue. What a leaving worker
// hands back is announced under its own ids.
func TestAnnouncesWhatItFinds(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.queues.mu.Lock()
		p.queues.hang = "webordinary-output-amelia-site-scott"
		p.queues.mu.Unlock()
		p.publish(t, unclaimed, request("amelia-site"))
		<-time.After(5 * time.Second)
		p.publish(t, "webordinary-input-amelia-site-scott", denied("amelia-site", "c-1"))
		<-time.After(time.Second)
		p.publish(t, "webordinary-input-amelia-site-scott", strings.Replace(denied("amelia", "c-2"), `"scott"`, `"site-scott"`, 1))
		<-time.After(5 * time.Second)
		p.leave(t)
		p.collect(t, unclaimed)
		<-time.After(3 * time.Second) // they come when the row is released
		var asked []string
		for _, m := range p.take(unclaimed) {
			c, err := protocol.DecodeUnclaimed(m.Payload, protocol.Delivery{})
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, c.Pair().Key())
		}
		slices.Sort(asked)
		if d := cmp.Diff([]string{"amelia#site-scott", "amelia-site#scott"}, asked); d != "" {
			t.Error("asked for (-want +got):", d)
		}
	})
}

func TestBusyWhileAJobRuns(t *testing.T) {
	var changes atomic.Int32
	in(t, func(c *router.Config) {
		c.Busy = func(on bool) { changes.Add(map[bool]int32{true: 1, false: 100}[on]) }
	}, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.publish(t, unclaimed, denied("amelia", "c-1"))
		<-time.After(10 * time.Second)
		if got := changes.Load(); got != 101 {
			t.Errorf("%d, want once on and once off", got)
		}
	})
}
