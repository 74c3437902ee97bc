package queue

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// resendFrom is the receive count with which a message is no longer bounced: the
// RedrivePolicy allows three receives, and one must be left for a crash.
const resendFrom = maxReceives - 1

// settling is how calls that settle a message are made: not bound by the
// subscription, for as long as the message would stay invisible, and a shorter
// while once the subscription ends.
func (h *held) settling(ctx context.Context, call func(context.Context) error) error {
	outlive := context.WithoutCancel(ctx)
	return patience{total: h.queues.config.Visibility, hurry: ctx.Done()}.try(outlive, call)
}

// ack deletes the message. One that cannot be deleted comes again.
func (h *held) ack(ctx context.Context) {
	if err := h.delete(ctx); err != nil {
		h.log.ErrorContext(h.line(ctx), "message not deleted, it comes again", "error", err)
		h.unsure()
	}
}

// delete works with an old receipt too, as far as SQS lets it.
func (h *held) delete(ctx context.Context) error {
	return h.settling(ctx, func(ctx context.Context) error {
		_, err := h.queues.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &h.url, ReceiptHandle: h.poll.raw.ReceiptHandle})
		return err
	})
}

// handBack lets the message come again after a delay. Near the limit of the
// RedrivePolicy another one takes its place, which starts over.
func (h *held) handBack(ctx context.Context, delay time.Duration) {
	if h.delivery.Receives >= resendFrom && h.resend(ctx, delay) {
		return
	}
	err := h.settling(ctx, func(ctx context.Context) error { return h.setVisibility(ctx, delay) })
	switch {
	case err == nil:
	case lost(err):
		h.log.WarnContext(h.line(ctx), "message handed back is no longer ours", "error", err)
	default:
		h.log.ErrorContext(h.line(ctx), "message not handed back, it comes again later", "visible_at", h.until, "error", err)
		h.unsure()
	}
}

// renew sends a message again, instead of handing it out, if this is the last
// receive that the RedrivePolicy allows: whoever had it before has crashed, and if
// that happened once more, SQS would move it away with no answer to anybody. How
// often a command may crash its worker, the journal counts.
func (h *held) renew(ctx context.Context) bool {
	if h.delivery.Receives < maxReceives || !h.resend(ctx, 0) {
		return false
	}
	h.forget()
	return true
}

// resend sends the message again and then deletes it; false if it was not sent. In
// between a crash leaves two, with one commandId.
func (h *held) resend(ctx context.Context, delay time.Duration) bool {
	err := h.queues.send(context.WithoutCancel(ctx), h.topic, outgoing{
		body: aws.ToString(h.poll.raw.Body), attributes: resentAttributes(h.poll.raw, h.delivery), delay: delay,
		patience: patience{total: h.queues.config.Visibility, hurry: ctx.Done()},
	})
	if err != nil {
		h.log.ErrorContext(h.line(ctx), "message not sent again", "receives", h.delivery.Receives, "error", err)
		return false
	}
	if err := h.delete(ctx); err != nil {
		h.log.ErrorContext(h.line(ctx), "message sent again but not deleted, it comes twice", "error", err)
		h.unsure()
	}
	return true
}
