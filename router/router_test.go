package router_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/middleware"
	"github.com/webordinary/claude-code-container/router"
)

const unclaimed = "webordinary-unclaimed"

// platform is a worker over queues in memory, and what came out of it. The
// commands that tests send are refused ones: they take the whole way but need no
// git, no agent and no build. Each test runs in a bubble, whose time is not real.
type platform struct {
	t      *testing.T // of the bubble
	queues *faultyQueues
	table  *claim.Memory
	stop   context.CancelFunc
	ended  chan error

	mu  sync.Mutex
	got map[string][]*message.Message
}

// faultyQueues fails to publish to a topic as often as it is told to.
type faultyQueues struct {
	*router.Memory
	mu   sync.Mutex
	fail map[string]int
	hang string // a topic that takes nothing and gives no answer
}

// errQueueDown is what a faulty queue says.
var errQueueDown = errors.New("the queue is down")

// Publish implements message.Publisher.
func (q *faultyQueues) Publish(topic string, messages ...*message.Message) error {
	q.mu.Lock()
	n := q.fail[topic]
	q.fail[topic] = max(n-1, 0)
	hang := q.hang == topic
	q.mu.Unlock()
	if hang {
		<-messages[0].Context().Done()
		return context.Cause(messages[0].Context())
	}
	if n > 0 {
		return errQueueDown
	}
	return q.Memory.Publish(topic, messages...)
}

// in runs a test in a bubble, with a worker that ends with it.
func in(t *testing.T, change func(*router.Config), test func(*platform)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		p.t = t
		p.start(t, "one", change)
		test(p)
		p.leave(t)
		if err := p.queues.Close(); err != nil {
			t.Error(err)
		}
	})
}

func newPlatform() *platform {
	return &platform{
		queues: &faultyQueues{Memory: router.NewMemory(router.MemoryConfig{}), fail: map[string]int{}},
		table:  &claim.Memory{}, got: map[string][]*message.Message{},
	}
}

func (p *platform) start(t *testing.T, container string, change func(*router.Config)) {
	t.Helper()
	store, err := journal.NewDirectory(journal.DirectoryConfig{Root: t.TempDir(), Current: p.fence})
	if err != nil {
		t.Fatal(err)
	}
	c := router.Config{
		Unclaimed: unclaimed, Queues: p.queues,
		Claims: &claim.Claims{Table: p.table, ContainerID: container},
		Instruction: handlers.Instruction{
			Workspaces: workspace.New(workspace.Config{Root: t.TempDir()}),
			Journal:    &journal.Journal{Store: store}, Rules: protocol.Rules{AllowedRepoHosts: []string{"github.com"}},
		},
		IdleTimeout: time.Minute,
	}
	if change != nil {
		change(&c)
	}
	r, err := router.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.stop, p.ended = cancel, make(chan error, 1)
	go func() { p.ended <- r.Run(ctx) }()
	<-r.Running()
}

// leave ends the worker, as SIGTERM does.
func (p *platform) leave(t *testing.T) {
	t.Helper()
	p.stop()
	began := time.Now()
	if err := <-p.ended; err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("leaving took %v", took)
	}
	p.ended <- nil
}

func (p *platform) fence(ctx context.Context, key string) (int64, error) {
	row, err := p.table.Get(ctx, key)
	if errors.Is(err, claim.ErrNoRow) {
		return 0, nil
	}
	return row.Fence, err
}

func (p *platform) status(t *testing.T, key string) claim.Status {
	t.Helper()
	row, err := p.table.Get(t.Context(), key)
	if errors.Is(err, claim.ErrNoRow) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return row.Status
}

// collect takes what comes to a topic.
func (p *platform) collect(t *testing.T, topics ...string) {
	t.Helper()
	for _, topic := range topics {
		messages, err := p.queues.Subscriber(nil, nil).Subscribe(context.WithoutCancel(t.Context()), topic)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for m := range messages {
				p.mu.Lock()
				p.got[topic] = append(p.got[topic], m.Copy())
				p.mu.Unlock()
				m.Ack()
			}
		}()
	}
}

func (p *platform) take(topic string) []*message.Message {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[topic])
}

