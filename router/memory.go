package router

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/google/uuid"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// Memory is queues in memory, for the demo and for tests: Watermill's GoChannel,
// and what it lacks to be used like SQS. A topic keeps its messages until they
// are acknowledged, also while nobody subscribes; a message carries its id, its
// sent time and how often it was received; a nacked one comes back after
// NackDelay. A topic has one subscriber at a time.
type Memory struct {
	channel   *gochannel.GoChannel
	nackDelay time.Duration
	poll      time.Duration
	now       func() time.Time

	mu      sync.Mutex
	topics  map[string]*topic
	delayed int            // messages that wait for their time
	pending sync.WaitGroup // timers, and messages handed out
	closed  chan struct{}
	once    sync.Once
}

// MemoryConfig configures a Memory; its zero value works.
type MemoryConfig struct {
	// NackDelay is the time until a nacked message comes again; zero means
	// 100 ms.
	NackDelay time.Duration
	// Poll is how long one receive waits for a message; zero means 5 s.
	Poll time.Duration
	// Now stamps the sent times; nil means time.Now.
	Now func() time.Time
}

type topic struct {
	open bool
	kept []*kept // in the order of sending
}

type kept struct {
	message  *message.Message
	delivery protocol.Delivery
}

// idHeader carries a message's id through the GoChannel.
const idHeader = "webordinary_memory_id"

// NewMemory returns empty queues.
func NewMemory(c MemoryConfig) *Memory {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Memory{
		channel:   gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{}),
		nackDelay: defaultTo(c.NackDelay, 100*time.Millisecond),
		poll:      defaultTo(c.Poll, 5*time.Second),
		now:       c.Now,
		topics:    map[string]*topic{},
		closed:    make(chan struct{}),
	}
}

// Publish implements message.Publisher.
func (m *Memory) Publish(name string, messages ...*message.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topic(name)
	for _, msg := range messages {
		k := &kept{message: msg.Copy(), delivery: protocol.Delivery{MessageID: uuid.NewString(), Sent: m.now()}.WithAttributes(msg.Metadata)}
		k.message.Metadata.Set(idHeader, k.delivery.MessageID)
		t.kept = append(t.kept, k)
		if t.open {
			if err := m.channel.Publish(name, k.message); err != nil {
				return err
			}
		}
	}
	return nil
}

// PublishAfter publishes after a delay; Close before that drops the message.
func (m *Memory) PublishAfter(delay time.Duration, name string, messages ...*message.Message) error {
	m.mu.Lock()
	m.delayed++
	m.mu.Unlock()
	m.background(func() {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			m.Publish(name, messages...) //nolint:errcheck // fails only when closed
		case <-m.closed:
		}
		m.mu.Lock()
		m.delayed--
		m.mu.Unlock()
	})
	return nil
}

// background runs f, and Close waits for it. After Close it does nothing.
func (m *Memory) background(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
	default:
		m.pending.Go(f)
	}
}

// Waiting returns the number of messages of a topic not yet acknowledged.
func (m *Memory) Waiting(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.topic(name).kept)
}

// Drained returns when no topic holds a message and none is delayed.
func (m *Memory) Drained(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !m.empty() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (m *Memory) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.topics {
		if len(t.kept) > 0 {
			return false
		}
	}
	return m.delayed == 0
}

// Close ends all subscriptions.
func (m *Memory) Close() error {
	m.once.Do(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		close(m.closed)
	})
	m.pending.Wait()
	return m.channel.Close()
}

// Exists implements Queues. Only topics that something was sent to, or that were
// subscribed to, exist.
func (m *Memory) Exists(_ context.Context, name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topics[name] != nil, nil
}

// Subscriber implements Queues. Its Close ends its subscriptions and leaves the
// queues open. Nothing is invisible in memory, and no receive lacks an answer.
func (m *Memory) Subscriber(gate Gate, _ func()) message.Subscriber {
	if gate == nil {
		gate = func(context.Context) (time.Duration, func(int), error) { return 0, nil, nil }
	}
	return &memorySubscriber{memory: m, gate: gate, closed: make(chan struct{})}
}

func (m *Memory) topic(name string) *topic {
	t := m.topics[name]
	if t == nil {
		t = &topic{}
		m.topics[name] = t
	}
	return t
}

