package router

import (
	"context"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// interrupts is the subscription to a project's interrupts queue.
type interrupts struct {
	subscriber message.Subscriber
	handler    *message.Handler
}

// openInterrupts subscribes, and adds the handler.
func (t *tenure) openInterrupts() (*interrupts, error) {
	topic := t.r.config.Names.Interrupts(t.pair)
	s := t.r.config.Queues.Subscriber(func(context.Context) (time.Duration, func(int), error) {
		return 0, nil, t.lease.Check()
	}, nil)
	messages, err := s.Subscribe(t.r.ctx, topic)
	if err != nil {
		return nil, err
	}
	h := t.r.router.AddConsumerHandler("interrupts-"+strconv.Itoa(t.r.n), topic, subscription(messages), t.handleInterrupt)
	return &interrupts{subscriber: s, handler: h}, nil
}

func (i *interrupts) close() {
	if i == nil {
		return
	}
	i.subscriber.Close() //nolint:errcheck // what it could not give back comes back by itself
	<-i.handler.Stopped()
}

// handleInterrupt stops what runs, if it began before. A message with an
// instruction is sent on to the input queue, where it interrupts when it arrives.
func (t *tenure) handleInterrupt(msg *message.Message) error {
	d := protocol.DeliveryOf(msg.Context())
	in, err := protocol.DecodeInput(msg.Payload, d)
	switch {
	case err != nil:
		return middleware.Permanent(err)
	case in.Interrupt == nil:
		in.Command.Interrupts = true
		return t.r.Forward(msg.Context(), *in.Command)
	case t.concerns(in.Interrupt):
		t.lane.Interrupt(d.Sent)
	}
	return nil
}

// concerns reports whether an interrupt is for this project: another pair can
// share the queue.
func (t *tenure) concerns(i *protocol.Interrupt) bool {
	p := protocol.Pair{ProjectID: i.ProjectID, UserID: i.UserID}
	return p == t.pair || p.ProjectID == "" || p.UserID == ""
}
