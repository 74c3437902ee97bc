package router_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/router"
	"github.com/webordinary/claude-code-container/router/lanetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLaneOverMemory(t *testing.T) {
	lanetest.Test(t, func(t *testing.T) lanetest.Harness {
		t.Helper()
		m := router.NewMemory(router.MemoryConfig{NackDelay: 20 * time.Millisecond})
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return &memoryHarness{m}
	})
}

type memoryHarness struct{ memory *router.Memory }

const memoryTopic = "input"

// Publish implements lanetest.Harness.
func (h *memoryHarness) Publish(t *testing.T, m *message.Message) {
	t.Helper()
	if err := h.memory.Publish(memoryTopic, m); err != nil {
		t.Fatal(err)
	}
}

// Subscriber implements lanetest.Harness.
func (h *memoryHarness) Subscriber(*testing.T) (message.Subscriber, string) {
	return h.memory.Subscriber(nil, nil), memoryTopic
}

// Left implements lanetest.Harness.
func (h *memoryHarness) Left(*testing.T) int { return h.memory.Waiting(memoryTopic) }

func TestLaneOverChannel(t *testing.T) {
	lanetest.Test(t, func(*testing.T) lanetest.Harness {
		return &channelQueue{messages: make(chan *message.Message, 100)}
	})
}

// channelQueue is a queue that is a channel. It leaks a goroutine for each
// delivery that is not settled.
type channelQueue struct {
	messages chan *message.Message
	left     atomic.Int64
}

// Publish implements lanetest.Harness.
func (q *channelQueue) Publish(_ *testing.T, m *message.Message) {
	q.left.Add(1)
	q.messages <- m
}

// Subscriber implements lanetest.Harness.
func (q *channelQueue) Subscriber(*testing.T) (message.Subscriber, string) {
	return &channelSubscriber{queue: q, closing: make(chan struct{})}, ""
}

// Left implements lanetest.Harness.
func (q *channelQueue) Left(*testing.T) int { return int(q.left.Load()) }

func (q *channelQueue) settle(m *message.Message) {
	select {
	case <-m.Acked():
		q.left.Add(-1)
	case <-m.Nacked():
		q.messages <- m.Copy()
	}
}

type channelSubscriber struct {
	queue   *channelQueue
	closing chan struct{}
	open    sync.WaitGroup
}

// Subscribe implements message.Subscriber.
func (s *channelSubscriber) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	s.open.Go(func() {
		defer close(out)
		for s.deliver(out) {
			continue
		}
	})
	return out, nil
}

func (s *channelSubscriber) deliver(out chan<- *message.Message) bool {
	select {
	case m := <-s.queue.messages:
		select {
		case out <- m:
			go s.queue.settle(m)
			return true
		case <-s.closing:
			s.queue.messages <- m
			return false
		}
	case <-s.closing:
		return false
	}
}

// Close implements message.Subscriber.
func (s *channelSubscriber) Close() error {
	close(s.closing)
	s.open.Wait()
	return nil
}

// hand is a message.Subscriber whose messages a test hands over.
type hand struct {
	in     chan *message.Message
	closed chan struct{}
	fails  error
}

func newHand() *hand {
	return &hand{in: make(chan *message.Message), closed: make(chan struct{})}
}

// Subscribe implements message.Subscriber.
func (h *hand) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return h.in, h.fails
}

// Close implements message.Subscriber.
func (h *hand) Close() error {
	close(h.closed)
	return nil
}

type readKey struct{}

// handed makes a message that read reads.
func handed(ctx context.Context, item router.Item) *message.Message {
	m := message.NewMessage(item.Key, nil)
	m.SetContext(context.WithValue(ctx, readKey{}, item))
	return m
}

func read(m *message.Message) router.Item {
	item, _ := m.Context().Value(readKey{}).(router.Item)
	return item
}

// at is a sent time.
func at(second int) time.Time { return time.Unix(int64(second), 0) }

