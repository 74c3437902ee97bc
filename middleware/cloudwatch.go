package middleware

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The outcomes of a message.
const (
	OutcomeOK         = "ok"
	OutcomePoisoned   = "poisoned"    // in a dead-letter topic
	OutcomeHandedBack = "handed_back" // nacked: shutdown, or the context ended
	OutcomeFailed     = "failed"      // nacked: could not even be dead-lettered
)

// CloudWatch writes one line of JSON for each message. The same line is a record
// in CloudWatch's Embedded Metric Format, so that CloudWatch Logs makes metrics
// of it without an agent:
//
//	namespace   Namespace
//	dimensions  [handler], [handler, outcome]
//	metrics     messages (Count), duration (Milliseconds), attempts (Count), produced (Count)
//
// The line has time, level, msg ("message handled"), handler, topic, message_id,
// correlation_id, outcome, duration, attempts, produced, what Attrs gives, and,
// where something failed, error (one line, at most 2 KB), and for a panic its
// type and stack. It never has a payload.
//
// It stands outermost: the duration holds all attempts and the pauses between.
// Format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type CloudWatch struct {
	// Writer takes the lines, each in one Write; nil means os.Stdout.
	Writer io.Writer
	// Namespace of the metrics; empty means "Watermill".
	Namespace string
	// Attrs gives further attributes of a message, such as its ids; nil means
	// none.
	Attrs func(*message.Message) []slog.Attr
	// Redact removes secrets from an error's text; nil means it stays.
	Redact func(string) string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Middleware implements message.HandlerMiddleware.
func (c CloudWatch) Middleware(h message.HandlerFunc) message.HandlerFunc {
	c = c.withDefaults()
	handler := slog.NewJSONHandler(c.Writer, nil)
	return func(msg *message.Message) ([]*message.Message, error) {
		outer := msg.Context()
		rec := &record{}
		msg.SetContext(context.WithValue(outer, recordKey{}, rec))
		defer msg.SetContext(outer)
		began := c.Now()
		produced, err := h(msg)
		now := c.Now()

		line := slog.NewRecord(now, slog.LevelInfo, "message handled", 0)
		outcome, failure := outcomeOf(msg, rec, err)
		if outcome != OutcomeOK {
			line.Level = slog.LevelError
		}
		if outcome == OutcomeHandedBack {
			line.Level = slog.LevelWarn
		}
		line.AddAttrs(
			slog.String("handler", message.HandlerNameFromCtx(outer)),
			slog.String("topic", message.SubscribeTopicFromCtx(outer)),
			slog.String("message_id", msg.UUID),
			slog.String("correlation_id", rec.correlationID),
			slog.String("outcome", outcome),
			slog.Float64("duration", float64(now.Sub(began).Microseconds())/1000),
			slog.Int("attempts", max(rec.attempts, 1)),
			slog.Int("produced", len(produced)),
			slog.Int("messages", 1),
		)
		if c.Attrs != nil {
			line.AddAttrs(c.Attrs(msg)...)
		}
		if failure != nil {
			line.AddAttrs(c.describe(failure)...)
		}
		line.AddAttrs(slog.Any("_aws", c.metrics(now)))
		if herr := handler.Handle(outer, line); herr != nil {
			slog.New(handler).ErrorContext(outer, "line not written", slog.Any("error", herr)) //nolint:sloglint // the writer failed; there is nobody else to tell
		}
		return produced, err
	}
}

func (c CloudWatch) withDefaults() CloudWatch {
	if c.Writer == nil {
		c.Writer = os.Stdout
	}
	if c.Namespace == "" {
		c.Namespace = "Watermill"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Redact == nil {
		c.Redact = func(s string) string { return s }
	}
	return c
}

func outcomeOf(msg *message.Message, rec *record, err error) (string, error) {
	switch {
	case err == nil && rec.poisoned != nil:
		return OutcomePoisoned, rec.poisoned
	case err == nil:
		return OutcomeOK, nil
	case handedBack(msg, err):
		return OutcomeHandedBack, err
	}
	return OutcomeFailed, err
}

func (c CloudWatch) describe(err error) []slog.Attr {
	attrs := []slog.Attr{slog.String("error", printable(c.Redact(err.Error()), 2048))}
	var p *PanicError
	if errors.As(err, &p) {
		attrs = append(attrs, slog.String("stack", c.Redact(string(p.Stack))))
	}
	return attrs
}

// The Embedded Metric Format's own block.
type emf struct {
	Timestamp         int64       `json:"Timestamp"`
	CloudWatchMetrics []emfMetric `json:"CloudWatchMetrics"`
}

type emfMetric struct {
	Namespace  string       `json:"Namespace"`
	Dimensions [][]string   `json:"Dimensions"`
	Metrics    []emfMeasure `json:"Metrics"`
}

type emfMeasure struct {
	Name string `json:"Name"`
	Unit string `json:"Unit"`
}

func (c CloudWatch) metrics(now time.Time) emf {
	return emf{
		Timestamp: now.UnixMilli(),
		CloudWatchMetrics: []emfMetric{{
			Namespace:  c.Namespace,
			Dimensions: [][]string{{"handler"}, {"handler", "outcome"}},
			Metrics: []emfMeasure{
				{"messages", "Count"}, {"duration", "Milliseconds"}, {"attempts", "Count"}, {"produced", "Count"},
			},
		}},
	}
}
