package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/router"
)

// TestLaneProperties does to a lane what a queue, a Router and a tenure can do,
// in any order, and compares it after each step with what laneModel predicts.
func TestLaneProperties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 10 { // of 100 runs
			// A *testing.T would be asked for its deadline, which a bubble has not.
			rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { testLaneProperties(t, rt) })
		}
	})
}

func testLaneProperties(t *testing.T, rt *rapid.T) {
	t.Helper()
	m := newMachine(t, rt)
	defer m.tearDown(rt)
	often := []action{
		{"deliver", m.deliver},
		{"deliver", m.deliver},
		{"deliver", m.deliver},
		{"redeliver", m.redeliver},
		{"interrupt", m.interrupt},
		{"take", m.take},
		{"take", m.take},
		{"take", m.take},
		{"take", m.take},
		{"ack", m.ack},
		{"nack", m.nack},
		{"pause", m.pause},
		{"resume", m.resume},
		{"cancel", m.cancel},
		{"time passes", m.pass},
		{"end", m.end},
	}
	rt.Repeat(map[string]func(*rapid.T){
		"step": func(rt *rapid.T) { evenly(rt, often, "action").do(rt) },
		"":     m.check,
	})
}

type action struct {
	name string
	do   func(*rapid.T)
}

// String is what a failure shows.
func (a action) String() string { return a.name }

// evenly draws one of 2, 4, 8 or 16. What rapid draws itself is mostly near the
// beginning.
func evenly[T any](rt *rapid.T, from []T, label string) T {
	return rapid.Custom(func(rt *rapid.T) T {
		low, high := 0, len(from)
		for high-low > 1 {
			if middle := (low + high) / 2; rapid.Bool().Draw(rt, "upper") {
				low = middle
			} else {
				high = middle
			}
		}
		return from[low]
	}).Draw(rt, label)
}

const (
	modelQuiet  = 50 * time.Millisecond
	modelGather = 200 * time.Millisecond
)

// laneModel says what a lane does. Its clock is that of the bubble.
type laneModel struct {
	policy router.Policy
	hold   int
	idle   time.Duration

	receipts []*modelReceipt
	waiting  []*modelHeld // in the order of handing out
	running  *modelHeld
	paused   bool
	closed   bool

	gathering          bool
	quietEnd, allowEnd time.Time
	emptySince         time.Time // zero: gathering, or not empty
}

type modelReceipt struct {
	message *message.Message
	settled string
}

type modelHeld struct {
	item    router.Item
	receipt *modelReceipt
	cause   error
}

func (m *laneModel) count() int {
	if m.running != nil {
		return len(m.waiting) + 1
	}
	return len(m.waiting)
}

func (m *laneModel) receives() bool { return !m.closed && m.count() < m.hold }

func (m *laneModel) handsOut() bool {
	return !m.gathering && !m.closed && !m.paused && m.running == nil && len(m.waiting) > 0
}

func (m *laneModel) ended() bool { return m.closed && m.running == nil }

func (m *laneModel) find(key string) *modelHeld {
	held := m.waiting
	if m.running != nil {
		held = append([]*modelHeld{m.running}, held...)
	}
	for _, h := range held {
		if key != "" && h.item.Key == key {
			return h
		}
	}
	return nil
}

// arrive predicts what a delivery does.
func (m *laneModel) arrive(item router.Item, r *modelReceipt) {
	m.quietEnd = time.Now().Add(modelQuiet)
	if h := m.find(item.Key); h != nil {
		h.receipt.settled = "acked" // dropped
		h.receipt = r
		return
	}
	if m.running != nil && m.cancels(item, m.running.item) {
		m.stop(&handlers.InterruptError{By: item.Command})
	}
	if item.Only {
		r.settled = "acked"
		return
	}
	later := func(h *modelHeld) bool { return h.item.Sent.After(item.Sent) }
	at := slices.IndexFunc(m.waiting, later)
	if at < 0 {
		at = len(m.waiting)
	}
	m.waiting = slices.Insert(m.waiting, at, &modelHeld{item: item, receipt: r})
}

// cancels says it as a table of rules, unlike the lane.
func (m *laneModel) cancels(by, runs router.Item) bool {
	valid := !by.Refused && by.Sent.After(runs.Sent) && (by.Only || !by.Again && by.Command != runs.Command)
	switch m.policy {
	case router.SameThread:
		return valid && (by.Interrupts || by.Thread == runs.Thread)
	case router.AnyThread:
		return valid
	default:
		return false
	}
}

func (m *laneModel) stop(cause error) {
	if m.running != nil && m.running.cause == nil {
		m.running.cause = cause
	}
}

func (m *laneModel) settle(how string) {
	m.running.receipt.settled = how
	m.running = nil
}

func (m *laneModel) close() {
	m.closed = true
	for _, h := range m.waiting {
		h.receipt.settled = "nacked"
	}
	m.waiting = nil
}