// answers returns the command ids and error codes of the answers on a topic.
func (p *platform) answers(t *testing.T, topic string) []string {
	t.Helper()
	var all []string
	for _, m := range p.take(topic) {
		var out protocol.OutputMessage
		if err := json.Unmarshal(m.Payload, &out); err != nil {
			t.Fatal(err)
		}
		all = append(all, out.CommandID+" "+string(out.ErrorCode))
	}
	return all
}

func (p *platform) publish(t *testing.T, topic, body string) {
	t.Helper()
	if err := p.queues.Memory.Publish(topic, message.NewMessage(watermill.NewUUID(), []byte(body))); err != nil {
		t.Fatal(err)
	}
}

// denied is a command that is answered repo_not_allowed.
func denied(project, id string) string {
	return `{"type":"work","projectId":"` + project + `","userId":"scott","threadId":"t","sessionId":"s","commandId":"` + id +
		`","repoUrl":"https://example.com/x.git","instruction":"do it"}`
}

func request(project string) string {
	return `{"type":"claim_request","projectId":"` + project + `","userId":"scott"}`
}

const (
	input  = "webordinary-input-amelia-scott"
	output = "webordinary-output-amelia-scott"
	dead   = "webordinary-dlq-amelia-scott"
)

func TestWorkComesWithTheClaimRequest(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.publish(t, unclaimed, denied("amelia", "c-1"))
		<-time.After(5 * time.Second)
		if d := cmp.Diff([]string{"c-1 repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error(d)
		}
		buried := p.take(dead)
		if len(buried) != 1 || buried[0].Metadata.Get(middleware.PoisonReason) == "" {
			t.Errorf("dead letters %v, want one with its reason", buried)
		}
		if n := p.queues.Waiting(input) + p.queues.Waiting(unclaimed); n != 0 {
			t.Errorf("%d messages are left in their queues", n)
		}
	})
}

func TestWorkWaitsInTheInputQueue(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		for _, id := range []string{"c-1", "c-2", "c-3"} {
			p.publish(t, input, denied("amelia", id))
			<-time.After(time.Millisecond) // so that their sent times differ
		}
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
		want := []string{"c-1 repo_not_allowed", "c-2 repo_not_allowed", "c-3 repo_not_allowed"}
		if d := cmp.Diff(want, p.answers(t, output)); d != "" {
			t.Error(d)
		}
	})
}

// TestForwardedCommandKeepsItsSentTime, and with it its place in the lane.
func TestForwardedCommandKeepsItsSentTime(t *testing.T) {
	p := newPlatform()
	r, err := router.New(router.Config{Unclaimed: unclaimed, Queues: p.queues, Claims: &claim.Claims{Table: p.table}})
	if err != nil {
		t.Fatal(err)
	}
	sent := time.Unix(1_700_000_000, 0)
	in, err := protocol.DecodeInput([]byte(denied("amelia", "c-1")), protocol.Delivery{MessageID: "m-1", Sent: sent, Receives: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Forward(t.Context(), *in.Command); err != nil {
		t.Fatal(err)
	}
	messages, err := p.queues.Subscriber(nil, nil).Subscribe(t.Context(), input)
	if err != nil {
		t.Fatal(err)
	}
	m := <-messages
	if got := protocol.DeliveryOf(m.Context()).Sent; !got.Equal(sent) {
		t.Errorf("sent at %v, want %v", got, sent)
	}
	m.Ack()
	if err := p.queues.Close(); err != nil {
		t.Error(err)
	}
}

func TestIdleProjectIsReleasedAndClaimedAgain(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		for i, id := range []string{"c-1", "c-2"} {
			p.publish(t, unclaimed, denied("amelia", id))
			<-time.After(5 * time.Second)
			if s := p.status(t, "amelia#scott"); s != claim.Active {
				t.Errorf("status %q while there is work, want active", s)
			}
			<-time.After(2 * time.Minute)
			if s := p.status(t, "amelia#scott"); s != claim.Released {
				t.Errorf("status %q when idle, want released", s)
			}
			if n := len(p.answers(t, output)); n != i+1 {
				t.Errorf("%d answers, want %d", n, i+1)
			}
		}
	})
}