// driver drives a lane step by step, in a bubble of testing/synctest.
type driver struct {
	t    *testing.T
	hand *hand
	lane *router.Lane
	out  <-chan *message.Message
	// receipts are the deliveries, in order.
	receipts []*message.Message
	// got is what the lane handed out, in order.
	got []*message.Message
}

func drive(t *testing.T, c router.LaneConfig) *driver {
	t.Helper()
	d := &driver{t: t, hand: newHand()}
	c.Inner, c.Read = d.hand, read
	d.lane = router.NewLane(c)
	var err error
	if d.out, err = d.lane.Subscribe(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.end)
	return d
}

// end settles what runs and closes the lane.
func (d *driver) end() {
	for _, m := range d.got {
		m.Ack()
	}
	d.lane.Close() //nolint:errcheck // it cannot fail
}

// step is what happens to a lane.
type step func(*driver)

func (d *driver) do(steps ...step) *driver {
	for _, s := range steps {
		s(d)
		synctest.Wait()
	}
	return d
}

func deliver(item router.Item) step {
	return func(d *driver) {
		d.t.Helper()
		m := handed(d.t.Context(), item)
		d.receipts = append(d.receipts, m)
		d.hand.in <- m
	}
}

func take(d *driver) {
	d.t.Helper()
	m, ok := <-d.out
	if !ok {
		d.t.Fatal("the lane ended, want a message")
	}
	d.got = append(d.got, m)
}

func ack(d *driver) { d.got[len(d.got)-1].Ack() }

// canceled returns the commands that were canceled, with who did it.
func (d *driver) canceled() []string {
	var canceled []string
	for _, m := range d.got {
		if i, ok := errors.AsType[*handlers.InterruptError](context.Cause(m.Context())); ok {
			canceled = append(canceled, m.UUID+" by "+i.By)
		}
	}
	return canceled
}

// command is one of thread 1.
func command(key string, sent int) router.Item {
	return router.Item{Key: key, Command: key, Thread: "1", Sent: at(sent)}
}

// but changes an item.
func but(item router.Item, change func(*router.Item)) router.Item {
	change(&item)
	return item
}

func otherThread(i *router.Item) { i.Thread = "2" }
func again(i *router.Item)       { i.Again = true }
func refused(i *router.Item)     { i.Refused = true }
func known(i *router.Item)       { i.Known = func() bool { return true } }
func unknown(i *router.Item)     { i.Known = func() bool { return false } }
func interrupts(i *router.Item)  { i.Interrupts = true }
func only(i *router.Item)        { i.Key, i.Command, i.Thread, i.Interrupts, i.Only = "", "", "", true, true }

func TestLaneInterruption(t *testing.T) {
	const all = "thread any never"
	for _, test := range []struct {
		rule     string
		arrives  router.Item // while a, sent at 10, runs in thread 1
		policies string      // under which it cancels a
	}{
		{"a later command of the thread cancels", command("b", 11), "thread any"},
		{"a later command of another thread cancels under any", but(command("b", 11), otherThread), "any"},
		{"an earlier command of the thread waits", command("b", 9), ""},
		{"an earlier command of another thread waits", but(command("b", 9), otherThread), ""},
		{"a command sent at the same time waits", command("b", 10), ""},
		{"a second delivery does not cancel the first", command("a", 11), ""},
		{"a command that was received before waits", but(command("b", 11), again), ""},
		{"a refused command waits", but(command("b", 11), refused), ""},
		{"a command that was answered before waits", but(command("b", 11), known), ""},
		{"a command that was not answered cancels", but(command("b", 11), unknown), "thread any"},
		{"a later command that interrupts cancels any thread", but(but(command("b", 11), otherThread), interrupts), "thread any"},
		{"an earlier command that interrupts waits", but(command("b", 9), interrupts), ""},
		{"a command that interrupts and was received before waits", but(but(command("b", 11), interrupts), again), ""},
		{"a command that interrupts and is refused waits", but(but(command("b", 11), interrupts), refused), ""},
		{"a command of the same id cancels nothing", but(command("b", 11), func(i *router.Item) { i.Command = "a" }), ""},
		{"INTERRUPT in time cancels", but(command("", 11), only), "thread any"},
		{"INTERRUPT in time cancels also if received before", but(but(command("", 11), only), again), "thread any"},
		{"INTERRUPT sent earlier does nothing", but(command("", 9), only), ""},
		{"INTERRUPT sent at the same time does nothing", but(command("", 10), only), ""},
	} {
		for policy := range strings.FieldsSeq(all) {
			t.Run(test.rule+"/"+policy, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := drive(t, router.LaneConfig{Policy: router.Policy(policy), Drop: func(*message.Message) {}})
					d.do(deliver(command("a", 10)), take, deliver(test.arrives))
					var want []string
					if strings.Contains(test.policies, policy) {
						want = []string{"a by " + test.arrives.Command}
					}
					if diff := cmp.Diff(want, d.canceled()); diff != "" {
						t.Errorf("canceled (-want +got):\n%s", diff)
					}
					if settled(d.receipts[0]) != "" {
						t.Errorf("the running message was %s by the lane", settled(d.receipts[0]))
					}
					testAfterInterruption(t, d, test.arrives)
				})
			})
		}
	}
}