// now brings the model up to the time.
func (m *laneModel) now() {
	now, end := time.Now(), m.quietEnd
	if m.allowEnd.Before(end) {
		end = m.allowEnd
	}
	if m.gathering && (m.closed || len(m.waiting) >= m.hold || !now.Before(end)) {
		m.gathering = false
		if m.count() == 0 && !m.closed {
			m.emptySince = end
		}
	}
	switch {
	case m.count() > 0:
		m.emptySince = time.Time{}
	case !m.gathering && m.emptySince.IsZero():
		m.emptySince = now
	}
}

func (m *laneModel) isIdle() bool {
	return m.idle > 0 && !m.ended() && !m.emptySince.IsZero() && time.Since(m.emptySince) >= m.idle
}

func (m *laneModel) arrived() bool { return !m.gathering && m.paused && m.count() > 0 }

// machine is a lane beside its model. Each step ends when all goroutines wait,
// so that the lane decides one thing at a time.
type machine struct {
	laneModel
	ctx            context.Context //nolint:containedctx // of the test
	hand           *hand
	lane           *router.Lane
	out            <-chan *message.Message
	endContext     context.CancelFunc
	outer          *message.Message // what runs
	closes, ends   int              // calls of Close, and their returns
	returned       chan struct{}
	bound, unbound int
	innerEnded     bool
	commands       int
}