// TestWorkThatComesAtTheLastMoment arrives while the owner looks a last time:
// the sender may have read the row before it said releasing.
func TestWorkThatComesAtTheLastMoment(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(time.Minute)
		began := time.Now()
		for p.status(t, "amelia#scott") != claim.Releasing {
			if time.Since(began) > 6*time.Second { // a receive that was under way ends first
				t.Fatalf("status %q, want releasing", p.status(t, "amelia#scott"))
			}
			<-time.After(100 * time.Millisecond)
		}
		p.publish(t, input, denied("amelia", "c-1"))
		<-time.After(time.Second)
		if s := p.status(t, "amelia#scott"); s != claim.Active {
			t.Errorf("status %q, want active again", s)
		}
		if d := cmp.Diff([]string{"c-1 repo_not_allowed"}, p.answers(t, output)); d != "" {
			t.Error(d)
		}
	})
}

// TestAContainerThatOwnsOneProjectClaimedASecond must be impossible: at
// MaxClaims, requests stay in the queue until there is room.
func TestAContainerThatOwnsOneProjectClaimedASecond(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
		p.publish(t, unclaimed, request("bakery"))
		<-time.After(30 * time.Second)
		if a, b := p.status(t, "amelia#scott"), p.status(t, "bakery#scott"); a != claim.Active || b != "" {
			t.Errorf("status %q and %q, want one claim at a time", a, b)
		}
		<-time.After(time.Minute)
		if a, b := p.status(t, "amelia#scott"), p.status(t, "bakery#scott"); a != claim.Released || b != claim.Active {
			t.Errorf("status %q and %q, want the second one claimed once the first is released", a, b)
		}
	})
}

func TestWhatCannotBeReadIsDeadLettered(t *testing.T) {
	// Room for a second claim keeps the unclaimed queue open.
	in(t, func(c *router.Config) { c.MaxClaims = 2 }, func(p *platform) {
		t := p.t
		p.collect(t, unclaimed+"-dlq", output, dead)
		p.publish(t, unclaimed, "not JSON")
		p.publish(t, unclaimed, `{"type":"claim_request","projectId":"../..","userId":"x"}`)
		p.publish(t, unclaimed, request("amelia"))
		p.publish(t, input, "not JSON either")
		<-time.After(10 * time.Second)
		if n := len(p.take(unclaimed + "-dlq")); n != 3 {
			t.Errorf("%d dead letters, want 3", n)
		}
		if n := p.queues.Waiting(input) + p.queues.Waiting(unclaimed); n != 0 {
			t.Errorf("%d messages circulate", n)
		}
	})
}

func TestAnotherPairsMessageInOurQueue(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		const theirs = "webordinary-output-other-scott"
		p.collect(t, output, theirs, "webordinary-dlq-other-scott")
		p.publish(t, unclaimed, request("amelia"))
		p.publish(t, input, denied("other", "c-1"))
		<-time.After(5 * time.Second)
		if d := cmp.Diff([]string{"c-1 wrong_project"}, p.answers(t, theirs)); d != "" {
			t.Error(d)
		}
		if n := len(p.take(output)); n != 0 {
			t.Errorf("%d answers to the owner of the queue, want none", n)
		}
		if n := len(p.take("webordinary-dlq-other-scott")); n != 1 {
			t.Errorf("%d dead letters, want 1", n)
		}
	})
}

// TestMessageLeavesItsQueueOnlyAfterItsAnswer: as long as the answer, or the
// dead letter, cannot be published, the message comes again, and the answer is
// the recorded one.
func TestMessageLeavesItsQueueOnlyAfterItsAnswer(t *testing.T) {
	for _, down := range []string{output, dead} {
		t.Run(down, func(t *testing.T) {
			in(t, nil, func(p *platform) {
				t := p.t
				p.collect(t, output, dead)
				p.queues.fail[down] = 3
				p.publish(t, unclaimed, request("amelia"))
				p.publish(t, input, denied("amelia", "c-1"))
				<-time.After(100 * time.Millisecond)
				if p.queues.Waiting(input) != 1 {
					t.Error("the message left its queue too early")
				}
				<-time.After(30 * time.Second)
				if d := cmp.Diff([]string{"c-1 repo_not_allowed"}, p.answers(t, output)); d != "" {
					t.Error(d)
				}
				if p.queues.Waiting(input) != 0 {
					t.Error("the message stayed in its queue")
				}
			})
		})
	}
}

