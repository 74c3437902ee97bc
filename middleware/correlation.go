package middleware

import (
	"context"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// CorrelationIDKey is the metadata key of the correlation id; it is Watermill's.
const CorrelationIDKey = "correlation_id"

// maxID is the most bytes taken of a foreign id.
const maxID = 256

// CorrelationID gives everything that follows from a message one id: the one the
// message came with, else one from ID, else a new UUID. It is in the context of
// the handler, on every produced message that has none of its own, in the line of
// CloudWatch, in all that LogHandler writes of it and on what PoisonQueue publishes.
//
// An id is never empty, has at most 256 bytes, and control characters in it are
// replaced: ids come from outside and go into logs and message attributes. The
// message itself stays as it came.
type CorrelationID struct {
	// ID makes an id for a message that has none; nil, or an empty result,
	// means a new UUID (version 4).
	ID func(*message.Message) string
}

type correlationKey struct{}

// CorrelationIDFrom returns the id of the message that is being handled; empty
// outside the middleware.
func CorrelationIDFrom(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey{}).(string)
	return id
}

// Middleware implements message.HandlerMiddleware.
func (c CorrelationID) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		id := c.id(msg)
		recordOf(msg).correlationID = id
		outer := msg.Context()
		msg.SetContext(WithLogAttrs(context.WithValue(outer, correlationKey{}, id), slog.String("correlation_id", id)))
		defer msg.SetContext(outer)
		produced, err := h(msg)
		for _, p := range produced {
			correlate(p, id)
		}
		return produced, err
	}
}

func (c CorrelationID) id(msg *message.Message) string {
	id := printable(msg.Metadata.Get(CorrelationIDKey), maxID)
	if id == "" && c.ID != nil {
		id = printable(c.ID(msg), maxID)
	}
	if id == "" {
		id = watermill.NewUUID()
	}
	return id
}

// correlate gives a message the id, or makes the one it has fit: it may be a copy
// of what came from outside.
func correlate(msg *message.Message, id string) {
	if own := printable(msg.Metadata.Get(CorrelationIDKey), maxID); own != "" {
		id = own
	}
	if msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	msg.Metadata.Set(CorrelationIDKey, id)
}
