package queue

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// held is a message that SQS holds back for us.
type held struct {
	*subscription
	message  *message.Message
	poll     poll
	delivery protocol.Delivery
	forget   context.CancelFunc // ends the message's context
	log      *slog.Logger

	returned chan struct{} // closed by HandBack, or if nobody took the message
	dropped  chan struct{} // closed by Drop
	once     sync.Once     // one of the two
	done     chan struct{} // closed when it is settled

	// of run
	until time.Time // when it becomes visible unless extended
}

func (s *subscription) hold(ctx context.Context, p poll) *held {
	m := contentOf(p.raw)
	h := &held{
		subscription: s, message: m, poll: p, delivery: deliveryOf(p.raw, m.Metadata),
		returned: make(chan struct{}), dropped: make(chan struct{}), done: make(chan struct{}), until: p.asked.Add(p.visibility),
	}
	ctx = context.WithValue(protocol.WithDelivery(ctx, h.delivery), heldKey{}, h)
	ctx, h.forget = context.WithCancel(ctx)
	h.message.SetContext(ctx)
	h.log = s.log.With("message_id", m.UUID, "sqs_message_id", h.delivery.MessageID)
	return h
}

// line is the context of a line about the message. Its own copy is read: the other
// belongs to whoever took it.
func (h *held) line(ctx context.Context) context.Context {
	m := contentOf(h.poll.raw)
	m.SetContext(protocol.WithDelivery(ctx, h.delivery))
	return h.queues.config.LogContext(m)
}

type heldKey struct{}

// Drop forgets a delivery without settling its message: a later delivery of the same
// message replaced it. To ack it instead could delete the message, although SQS does
// not promise that for an old receipt, and to nack it could make it visible.
func Drop(m *message.Message) {
	if h, ok := m.Context().Value(heldKey{}).(*held); ok {
		h.once.Do(func() { close(h.dropped) })
	}
}

// HandBack gives a message back so that somebody else can receive it at once. A nack
// makes it wait, the longer the more often it was received: messages would come back
// in another order than they were sent.
func HandBack(m *message.Message) {
	if h, ok := m.Context().Value(heldKey{}).(*held); ok {
		h.once.Do(func() { close(h.returned) })
	}
}

// run keeps a message invisible until it is settled, and settles it in SQS. ctx ends
// with the subscription or the subscriber.
func (h *held) run(ctx context.Context) {
	defer close(h.done)
	defer h.forget()
	beat := time.NewTimer(h.poll.visibility / 3)
	defer beat.Stop()
	for {
		select {
		case <-h.message.Acked():
			h.ack(ctx)
			return
		case <-h.message.Nacked():
			h.handBack(ctx, h.queues.config.Backoff(h.delivery.Receives))
			return
		case <-h.dropped:
			return
		case <-h.returned:
			h.handBack(ctx, 0)
			return
		case <-h.abandon:
			h.log.WarnContext(h.line(ctx), "message left unsettled", "visible_at", h.until)
			h.unsure()
			return
		case <-beat.C:
			if next, ok := h.extend(ctx); ok {
				beat.Reset(next)
			}
		}
	}
}

// extend makes a message invisible for longer and returns when to do so again; not
// ok if that would be in vain.
func (h *held) extend(ctx context.Context) (next time.Duration, ok bool) {
	now := time.Now()
	visibility := min(h.queues.config.Visibility, maxInvisible-now.Sub(h.poll.asked)).Truncate(time.Second)
	if visibility <= 0 {
		h.log.WarnContext(h.line(ctx), "message held for 12 hours, as long as SQS allows; it comes again")
		return 0, false
	}
	err := once(context.WithoutCancel(ctx), min(callTimeout, visibility/3), func(ctx context.Context) error {
		return h.setVisibility(ctx, visibility)
	})
	switch {
	case err == nil:
		h.until = now.Add(visibility)
		return visibility / 3, true
	case lost(err):
		h.log.WarnContext(h.line(ctx), "message lost: it was visible for a moment and may be worked on elsewhere", "error", err)
		return 0, false
	default:
		h.log.WarnContext(h.line(ctx), "message not kept invisible, trying again", "visible_at", h.until, "error", err)
		return visibility / 15, true
	}
}

func (h *held) setVisibility(ctx context.Context, visibility time.Duration) error {
	_, err := h.queues.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &h.url, ReceiptHandle: h.poll.raw.ReceiptHandle, VisibilityTimeout: seconds(visibility),
	})
	return err
}
