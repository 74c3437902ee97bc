package middleware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The outcomes of a message.
const (
	OutcomeOK         = "ok"          // handled; what it produced goes to the publisher
	OutcomePoisoned   = "poisoned"    // in a dead-letter topic, by PoisonQueue
	OutcomeHandedBack = "handed_back" // nacked: HandBack, or its context ended
	OutcomeFailed     = "failed"      // nacked with any other error, or by a panic
)

// The failures behind the outcomes poisoned and failed.
const (
	FailurePermanent = "permanent" // marked as Permanent
	FailureTransient = "transient" // anything else, after all attempts
	FailurePanic     = "panic"
)

// The most bytes of what did not come from the program itself.
const (
	maxError = 2 << 10
	maxStack = 16 << 10
)

// errNoReturn stands for a panic outside Recoverer, which the Router logs with
// its value, or runtime.Goexit.
var errNoReturn = errors.New("the handler did not return")

// CloudWatch writes one line of JSON for each message. The same line is a record
// in CloudWatch's Embedded Metric Format, so that CloudWatch Logs makes metrics of
// it without an agent:
//
//	namespace   Namespace
//	dimensions  [handler], [handler, outcome]
//	metrics     messages (Count, always 1), duration (Milliseconds),
//	            attempt (Count), produced (Count)
//
// The members of a line are
//
//	time, level     when the handler returned; INFO, WARN (handed_back) or ERROR
//	msg             "message handled"
//	handler, topic  from the Router; handler is "unknown" without one
//	message_id      the message's UUID
//	correlation_id  from CorrelationID; left out without it
//	outcome         ok, poisoned, handed_back or failed
//	failure         permanent, transient or panic; poisoned and failed only
//	error           why it is not ok, in one line of at most 2 KB
//	stack           of a panic, at most 16 KB
//	duration        milliseconds, all attempts and the pauses between
//	attempt         the number of the last attempt, from 1 on
//	produced        how many messages go to the publisher
//	_aws            the format's own block
//
// and whatever Attrs gives. No payload and no metadata are among them. It stands
// outermost; that a message was poisoned, which to the Router is a success, it
// knows from PoisonQueue.
//
// A line that cannot be written is lost: the message is more important.
//
// The format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type CloudWatch struct {
	// Writer takes the lines, each in one Write, from several goroutines if
	// the Router has several handlers; nil means os.Stdout.
	Writer io.Writer
	// Namespace of the metrics: at most 255 of A-Z a-z 0-9 . - _ / # and :;
	// empty means "Watermill".
	Namespace string
	// Handler names the handler in a line, and so in the dimensions; nil means by
	// the Router's name. Handlers that come and go want one name for all of a kind:
	// CloudWatch keeps, and bills, each name as metrics of its own.
	Handler func(*message.Message) string
	// Attrs gives further members for a message's line, such as its ids. It is
	// called before the handler. Strings are made printable and cut at 256
	// bytes; one that has no name, or that of a member before it, is left out.
	// LogHandler gives them to all lines about the message, and message_id. nil means
	// none.
	Attrs func(*message.Message) []slog.Attr
	// Redact removes secrets from the text of an error; nil means it stays as
	// it is.
	Redact func(string) string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Middleware implements message.HandlerMiddleware.
func (c CloudWatch) Middleware(h message.HandlerFunc) message.HandlerFunc {
	c = c.withDefaults()
	lines := slog.NewJSONHandler(c.Writer, nil)
	return func(msg *message.Message) (produced []*message.Message, err error) {
		outer := msg.Context()
		defer msg.SetContext(outer)
		rec := keepRecord(msg)
		attrs := c.attrs(msg)
		handler := c.Handler(msg)
		msg.SetContext(WithLogAttrs(msg.Context(), append(slices.Clip(attrs), slog.String("message_id", msg.UUID))...))
		began := c.Now()
		err = errNoReturn
		defer func() { // also when the handler panics, which goes on to the Router
			now := c.Now()
			published := len(produced)
			if err != nil {
				published = 0 // the Router drops them
			}
			line := slog.NewRecord(now, slog.LevelInfo, "message handled", 0)
			line.AddAttrs(
				slog.Float64("duration", float64(now.Sub(began).Microseconds())/1000),
				slog.Int("produced", published),
				slog.String("handler", dimension(handler)),
			)
			c.describe(outer, &line, rec, err)
			line.AddAttrs(attrs...)
			_ = lines.Handle(outer, line)
		}()
		produced, err = h(msg)
		return produced, err
	}
}

