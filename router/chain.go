package router

import (
	"cmp"
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
		middleware.PoisonQueue{Topic: r.deadLetters, Publisher: r.config.Queues, Then: r.giveUp, Redact: r.config.Redact}.Middleware,
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

// subjectOf says what a message is about: as a lane has read it, or, where none is, as
// it can be read. A claim request and an interrupt have no commandId; nil means that
// it cannot be read.
func subjectOf(msg *message.Message) *protocol.InputMessage {
	ctx := msg.Context()
	if in := receivedOf(ctx); in.command != nil || in.err != nil {
		return in.command
	}
	d := protocol.DeliveryOf(ctx)
	in, err := protocol.DecodeInput(msg.Payload, d)
	switch {
	case err == nil && in.Command != nil:
		return in.Command
	case err == nil:
		return &protocol.InputMessage{ProjectID: in.Interrupt.ProjectID, UserID: in.Interrupt.UserID}
	}
	c, err := protocol.DecodeUnclaimed(msg.Payload, d)
	if err != nil {
		return nil
	}
	return &protocol.InputMessage{ProjectID: c.ProjectID, UserID: c.UserID, ThreadID: c.ThreadID, SessionID: c.SessionID}
}

// commandID is the correlation id of a command that came without one.
func commandID(msg *message.Message) string {
	if about := subjectOf(msg); about != nil {
		return about.CommandID
	}
	return ""
}

// LogContext returns the context of a line about a message that was received and is
// not with a handler: middleware.LogHandler gives it the ids that the handler's lines
// have.
func LogContext(msg *message.Message) context.Context {
	attrs := ids(msg)
	if id := cmp.Or(msg.Metadata.Get(middleware.CorrelationIDKey), commandID(msg)); id != "" {
		attrs = append(attrs, slog.String("correlation_id", id))
	}
	return middleware.WithLogAttrs(msg.Context(), attrs...)
}

// kindOf names a handler: those of projects come and go, each with a number.
func kindOf(msg *message.Message) string {
	kind, _, _ := strings.Cut(message.HandlerNameFromCtx(msg.Context()), "-")
	return kind
}

// ids are what every line about a message has.
func ids(msg *message.Message) []slog.Attr {
	attrs := []slog.Attr{slog.Int("receives", protocol.DeliveryOf(msg.Context()).Receives)}
	about := subjectOf(msg)
	if about == nil {
		return attrs
	}
	key := ""
	if about.ProjectID != "" && about.UserID != "" {
		key = about.Pair().Key()
	}
	for _, a := range []slog.Attr{
		slog.String("command_id", about.CommandID), slog.String("session_id", about.SessionID), slog.String("thread_id", about.ThreadID),
		slog.String("project_id", about.ProjectID), slog.String("user_id", about.UserID), slog.String("project_key", key),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}
