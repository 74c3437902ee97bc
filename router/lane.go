package router

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
)

// Policy says which later command interrupts the one that runs.
type Policy string

// The interruption policies. INTERRUPT messages are heeded under all but Never.
const (
	SameThread Policy = "thread" // a later command of the same thread
	AnyThread  Policy = "any"    // a later command of any thread
	Never      Policy = "never"  // none; they queue
)

// Item is what a Lane knows of a message.
type Item struct {
	// ID is the message's in its queue. Deliveries of one message share it;
	// a command that was sent twice has two.
	ID string
	// Key tells commands apart; a delivery with the key of a held one is a
	// redelivery. Empty for a message that is no command: it is always new.
	Key string
	// Command is the command's id, for handlers.InterruptError.
	Command string
	Thread  string
	// Sent is when the queue took the message. Only times of one queue are
	// compared.
	Sent time.Time
	// Again is set if the message had been received before, or was sent
	// again by a worker that handed it back. Such a one interrupts nobody.
	Again bool
	// Refused is set if the message will not be worked on. It interrupts
	// nobody.
	Refused bool
	// Known, if there, reports whether the command has been answered already;
	// such a one interrupts nothing. It is asked only of one that else would.
	Known func() bool `json:"-"`
	// Interrupts is set if the message wants whatever runs to stop,
	// whatever its thread.
	Interrupts bool
	// Only is set, together with Interrupts, if that is all it wants: it is
	// acknowledged and never handed to the Router.
	Only bool
	// Value travels in the context of the message the Router gets; see
	// ItemOf.
	Value any
}

// LaneConfig configures a Lane. Only Inner and Read are required.
type LaneConfig struct {
	Inner message.Subscriber
	// Read says what a message is. It is called once per delivery and must
	// return soon: the lane waits.
	Read func(*message.Message) Item
	// Hold is the most messages held at once, running ones included; zero
	// means 5. A queue that dead-letters after three receives suffers from
	// holding more.
	Hold   int
	Policy Policy // empty means SameThread
	// Quiet and Gather bound the wait at the start, in which messages are
	// put into their order before the first is handed out: it ends when
	// nothing arrived for Quiet (zero means 50 ms), when Hold messages are
	// held, or after Gather (zero means 1 s).
	Quiet, Gather time.Duration
	// Idle is how long the lane must have held nothing before Idle() says
	// so; zero means never.
	Idle time.Duration
	// Drop forgets a delivery that a later one of the same message
	// replaced, without settling the message; nil means Ack, which is right
	// only where each delivery is settled on its own. Where it deletes the
	// message, a crash would lose it.
	Drop func(*message.Message)
	// HandBack gives a message back that somebody else is to work on, so that
	// it can be received at once and keeps its place; nil means Nack, which
	// may make it wait.
	HandBack func(*message.Message)
	// Bind ties the context of each job to something that can end it; nil
	// means nothing.
	Bind func(context.Context) (context.Context, context.CancelFunc)
}

// Lane is a message.Subscriber around another one. It puts messages in the
// order in which they were sent and hands the Router one at a time: the next one
// only when that one was acked or nacked. While one runs it keeps receiving, and
// cancels what runs if a message asks for it, with a *handlers.InterruptError as cause.
// It only ever cancels: the message stays with its handler, which acks or nacks.
//
// A second delivery of a held message replaces the first: the ack goes to the
// latest receipt. Of a command that was sent twice, the message that was sent first
// stays, as its place is the command's, also for a worker that comes after us; the
// other is acked.
//
// Closing a lane stops receiving and hands back (nacks) what waits; the channel
// is closed after the running message was settled, so a Router's handler ends
// with nothing in flight. One Subscribe per Lane.
type Lane struct {
	config LaneConfig

	mu         sync.Mutex
	subscribed bool // or closed before that

	// shared
	closing   chan struct{}
	closeOnce sync.Once
	ended     chan struct{}
	idle      chan struct{}
	arrived   chan struct{}
	requests  chan func(*laneState)
}

// laneState belongs to the goroutine of run.
type laneState struct {
	*Lane
	in      <-chan *message.Message
	out     chan *message.Message
	waiting itemHeap
	running *held
	paused  bool
	closed  bool // no longer receiving
	seq     int
}

// held is one message in the lane.
type held struct {
	item    Item
	receipt *message.Message // the latest delivery
	seq     int              // order of arrival, where sent times are equal

	// set when it runs
	outer  *message.Message // what the Router has
	cancel context.CancelCauseFunc
	unbind context.CancelFunc
}

