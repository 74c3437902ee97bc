// Package lanetest tests that a router.Lane keeps its promises over the
// subscriber of a queue, whichever that is.
package lanetest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/router" //nolint:depguard // only tests import this package
)

// Harness is an empty queue of its own for each test. Its messages keep their
// payload, which is JSON; their order does not matter. It delivers a message again
// after a nack.
type Harness interface {
	// Publish puts a message into the queue.
	Publish(t *testing.T, m *message.Message)
	// Subscriber returns a new subscriber, and what to subscribe to. Closing
	// it leaves the queue as it is. The last one is closed before the next one
	// is asked for.
	Subscriber(t *testing.T) (s message.Subscriber, topic string)
	// Left returns the number of messages that were not acknowledged.
	Left(t *testing.T) int
}

// Test runs the suite; open is called once or more per test.
func Test(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, test := range []struct {
		promise string
		run     func(*testing.T, *queue)
	}{
		{"the lowest sent time comes first", testOrder},
		{"equal sent times come in the order of arrival", testEqualTimes},
		{"one message at a time", testOneAtATime},
		{"no more than Hold are held", testHold},
		{"a nacked message comes again", testNack},
		{"a redelivery replaces the receipt of a waiting message", testRedeliveryOfWaiting},
		{"a redelivery replaces the receipt of the running message", testRedeliveryOfRunning},
		{"a later command of the thread cancels and waits", testInterruption},
		{"a later command of another thread waits", testOtherThread},
		{"INTERRUPT cancels and is acked", testInterruptOnly},
		{"Close hands back what waits and lets the running message finish", testClose},
		{"the end of the context closes", testContext},
		{"a paused lane receives and says so", testPause},
		{"an empty lane says so", testIdle},
	} {
		t.Run(test.promise, func(t *testing.T) { test.run(t, &queue{Harness: open(t)}) })
	}
}

// queue is a harness with the time that its next message is sent at.
type queue struct {
	Harness
	sent time.Time
}

// publish sends commands. One without a sent time is sent a second later than the
// one before.
func (q *queue) publish(t *testing.T, items ...router.Item) {
	t.Helper()
	for _, item := range items {
		item.Command = item.Key
		if item.Sent.IsZero() {
			q.sent = q.sent.Add(time.Second)
			item.Sent = q.sent
		}
		payload, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		q.Publish(t, message.NewMessage(watermill.NewUUID(), payload))
	}
}

// at is the sent time of a message that is not sent in order.
func at(seconds int) time.Time { return time.Unix(int64(seconds), 0).UTC() }

// lane is a router.Lane that remembers what it received.
type lane struct {
	*router.Lane
	out   <-chan *message.Message
	taken []*message.Message

	mu        sync.Mutex
	delivered []delivery // in the order of arrival
	dropped   []*message.Message
}

type delivery struct {
	key     string
	receipt *message.Message
}

// start subscribes a lane and pauses it.
func (q *queue) start(ctx context.Context, t *testing.T, c router.LaneConfig) *lane {
	t.Helper()
	l := &lane{}
	var topic string
	c.Inner, topic = q.Subscriber(t)
	c.Read, c.Drop = l.read, l.drop
	l.Lane = router.NewLane(c)
	out, err := l.Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	l.out = out
	l.Pause()
	t.Cleanup(func() { l.end(t) })
	return l
}

// end closes a lane, also that of a test that failed, and acknowledges what it
// handed out.
func (l *lane) end(t *testing.T) {
	t.Helper()
	closed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		l.Close() //nolint:errcheck // it cannot fail
	}()
	go func() {
		defer close(ended)
		for _, m := range l.taken {
			m.Ack()
		}
		for m := range l.out {
			m.Ack()
		}
	}()
	done(t, "the end of Close", closed)
	done(t, "the end of the lane's channel", ended)
}

func (l *lane) read(m *message.Message) router.Item {
	var item router.Item
	if err := json.Unmarshal(m.Payload, &item); err != nil {
		item.Refused = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered = append(l.delivered, delivery{key: item.Key, receipt: m})
	return item
}

func (l *lane) drop(m *message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, m)
	m.Ack()
}

// keys returns the keys of the deliveries in their order.
func (l *lane) keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for _, d := range l.delivered {
		keys = append(keys, d.key)
	}
	return keys
}

// receipts returns the deliveries with a key.
func (l *lane) receipts(key string) []*message.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*message.Message
	for _, d := range l.delivered {
		if d.key == key {
			found = append(found, d.receipt)
		}
	}
	return found
}

// drops returns what was dropped.
func (l *lane) drops() []*message.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*message.Message(nil), l.dropped...)
}