// testAfterInterruption looks what becomes of the message that arrived while
// another ran: all but INTERRUPT and the redelivery are handed out next, not
// canceled.
func testAfterInterruption(t *testing.T, d *driver, arrived router.Item) {
	t.Helper()
	if got, want := settled(d.receipts[1]) == "acked", arrived.Only; got != want {
		t.Errorf("acked on arrival: %t, want %t", got, want)
	}
	d.do(ack)
	if arrived.Only || arrived.Key == "a" {
		if got := settled(d.receipts[1]); got != "acked" {
			t.Errorf("%q at the end, want acked", got)
		}
		select {
		case m := <-d.out:
			t.Errorf("handed out: %q, want nothing", m.UUID)
		default:
		}
		return
	}
	d.do(take)
	if next := d.got[1]; next.UUID != arrived.Key || next.Context().Err() != nil {
		t.Errorf("next is %q, canceled %v, want %q, not canceled", next.UUID, next.Context().Err(), arrived.Key)
	}
}

// settled says what happened to a delivery.
func settled(m *message.Message) string {
	select {
	case <-m.Acked():
		return "acked"
	case <-m.Nacked():
		return "nacked"
	default:
		return ""
	}
}

func TestLaneInterruptionTiming(t *testing.T) {
	interrupt := func(sent int) step { return deliver(but(command("", sent), only)) }
	wait := func(*driver) { <-time.After(time.Minute) }
	for _, test := range []struct {
		rule  string
		steps []step
		want  []string
	}{
		{"INTERRUPT early, before its command arrived", []step{wait, interrupt(11), deliver(command("a", 10)), take}, nil},
		{"INTERRUPT early, while its command is gathered", []step{deliver(command("a", 10)), interrupt(11), take}, nil},
		{"INTERRUPT early, while its command waits", []step{deliver(command("a", 10)), wait, interrupt(11), take}, nil},
		{"INTERRUPT in time", []step{deliver(command("a", 10)), take, interrupt(11)}, []string{"a by "}},
		{"INTERRUPT late, when its command was settled", []step{deliver(command("a", 10)), take, ack, interrupt(11)}, nil},
		{"INTERRUPT late, when the next command runs", []step{deliver(command("a", 10)), take, ack, deliver(command("b", 12)), take, interrupt(11)}, nil},
		{"INTERRUPT cancels nothing that waits", []step{
			deliver(command("a", 10)), deliver(command("b", 11)), take, interrupt(12), ack, take,
		}, []string{"a by "}},
		{"what waited before the running one began cancels nothing", []step{
			deliver(command("a", 10)), deliver(command("b", 11)), take,
		}, nil},
		{"what waited under another thread cancels nothing when it is the turn of the next", []step{
			deliver(but(command("a", 10), otherThread)), take, deliver(command("b", 11)), deliver(command("c", 12)), ack, take,
		}, nil},
		{"the first to cancel is the cause", []step{
			deliver(command("a", 10)), take, deliver(command("c", 12)), deliver(command("b", 11)), interrupt(13),
		}, []string{"a by c"}},
		{"a paused lane heeds interruptions", []step{
			deliver(command("a", 10)), take, func(d *driver) { d.lane.Pause() }, deliver(command("b", 11)),
		}, []string{"a by b"}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := drive(t, router.LaneConfig{}).do(test.steps...)
				if diff := cmp.Diff(test.want, d.canceled()); diff != "" {
					t.Errorf("canceled (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLaneJobContext(t *testing.T) {
	type boundKey struct{}
	errLost := errors.New("lost")
	synctest.Test(t, func(t *testing.T) {
		job, lose := context.WithCancelCause(t.Context())
		bound, unbound := 0, 0
		d := drive(t, router.LaneConfig{Bind: func(ctx context.Context) (context.Context, context.CancelFunc) {
			bound++
			ctx, cancel := context.WithCancelCause(context.WithValue(ctx, boundKey{}, "lease"))
			stop := context.AfterFunc(job, func() { cancel(context.Cause(job)) })
			return ctx, func() { unbound++; stop(); cancel(nil) }
		}})
		received, cancel := context.WithCancel(t.Context())
		item := command("a", 1)
		item.Value = "command"
		m := handed(received, item)
		d.hand.in <- m
		d.do(take)
		ctx := d.got[0].Context()
		cancel()
		synctest.Wait()
		if ctx.Err() != nil {
			t.Errorf("the end of the delivery's context canceled the job: %v", context.Cause(ctx))
		}
		got, _ := router.ItemOf(ctx)
		if diff := cmp.Diff(item, got); diff != "" {
			t.Errorf("ItemOf (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]any{"lease", item}, []any{ctx.Value(boundKey{}), ctx.Value(readKey{})}); diff != "" {
			t.Errorf("values (-want +got):\n%s", diff)
		}
		lose(errLost)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), errLost) || settled(m) != "" {
			t.Errorf("canceled with %v, message %q, want the cause of Bind and a message not settled", context.Cause(ctx), settled(m))
		}
		d.do(ack)
		if bound != 1 || unbound != 1 || settled(m) != "acked" {
			t.Errorf("bound %d, unbound %d, message %q", bound, unbound, settled(m))
		}
		if _, ok := router.ItemOf(t.Context()); ok {
			t.Error("ItemOf found an item in a context that is no job's")
		}
	})
}

// The Router gets the metadata and the context of the latest delivery, if it
// came before the message was handed out.
func TestLaneHandsOutLatestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := drive(t, router.LaneConfig{}).do(deliver(command("a", 1)))
		<-time.After(time.Minute) // it is about to be handed out
		second := handed(protocol.WithDelivery(t.Context(), protocol.Delivery{Receives: 2}), command("a", 1))
		second.Metadata.Set("receives", "2")
		d.hand.in <- second
		synctest.Wait()
		d.do(take)
		got := d.got[0]
		if n := protocol.DeliveryOf(got.Context()).Receives; n != 2 || got.Metadata.Get("receives") != "2" {
			t.Errorf("received %d times, metadata %v, want the second delivery", n, got.Metadata)
		}
		d.do(ack)
		if settled(second) != "acked" {
			t.Errorf("the second delivery is %q, want acked", settled(second))
		}
	})
}