func (c CloudWatch) withDefaults() CloudWatch {
	if c.Writer == nil {
		c.Writer = os.Stdout
	}
	c.Namespace = cmp.Or(c.Namespace, "Watermill")
	if c.Handler == nil {
		c.Handler = func(msg *message.Message) string { return message.HandlerNameFromCtx(msg.Context()) }
	}
	if c.Attrs == nil {
		c.Attrs = func(*message.Message) []slog.Attr { return nil }
	}
	if c.Redact == nil {
		c.Redact = func(s string) string { return s }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// describe adds everything but the measured to a line.
func (c CloudWatch) describe(ctx context.Context, line *slog.Record, rec *record, err error) {
	outcome, failure := outcomeOf(ctx, rec, err)
	switch outcome {
	case OutcomeHandedBack:
		line.Level = slog.LevelWarn
	case OutcomePoisoned, OutcomeFailed:
		line.Level = slog.LevelError
	}
	line.AddAttrs(
		slog.String("topic", printable(message.SubscribeTopicFromCtx(ctx), maxID)),
		slog.String("message_id", printable(rec.msg.UUID, maxID)),
		slog.String("outcome", outcome),
		slog.Int("attempt", max(rec.attempts, 1)),
		slog.Int("messages", 1),
		slog.Any("_aws", c.metrics(line.Time)), //nolint:sloglint // the format's name
	)
	if rec.correlationID != "" {
		line.AddAttrs(slog.String("correlation_id", rec.correlationID))
	}
	if failure == nil {
		return
	}
	// Sprint survives an Error method that panics.
	line.AddAttrs(slog.String("error", printable(c.Redact(fmt.Sprint(failure)), maxError)))
	if outcome != OutcomeHandedBack {
		line.AddAttrs(slog.String("failure", failureOf(failure)))
	}
	if p, ok := errors.AsType[*PanicError](failure); ok {
		line.AddAttrs(slog.String("stack", clip(c.Redact(string(p.Stack)), maxStack)))
	}
}

// attrs returns what Attrs gives, made fit.
func (c CloudWatch) attrs(msg *message.Message) []slog.Attr {
	taken := []string{
		"", slog.TimeKey, slog.LevelKey, slog.MessageKey, "handler", "topic", "message_id", "correlation_id", "outcome",
		"failure", "error", "stack", "duration", "attempt", "produced", "messages", "_aws",
	}
	var attrs []slog.Attr
	for _, a := range c.Attrs(msg) {
		if slices.Contains(taken, a.Key) {
			continue // a name twice in an object would spoil the record
		}
		taken = append(taken, a.Key)
		attrs = append(attrs, fit(a))
	}
	return attrs
}

// outcomeOf says what becomes of a message, and why if it is not OutcomeOK.
func outcomeOf(ctx context.Context, rec *record, err error) (string, error) {
	switch {
	case err == nil && rec.poisoned != nil:
		return OutcomePoisoned, rec.poisoned
	case err == nil:
		return OutcomeOK, nil
	case handedBack(ctx, err):
		return OutcomeHandedBack, err
	}
	return OutcomeFailed, err
}

func failureOf(err error) string {
	_, panicked := errors.AsType[*PanicError](err)
	switch {
	case panicked, errors.Is(err, errNoReturn):
		return FailurePanic
	case IsPermanent(err):
		return FailurePermanent
	}
	return FailureTransient
}

// dimension makes a text fit for the value of a dimension, which is ASCII and not
// empty.
func dimension(s string) string {
	s = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII {
			return '?'
		}
		return r
	}, printable(s, maxID))
	return cmp.Or(s, "unknown")
}

// The Embedded Metric Format's own block.
type emf struct {
	Timestamp         int64       `json:"Timestamp"` // milliseconds since 1970
	CloudWatchMetrics []emfMetric `json:"CloudWatchMetrics"`
}

type emfMetric struct {
	Namespace  string       `json:"Namespace"`
	Dimensions [][]string   `json:"Dimensions"` // names of members
	Metrics    []emfMeasure `json:"Metrics"`
}

type emfMeasure struct {
	Name string `json:"Name"` // of a member
	Unit string `json:"Unit"`
}

func (c CloudWatch) metrics(now time.Time) emf {
	return emf{
		Timestamp: now.UnixMilli(),
		CloudWatchMetrics: []emfMetric{{
			Namespace:  c.Namespace,
			Dimensions: [][]string{{"handler"}, {"handler", "outcome"}},
			Metrics: []emfMeasure{
				{"messages", "Count"}, {"duration", "Milliseconds"}, {"attempt", "Count"}, {"produced", "Count"},
			},
		}},
	}
}