// NewLane returns a lane; Subscribe starts it.
func NewLane(c LaneConfig) *Lane {
	c.Hold = defaultTo(c.Hold, 5)
	c.Policy = defaultTo(c.Policy, SameThread)
	c.Quiet = defaultTo(c.Quiet, 50*time.Millisecond)
	c.Gather = defaultTo(c.Gather, time.Second)
	if c.Drop == nil {
		c.Drop = func(m *message.Message) { m.Ack() }
	}
	if c.HandBack == nil {
		c.HandBack = func(m *message.Message) { m.Nack() }
	}
	if c.Bind == nil {
		c.Bind = func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }
	}
	return &Lane{
		config: c, closing: make(chan struct{}), ended: make(chan struct{}),
		idle: make(chan struct{}), arrived: make(chan struct{}), requests: make(chan func(*laneState)),
	}
}

func defaultTo[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

type itemKey struct{}

// ItemOf returns what the lane's Read said of a message, given the context of
// the message the Router got.
func ItemOf(ctx context.Context) (Item, bool) {
	i, ok := ctx.Value(itemKey{}).(Item)
	return i, ok
}

var errSubscribedTwice = errors.New("a lane has one subscription, before it is closed")

// Subscribe implements message.Subscriber. The end of ctx closes the lane.
func (l *Lane) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subscribed {
		return nil, errSubscribedTwice
	}
	in, err := l.config.Inner.Subscribe(context.WithoutCancel(ctx), topic)
	if err != nil {
		return nil, err
	}
	l.subscribed = true
	s := &laneState{Lane: l, in: in, out: make(chan *message.Message)}
	go func() {
		select {
		case <-ctx.Done():
			l.beginClose()
		case <-l.ended:
		}
	}()
	go s.run() //nolint:contextcheck // the context of a job comes with its message
	return s.out, nil
}

// Close stops receiving, hands back what waits, and returns when the running
// message was settled and the inner subscriber is closed.
func (l *Lane) Close() error {
	l.beginClose()
	if l.neverSubscribed() {
		defer close(l.ended)
		return l.config.Inner.Close()
	}
	<-l.ended
	return nil
}

// neverSubscribed is true once, if there was no Subscribe; there can be none
// after it.
func (l *Lane) neverSubscribed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	never := !l.subscribed
	l.subscribed = true
	return never
}

func (l *Lane) beginClose() { l.closeOnce.Do(func() { close(l.closing) }) }

// Idle is readable while the lane has held nothing for the configured time.
func (l *Lane) Idle() <-chan struct{} { return l.idle }

// Arrived is readable while a paused lane holds something.
func (l *Lane) Arrived() <-chan struct{} { return l.arrived }

// Pause keeps the lane from handing out messages; it still receives. It returns
// the number of messages held.
func (l *Lane) Pause() int {
	n := 0
	l.ask(func(s *laneState) {
		s.paused = true
		n = s.count()
	})
	return n
}

// Resume ends a Pause.
func (l *Lane) Resume() { l.ask(func(s *laneState) { s.paused = false }) }

// Cancel cancels the running job, if there is one, with a cause.
func (l *Lane) Cancel(cause error) {
	l.ask(func(s *laneState) {
		if s.running != nil {
			s.running.cancel(cause)
		}
	})
}

// Interrupt cancels the running job if it was sent before a given time, as an
// INTERRUPT among the messages would.
func (l *Lane) Interrupt(sent time.Time) {
	l.ask(func(s *laneState) {
		if s.interrupted(Item{Sent: sent, Interrupts: true, Only: true}) {
			s.running.cancel(&handlers.InterruptError{})
		}
	})
}

// Held returns what is known of the messages held, the running one first.
func (l *Lane) Held() []Item {
	var items []Item
	l.ask(func(s *laneState) {
		if s.running != nil {
			items = append(items, s.running.item)
		}
		for _, h := range s.waiting {
			items = append(items, h.item)
		}
	})
	return items
}

// Running reports whether a message is with the Router.
func (l *Lane) Running() bool {
	running := false
	l.ask(func(s *laneState) { running = s.running != nil })
	return running
}

// ask runs f in the lane's goroutine and waits; it does nothing once the lane
// has ended.
func (l *Lane) ask(f func(*laneState)) {
	done := make(chan struct{})
	select {
	case l.requests <- func(s *laneState) { f(s); close(done) }:
		<-done
	case <-l.ended:
	}
}

func (s *laneState) count() int {
	if s.running != nil {
		return len(s.waiting) + 1
	}
	return len(s.waiting)
}
