package router

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// addMiddleware sets the chain, outermost first.
func (r *Router) addMiddleware() {
	retry := r.config.Retry
	retry.Attempts = defaultTo(r.config.Instruction.MaxAttempts, 3)
	r.router.AddMiddleware(
		middleware.CloudWatch{
			Writer: r.config.Metrics, Namespace: metric.Namespace, Handler: kindOf, Attrs: ids, Redact: r.config.Redact,
		}.Middleware,
		middleware.CorrelationID{ID: commandID}.Middleware,
		middleware.PoisonQueue{Topic: r.deadLetters, Publisher: r.config.Queues, Then: r.giveUp}.Middleware,
		answerInterrupted,
		retry.Middleware,
		middleware.Recoverer{}.Middleware,
	)
}

// instructionKey carries the tenure's handler to the middleware.
type instructionKey struct{}

func instructionOf(ctx context.Context) *handlers.Instruction {
	h, _ := ctx.Value(instructionKey{}).(*handlers.Instruction)
	return h
}

// receivedOf returns what the lane has read of a message.
func receivedOf(ctx context.Context) received {
	item, _ := ItemOf(ctx)
	in, _ := item.Value.(received)
	return in
}

func withCorrelation(ctx context.Context) context.Context {
	return handlers.WithCorrelation(ctx, middleware.CorrelationIDFrom(ctx))
}

// deadLetters chooses a message's dead-letter queue: that of its own pair.
func (r *Router) deadLetters(msg *message.Message) string {
	if in := receivedOf(msg.Context()); in.command != nil && in.command.Answerable() {
		return r.config.Names.DLQ(in.command.Pair())
	}
	return r.config.Names.Unclaimed()
}

// giveUp answers a command whose message is in a dead-letter queue.
func (r *Router) giveUp(msg *message.Message, err error) ([]*message.Message, error) {
	r.count(msg.Context(), metric.DeadLetters, 1)
	in, h := receivedOf(msg.Context()), instructionOf(msg.Context())
	if in.command == nil || h == nil {
		return nil, nil
	}
	answer, ferr := h.Fail(withCorrelation(msg.Context()), *in.command, err)
	return produce(msg, answer), ferr
}

// answerInterrupted answers a command that was interrupted while it waited to be
// tried again, when no handler runs that could do so.
func answerInterrupted(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		var i *handlers.InterruptError
		in, instruction := receivedOf(msg.Context()), instructionOf(msg.Context())
		if err == nil || instruction == nil || in.command == nil || !errors.As(context.Cause(msg.Context()), &i) {
			return produced, err
		}
		answer, err := instruction.CutOff(withCorrelation(msg.Context()), *in.command)
		return produce(msg, answer), classify(err, 0)
	}
}

// commandID is the correlation id of a command that came without one.
func commandID(msg *message.Message) string {
	if in := receivedOf(msg.Context()); in.command != nil {
		return in.command.CommandID
	}
	return ""
}

// kindOf names a handler: those of projects come and go, each with a number.
func kindOf(msg *message.Message) string {
	kind, _, _ := strings.Cut(message.HandlerNameFromCtx(msg.Context()), "-")
	return kind
}

// ids are what every line about a message has.
func ids(msg *message.Message) []slog.Attr {
	attrs := []slog.Attr{slog.Int("receives", protocol.DeliveryOf(msg.Context()).Receives)}
	in := receivedOf(msg.Context())
	if in.command == nil {
		return attrs
	}
	c := in.command
	return append(attrs,
		slog.String("command_id", c.CommandID), slog.String("session_id", c.SessionID), slog.String("thread_id", c.ThreadID),
		slog.String("project_id", c.ProjectID), slog.String("user_id", c.UserID), slog.String("project_key", c.Pair().Key()))
}
