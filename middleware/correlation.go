package middleware

import (
	"context"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// CorrelationIDKey is the metadata key of the correlation id; it is Watermill's.
const CorrelationIDKey = "correlation_id"

// maxCorrelationID is the most bytes taken from a foreign id.
const maxCorrelationID = 256

// CorrelationID gives everything that follows from a message one id: the one the
// message came with, else one from ID, else a new UUID. It is in the context of
// the handler and on every produced message that has none of its own. It is
// never empty, has no control characters and at most 256 bytes.
type CorrelationID struct {
	// ID makes an id for a message that has none; nil, or an empty result,
	// means a new UUID.
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
		outer := msg.Context()
		if rec := recordOf(outer); rec != nil {
			rec.correlationID = id
		}
		msg.SetContext(context.WithValue(outer, correlationKey{}, id))
		defer msg.SetContext(outer)
		produced, err := h(msg)
		for _, p := range produced {
			if printable(p.Metadata.Get(CorrelationIDKey), maxCorrelationID) == "" {
				p.Metadata.Set(CorrelationIDKey, id)
			}
		}
		return produced, err
	}
}

func (c CorrelationID) id(msg *message.Message) string {
	id := printable(msg.Metadata.Get(CorrelationIDKey), maxCorrelationID)
	if id == "" && c.ID != nil {
		id = printable(c.ID(msg), maxCorrelationID)
	}
	if id == "" {
		id = watermill.NewUUID()
	}
	return id
}