// received counts a delivery and says what it is.
func (m *Memory) received(name, id string) protocol.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.topic(name).kept {
		if k.delivery.MessageID == id {
			k.delivery.Receives++
			return k.delivery
		}
	}
	return protocol.Delivery{MessageID: id}
}

func (m *Memory) remove(name, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topic(name)
	for i, k := range t.kept {
		if k.delivery.MessageID == id {
			t.kept = append(t.kept[:i:i], t.kept[i+1:]...)
			return
		}
	}
}

// subscribe opens a topic and sends what it kept.
func (m *Memory) subscribe(ctx context.Context, name string) (<-chan *message.Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in, err := m.channel.Subscribe(ctx, name)
	if err != nil {
		return nil, err
	}
	t := m.topic(name)
	t.open = true
	for _, k := range t.kept {
		if err := m.channel.Publish(name, k.message); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (m *Memory) unsubscribe(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.topic(name).open = false
}

type memorySubscriber struct {
	memory *Memory
	gate   Gate
	closed chan struct{}
	once   sync.Once
	open   sync.WaitGroup
}

// Subscribe implements message.Subscriber.
func (s *memorySubscriber) Subscribe(ctx context.Context, name string) (<-chan *message.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	in, err := s.memory.subscribe(ctx, name)
	if err != nil {
		cancel()
		return nil, err
	}
	out, arrived := make(chan *message.Message), make(chan *message.Message)
	s.open.Go(func() { collect(in, arrived, ctx.Done()) })
	s.open.Go(func() {
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	})
	s.open.Go(func() {
		defer close(out)
		defer s.memory.unsubscribe(name)
		defer cancel()
		for more := true; more; {
			_, end, err := s.gate(ctx)
			if err != nil {
				return
			}
			var taken int
			taken, more = s.forward(ctx, name, arrived, out)
			if end != nil {
				end(taken)
			}
		}
	})
	return out, nil
}

// collect takes messages at once and hands them on as they are wanted: a GoChannel
// whose message is not taken holds a lock.
func collect(in <-chan *message.Message, out chan<- *message.Message, done <-chan struct{}) {
	defer close(out)
	var waiting []*message.Message
	for {
		var next *message.Message
		var to chan<- *message.Message
		if len(waiting) > 0 {
			next, to = waiting[0], out
		}
		select {
		case m, ok := <-in:
			if !ok {
				return
			}
			waiting = append(waiting, m)
		case to <- next:
			waiting = waiting[1:]
		case <-done:
			return
		}
	}
}

// forward is one receive: it hands out at most one message. more is false at the
// end of the subscription.
func (s *memorySubscriber) forward(ctx context.Context, name string, in <-chan *message.Message, out chan<- *message.Message) (taken int, more bool) {
	timeout := time.NewTimer(s.memory.poll)
	defer timeout.Stop()
	select {
	case got, ok := <-in:
		if !ok {
			return 0, false
		}
		fresh := s.fresh(ctx, name, got)
		select {
		case out <- fresh:
			s.memory.background(func() { s.settle(ctx, name, got, fresh) })
			return 1, true
		case <-ctx.Done():
			return 0, false
		}
	case <-timeout.C:
		return 0, true
	case <-ctx.Done():
		return 0, false
	}
}

// fresh is a copy of a message as a queue would deliver it.
func (s *memorySubscriber) fresh(ctx context.Context, name string, got *message.Message) *message.Message {
	d := s.memory.received(name, got.Metadata.Get(idHeader))
	m := message.NewMessage(got.UUID, got.Payload)
	m.Metadata = maps.Clone(got.Metadata)
	delete(m.Metadata, idHeader)
	m.SetContext(protocol.WithDelivery(ctx, d))
	return m
}

// settle passes the outcome on. A message not settled by the end of the
// subscription stays in its topic.
func (s *memorySubscriber) settle(ctx context.Context, name string, got, fresh *message.Message) {
	select {
	case <-fresh.Acked():
		s.memory.remove(name, got.Metadata.Get(idHeader))
		got.Ack()
	case <-fresh.Nacked():
		delay := time.NewTimer(s.memory.nackDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
			got.Nack()
		case <-ctx.Done():
		}
	case <-s.memory.closed:
	}
}

// Close implements message.Subscriber.
func (s *memorySubscriber) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.open.Wait()
	return nil
}