func newMachine(t *testing.T, rt *rapid.T) *machine {
	t.Helper()
	m := &machine{
		laneModel: laneModel{
			policy:    evenly(rt, []router.Policy{router.SameThread, router.SameThread, router.AnyThread, router.Never}, "policy"),
			hold:      evenly(rt, []int{5, 3, 2, 1}, "hold"),
			idle:      rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond}).Draw(rt, "idle"),
			gathering: true,
			quietEnd:  time.Now().Add(modelQuiet),
			allowEnd:  time.Now().Add(modelGather),
		},
		hand: newHand(), returned: make(chan struct{}, 100), ctx: t.Context(),
	}
	m.lane = router.NewLane(router.LaneConfig{
		Inner: m.hand, Read: read, Hold: m.hold, Policy: m.policy, Idle: m.idle, Quiet: modelQuiet, Gather: modelGather,
		Bind: func(ctx context.Context) (context.Context, context.CancelFunc) {
			m.bound++
			return ctx, func() { m.unbound++ }
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	m.endContext = cancel
	var err error
	if m.out, err = m.lane.Subscribe(ctx, ""); err != nil {
		rt.Fatal(err)
	}
	if rapid.Bool().Draw(rt, "nothing gathered") {
		<-time.After(modelQuiet)
		m.wait()
	}
	return m
}

// wait lets the lane do all it can.
func (m *machine) wait() {
	synctest.Wait()
	m.now()
}

// send delivers an item, if the lane receives, as it should or should not.
func (m *machine) send(rt *rapid.T, item router.Item) {
	if m.innerEnded {
		return
	}
	r := &modelReceipt{message: handed(m.ctx, item)}
	select {
	case m.hand.in <- r.message:
		if !m.receives() {
			rt.Fatalf("the lane received; closed: %t, held: %d of %d", m.closed, m.count(), m.hold)
		}
		m.receipts = append(m.receipts, r)
		m.arrive(item, r)
	default:
		if m.receives() {
			rt.Fatalf("the lane does not receive; held: %d of %d", m.count(), m.hold)
		}
	}
	m.wait()
}

func (m *machine) deliver(rt *rapid.T) {
	m.commands++
	key := fmt.Sprint("c", m.commands)
	item := router.Item{
		Key: key, Command: key,
		Thread:     evenly(rt, []string{"1", "2"}, "thread"),
		Sent:       someTime(rt),
		Again:      seldom(rt, "again"),
		Refused:    seldom(rt, "refused"),
		Interrupts: seldom(rt, "interrupts"),
	}
	if seldom(rt, "no command") {
		item = router.Item{Sent: item.Sent, Refused: true}
	}
	m.send(rt, item)
}

// seldom is true once in four times.
func seldom(rt *rapid.T, label string) bool {
	return evenly(rt, []bool{false, false, false, true}, label)
}

func someTime(rt *rapid.T) time.Time {
	return at(evenly(rt, []int{0, 1, 2, 3, 4, 5, 6, 7}, "sent"))
}

// redeliver delivers a command again that may be held, or not any more.
func (m *machine) redeliver(rt *rapid.T) {
	if len(m.receipts) == 0 {
		return
	}
	item := read(m.receipts[rapid.IntRange(0, len(m.receipts)-1).Draw(rt, "receipt")].message)
	item.Again = rapid.Bool().Draw(rt, "again")
	m.send(rt, item)
}

func (m *machine) interrupt(rt *rapid.T) {
	m.send(rt, router.Item{Sent: someTime(rt), Interrupts: true, Only: true, Again: seldom(rt, "again")})
}

// take is the Router that asks for a message.
func (m *machine) take(rt *rapid.T) {
	select {
	case got, ok := <-m.out:
		if !ok {
			if !m.ended() {
				rt.Fatal("the lane's channel is closed too early")
			}
			return
		}
		if !m.handsOut() {
			rt.Fatalf("handed out: %q, want nothing", got.UUID)
		}
		m.running, m.waiting = m.waiting[0], m.waiting[1:]
		m.outer = got
		item, _ := router.ItemOf(got.Context())
		if diff := cmp.Diff(m.running.item, item); diff != "" {
			rt.Fatalf("handed out (-want +got):\n%s", diff)
		}
	default:
		if m.handsOut() || m.ended() {
			rt.Fatalf("nothing handed out; ended: %t", m.ended())
		}
	}
	m.wait()
}

func (m *machine) ack(rt *rapid.T) {
	if m.running != nil {
		m.outer.Ack()
		m.settle("acked")
		m.wait()
		m.jobEnded(rt)
	}
}

func (m *machine) nack(rt *rapid.T) {
	if m.running != nil {
		m.outer.Nack()
		m.settle("nacked")
		m.wait()
		m.jobEnded(rt)
	}
}

// jobEnded looks whether the context of what ran ended with it.
func (m *machine) jobEnded(rt *rapid.T) {
	if m.outer.Context().Err() == nil {
		rt.Fatal("a settled message's context goes on")
	}
}

func (m *machine) pause(rt *rapid.T) {
	want := m.count()
	m.paused = true
	if got := m.lane.Pause(); got != want {
		rt.Fatalf("Pause() = %d, want %d", got, want)
	}
	m.wait()
}

func (m *machine) resume(*rapid.T) {
	m.paused = false
	m.lane.Resume()
	m.wait()
}

func (m *machine) cancel(*rapid.T) {
	cause := errors.New("canceled")
	m.lane.Cancel(cause)
	m.stop(cause)
	m.wait()
}

func (m *machine) pass(rt *rapid.T) {
	ms := evenly(rt, []int{60, 10, 30, 300}, "ms")
	<-time.After(time.Duration(ms) * time.Millisecond)
	m.wait()
}

// end closes the lane, in one of three ways.
func (m *machine) end(rt *rapid.T) {
	if !seldom(rt, "really") { // or all runs are short
		return
	}
	switch how := rapid.SampledFrom([]string{"Close", "context", "inner"}).Draw(rt, "how"); {
	case how == "Close":
		m.callClose()
	case how == "context":
		m.endContext()
	case !m.innerEnded && m.receives(): // else the lane does not look
		m.innerEnded = true
		close(m.hand.in)
	default:
		return
	}
	m.close()
	m.wait()
}

func (m *machine) callClose() {
	m.closes++
	go func() {
		m.lane.Close() //nolint:errcheck // it cannot fail
		m.returned <- struct{}{}
	}()
}

// check compares all that can be seen of the lane with the model.
func (m *machine) check(rt *rapid.T) {
	m.wait()
	for _, r := range m.receipts {
		if got := settled(r.message); got != r.settled {
			rt.Fatalf("delivery of %q is %q, want %q", r.message.UUID, got, r.settled)
		}
	}
	if m.running != nil {
		if got := context.Cause(m.outer.Context()); !sameError(got, m.running.cause) {
			rt.Fatalf("%q is canceled with %v, want %v", m.outer.UUID, got, m.running.cause)
		}
	}
	want := map[string]bool{"running": m.running != nil, "idle": m.isIdle(), "arrived": m.arrived(), "ended": m.ended()}
	got := map[string]bool{"running": m.lane.Running()}
	for name, c := range map[string]<-chan struct{}{"idle": m.lane.Idle(), "arrived": m.lane.Arrived(), "ended": m.hand.closed} {
		synctest.Wait() // the lane answered the last question
		got[name] = readable(c)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("the lane (-want +got):\n%s", diff)
	}
	m.ends += len(m.returned)
	for range len(m.returned) {
		<-m.returned
	}
	if m.ended() && m.ends != m.closes || !m.ended() && m.ends > 0 {
		rt.Fatalf("%d of %d calls of Close returned; ended: %t", m.ends, m.closes, m.ended())
	}
	synctest.Wait()
}

func readable(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sameError compares causes; an InterruptError is one by its value.
func sameError(a, b error) bool {
	var x, y *handlers.InterruptError
	if errors.As(a, &x) && errors.As(b, &y) {
		return *x == *y
	}
	return errors.Is(a, b)
}

// tearDown closes the lane, lets the running message finish, and looks whether
// all jobs' contexts were released.
func (m *machine) tearDown(rt *rapid.T) {
	m.callClose()
	m.close()
	m.wait()
	if m.outer != nil {
		m.outer.Ack()
	}
	m.endContext()
	synctest.Wait()
	if rt.Failed() {
		return
	}
	if _, ok := <-m.out; ok || m.bound != m.unbound {
		rt.Fatalf("at the end: channel open: %t, contexts bound: %d, unbound: %d", ok, m.bound, m.unbound)
	}
}