// Of a command that was sent twice, the message sent first stays, whichever came
// first: if this worker dies, the command keeps its place.
func TestLaneKeepsTheFirstOfTwoCopies(t *testing.T) {
	copied := func(id string, sent int) router.Item {
		return but(command("a", sent), func(i *router.Item) { i.ID = id })
	}
	for _, test := range []struct {
		rule          string
		first, second router.Item
		stays         int
	}{
		{"in order", copied("1", 1), copied("2", 5), 0},
		{"the later one came first", copied("2", 5), copied("1", 1), 1},
		{"one message twice", copied("1", 1), copied("1", 1), 1},
	} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprint(test.rule, ", running ", running), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var dropped []*message.Message
					d := drive(t, router.LaneConfig{Policy: router.Never, Drop: func(m *message.Message) { dropped = append(dropped, m) }})
					both := []*message.Message{handed(t.Context(), test.first), handed(t.Context(), test.second)}
					d.hand.in <- both[0]
					synctest.Wait()
					if running {
						d.do(take)
					}
					d.hand.in <- both[1]
					synctest.Wait()
					other := both[1-test.stays]
					switch same := test.first.ID == test.second.ID; {
					case same && (settled(other) != "" || len(dropped) != 1 || dropped[0] != other):
						t.Errorf("the older delivery is %q, and %d were dropped, want it dropped", settled(other), len(dropped))
					case !same && (settled(other) != "acked" || len(dropped) != 0):
						t.Errorf("the later copy is %q, and %d were dropped, want it acked", settled(other), len(dropped))
					}
					if got := settled(both[test.stays]); got != "" {
						t.Errorf("what stays is %q before its command is done", got)
					}
					if !running {
						d.do(take)
					}
					d.do(ack)
					if got := settled(both[test.stays]); got != "acked" {
						t.Errorf("what stayed is %q, want acked", got)
					}
				})
			})
		}
	}
}