func TestARedeliveryIsNotAnsweredTwice(t *testing.T) {
	in(t, nil, func(p *platform) {
		t := p.t
		p.collect(t, output, dead)
		p.publish(t, unclaimed, request("amelia"))
		p.publish(t, input, denied("amelia", "c-1"))
		<-time.After(5 * time.Second)
		other := `{"projectId":"amelia","userId":"scott","threadId":"t","sessionId":"s","commandId":"c-1",` +
			`"repoUrl":"https://example.com/x.git","instruction":"do something else"}`
		p.publish(t, input, other)
		<-time.After(5 * time.Second)
		want := []string{"c-1 repo_not_allowed", "c-1 command_id_reused"}
		if d := cmp.Diff(want, p.answers(t, output)); d != "" {
			t.Error(d)
		}
		p.publish(t, input, other)
		<-time.After(5 * time.Second)
		if d := cmp.Diff(want, p.answers(t, output)); d != "" {
			t.Error("answered twice for one content:", d)
		}
	})
}

// TestLeaving is SIGTERM: what waits stays in its queue, somebody is asked to
// look, and the row is released.
func TestLeaving(t *testing.T) {
	in(t, func(c *router.Config) { c.MaxClaims = 2 }, func(p *platform) {
		t := p.t
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
		p.leave(t)
		if s := p.status(t, "amelia#scott"); s != claim.Released {
			t.Errorf("status %q, want released", s)
		}
		<-time.After(10 * time.Second) // it may have been sent again with a delay
		if n := p.queues.Waiting(unclaimed); n != 1 {
			t.Errorf("%d claim requests, want one that announces the project", n)
		}
	})
}

// TestLostLease is a row that another worker took: nothing more is written.
func TestLostLease(t *testing.T) {
	in(t, func(c *router.Config) { c.SweepInterval = time.Hour }, func(p *platform) {
		t := p.t
		p.publish(t, unclaimed, request("amelia"))
		<-time.After(5 * time.Second)
		row, err := p.table.Get(t.Context(), "amelia#scott")
		if err != nil {
			t.Fatal(err)
		}
		theirs := row
		theirs.ContainerID, theirs.Fence = "another", row.Fence+1
		if err := p.table.Put(t.Context(), theirs, row); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		got, err := p.table.Get(t.Context(), "amelia#scott")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(theirs, got); d != "" {
			t.Error("the row of another was written:", d)
		}
		p.collect(t, output)
		p.publish(t, input, denied("amelia", "c-1"))
		<-time.After(10 * time.Second)
		if n := p.queues.Waiting(input); n != 1 {
			t.Error("a message was taken without a lease")
		}
	})
}

// TestTenThousandClaims takes and leaves projects: nothing is left of a claim
// once it is released.
func TestTenThousandClaims(t *testing.T) {
	in(t, func(c *router.Config) {
		c.IdleTimeout, c.MaxClaims = time.Second, 50
	}, func(p *platform) {
		t := p.t
		const atOnce, total = 50, 10_000
		round := func() {
			for i := range atOnce {
				p.publish(t, unclaimed, request("p"+strconv.Itoa(i)))
			}
			<-time.After(15 * time.Second) // idle, a receive under way, a look
			synctest.Wait()
		}
		round()
		fences := p.fences(t, atOnce)
		goroutines, heap := runtime.NumGoroutine(), heapInUse()
		for range total/atOnce - 1 {
			round()
		}
		if n := p.fences(t, atOnce) - fences; n != total-atOnce {
			t.Errorf("%d claims, want %d", n, total-atOnce)
		}
		// A few may be on their way out; one for each claim would be thousands.
		if n := runtime.NumGoroutine(); n > goroutines+10 {
			t.Errorf("%d goroutines, %d before", n, goroutines)
		}
		if grown := heapInUse() - heap; grown > 1<<20 {
			t.Errorf("the heap grew by %d KB", grown>>10)
		}
	})
}

// fences sums the fences: each claim adds one.
func (p *platform) fences(t *testing.T, n int) int64 {
	t.Helper()
	var sum int64
	for i := range n {
		row, err := p.table.Get(t.Context(), "p"+strconv.Itoa(i)+"#scott")
		if err != nil || row.Status != claim.Released {
			t.Fatalf("row %+v, %v; want a released one", row, err)
		}
		sum += row.Fence
	}
	return sum
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
