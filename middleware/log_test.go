package middleware_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/middleware"
)

// TestLogHandler: what is logged under a message's context has its ids, once.
func TestLogHandler(t *testing.T) {
	var out strings.Builder
	log := slog.New(middleware.LogHandler(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})))
	attrs := func(*message.Message) []slog.Attr {
		return []slog.Attr{slog.String("order_id", "o-1"), slog.String("shop", "a\nb")}
	}
	h := chain(func(msg *message.Message) ([]*message.Message, error) {
		ctx := msg.Context()
		log.InfoContext(ctx, "plain")
		log.With(slog.String("shop", "mine")).InfoContext(ctx, "of the logger", slog.String("order_id", "own"))
		log.WithGroup("g").InfoContext(ctx, "grouped", slog.Int("n", 1))
		log.InfoContext(middleware.WithLogAttrs(ctx, slog.Int("line", 2)), "further")
		log.InfoContext(context.WithoutCancel(ctx), "after the end")
		return nil, nil
	}, middleware.CloudWatch{Writer: io.Discard, Attrs: attrs}.Middleware, middleware.CorrelationID{}.Middleware)
	msg := newMessage(t, "", "correlation_id", "c-1")
	if _, err := h(msg); err != nil {
		t.Fatal(err)
	}
	log.InfoContext(msg.Context(), "outside")
	const want = `{"msg":"plain","order_id":"o-1","shop":"a b","message_id":"uuid-1","correlation_id":"c-1"}
{"msg":"of the logger","shop":"mine","order_id":"own","message_id":"uuid-1","correlation_id":"c-1"}
{"msg":"grouped","g":{"n":1}}
{"msg":"further","order_id":"o-1","shop":"a b","message_id":"uuid-1","correlation_id":"c-1","line":2}
{"msg":"after the end","order_id":"o-1","shop":"a b","message_id":"uuid-1","correlation_id":"c-1"}
{"msg":"outside"}
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

// TestCloudWatchNamesHandlers by their kind, if it is told to.
func TestCloudWatchNamesHandlers(t *testing.T) {
	var out strings.Builder
	c := middleware.CloudWatch{Writer: &out, Handler: func(*message.Message) string { return "orders" }}
	if _, err := c.Middleware(message.PassthroughHandler)(newMessage(t, "")); err != nil {
		t.Fatal(err)
	}
	var line struct {
		Handler string `json:"handler"`
	}
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil || line.Handler != "orders" {
		t.Errorf("handler %q, %v", line.Handler, err)
	}
}