// What waits when the lane is closed, and a job that was cut, are for somebody else
// to go on with at once. A job that failed by itself is nacked.
func TestLaneHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back []string
		d := drive(t, router.LaneConfig{Policy: router.Never, HandBack: func(m *message.Message) { back = append(back, m.UUID) }})
		one, two, three := handed(t.Context(), command("a", 1)), handed(t.Context(), command("b", 2)), handed(t.Context(), command("c", 3))
		d.hand.in <- one
		synctest.Wait()
		d.do(take)
		d.got[0].Nack()
		synctest.Wait()
		if settled(one) != "nacked" || len(back) != 0 {
			t.Errorf("what failed by itself is %q, and %v was handed back", settled(one), back)
		}
		d.hand.in <- two
		d.hand.in <- three
		synctest.Wait()
		d.do(take)
		d.lane.Cancel(errors.New("enough"))
		d.got[1].Nack()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- d.lane.Close() }()
		synctest.Wait()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{two.UUID, three.UUID}, back); diff != "" || settled(two) != "" || settled(three) != "" {
			t.Errorf("handed back: %s (%q, %q)", diff, settled(two), settled(three))
		}
	})
}

func TestLaneGather(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		rule    string
		config  router.LaneConfig
		deliver []time.Duration // waits before each
		ask     time.Duration   // between questions to the lane
		want    time.Duration   // until the first message
	}{
		{"it ends after Quiet", router.LaneConfig{}, []time.Duration{0}, time.Hour, 50 * ms},
		{"an arrival begins Quiet anew", router.LaneConfig{}, []time.Duration{40 * ms, 40 * ms}, time.Hour, 130 * ms},
		{"a question does not", router.LaneConfig{}, []time.Duration{0}, 30 * ms, 50 * ms},
		{"it ends when Hold are held", router.LaneConfig{Hold: 3}, []time.Duration{10 * ms, 10 * ms, 10 * ms}, time.Hour, 30 * ms},
		{"it ends after Gather", router.LaneConfig{Gather: 100 * ms}, []time.Duration{45 * ms, 45 * ms}, time.Hour, 100 * ms},
	} {
		t.Run(test.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := drive(t, test.config)
				begin := time.Now()
				go func() {
					for i, pause := range test.deliver {
						<-time.After(pause)
						d.hand.in <- handed(t.Context(), command(strconv.Itoa(i), i))
					}
				}()
				stop := time.AfterFunc(test.ask, func() { d.lane.Running() })
				defer stop.Stop()
				d.do(take)
				if got := time.Since(begin); got != test.want {
					t.Errorf("first message after %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestLaneEnds(t *testing.T) {
	errDown := errors.New("down")
	for _, test := range []struct {
		name string
		test func(*testing.T, *hand, *router.Lane)
	}{
		{"Close without Subscribe closes the inner one", func(t *testing.T, h *hand, l *router.Lane) {
			t.Helper()
			l.Close() //nolint:errcheck // it cannot fail
			l.Close() //nolint:errcheck // it cannot fail
			<-h.closed
			if _, err := l.Subscribe(t.Context(), ""); err == nil {
				t.Error("a closed lane was subscribed to")
			}
		}},
		{"Close after a failed Subscribe", func(t *testing.T, h *hand, l *router.Lane) {
			t.Helper()
			h.fails = errDown
			if _, err := l.Subscribe(t.Context(), ""); !errors.Is(err, errDown) {
				t.Errorf("Subscribe: %v, want %v", err, errDown)
			}
			l.Close() //nolint:errcheck // it cannot fail
		}},
		{"a second Subscribe fails", func(t *testing.T, _ *hand, l *router.Lane) {
			t.Helper()
			out, err := l.Subscribe(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Subscribe(t.Context(), ""); err == nil {
				t.Error("subscribed twice")
			}
			l.Close() //nolint:errcheck // it cannot fail
			if _, ok := <-out; ok {
				t.Error("a closed lane hands out")
			}
		}},
		{"the end of the inner one ends the lane", func(t *testing.T, h *hand, l *router.Lane) {
			t.Helper()
			out, err := l.Subscribe(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			close(h.in)
			if _, ok := <-out; ok {
				t.Error("an ended lane hands out")
			}
			<-h.closed
			l.Close() //nolint:errcheck // it cannot fail
			if n := l.Pause(); n != 0 || l.Running() {
				t.Errorf("an ended lane holds %d", n)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHand()
				test.test(t, h, router.NewLane(router.LaneConfig{Inner: h, Read: read}))
			})
		})
	}
}

// A lane hands out nothing once Close began, even if the Router asks for it and
// the lane was busy reading. Which case a select takes is random, so there are
// many lanes.
func TestLaneHandsOutNothingAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			h, begun, goOn := newHand(), make(chan struct{}), make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			l := router.NewLane(router.LaneConfig{Inner: h, Hold: 1, Read: func(m *message.Message) router.Item {
				close(begun)
				<-goOn
				return read(m)
			}})
			out, err := l.Subscribe(ctx, "")
			if err != nil {
				t.Fatal(err)
			}
			m := handed(t.Context(), command("a", 1))
			go func() { h.in <- m }()
			<-begun
			cancel()
			got := make(chan bool)
			go func() {
				m, ok := <-out
				if ok {
					m.Ack()
				}
				got <- ok
			}()
			synctest.Wait()
			close(goOn)
			if <-got || settled(m) != "nacked" {
				t.Fatalf("the closed lane handed a message out, or it is not nacked but %q", settled(m))
			}
			l.Close() //nolint:errcheck // it cannot fail
		}
	})
}

// TestLaneAsksWhatIsKnown: the journal is asked of a command only if the answer
// matters.
func TestLaneAsksWhatIsKnown(t *testing.T) {
	for _, test := range []struct {
		rule    string
		arrives router.Item
		running bool
		asked   int
	}{
		{"nothing runs", command("b", 11), false, 0},
		{"of another thread", but(command("b", 11), otherThread), true, 0},
		{"sent earlier", command("b", 9), true, 0},
		{"it would interrupt", command("b", 11), true, 1},
	} {
		t.Run(test.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				test.arrives.Known = func() bool { asked++; return true }
				d := drive(t, router.LaneConfig{Policy: "thread", Drop: func(*message.Message) {}})
				if test.running {
					d.do(deliver(command("a", 10)), take)
				}
				d.do(deliver(test.arrives))
				if asked != test.asked {
					t.Errorf("asked %d times, want %d", asked, test.asked)
				}
			})
		})
	}
}
