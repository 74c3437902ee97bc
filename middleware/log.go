package middleware

import (
	"context"
	"log/slog"
	"slices"
)

type logKey struct{}

// WithLogAttrs returns a context under which LogHandler gives every record these
// attributes, behind those of ctx. Strings are made printable and cut at 256 bytes.
// CloudWatch does so with what its Attrs gives and the message's id, and CorrelationID
// with the correlation id.
func WithLogAttrs(ctx context.Context, attrs ...slog.Attr) context.Context {
	before, _ := ctx.Value(logKey{}).([]slog.Attr)
	all := slices.Clone(before)
	for _, a := range attrs {
		all = append(all, fit(a))
	}
	return context.WithValue(ctx, logKey{}, all)
}

// fit makes what may come from outside fit for a line.
func fit(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() == slog.KindString {
		a.Value = slog.StringValue(printable(a.Value.String(), maxID))
	}
	return a
}

// LogHandler returns a handler that gives each record the attributes of its context,
// so that all lines about a message are found by its ids. An attribute that the
// record or its logger has by that name stays as it is.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{Handler: h} }

type logHandler struct {
	slog.Handler
	taken []string // names that the logger has
	group bool     // it writes into a group, where ids of a message do not belong
}

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs, _ := ctx.Value(logKey{}).([]slog.Attr)
	if len(attrs) == 0 || h.group {
		return h.Handler.Handle(ctx, r)
	}
	taken := slices.Clone(h.taken)
	r.Attrs(func(a slog.Attr) bool {
		taken = append(taken, a.Key)
		return true
	})
	r = r.Clone()
	for _, a := range attrs {
		if !slices.Contains(taken, a.Key) {
			taken = append(taken, a.Key)
			r.AddAttrs(a)
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	h.taken = slices.Clip(h.taken)
	for _, a := range attrs {
		h.taken = append(h.taken, a.Key)
	}
	return h
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	h.Handler, h.group = h.Handler.WithGroup(name), h.group || name != ""
	return h
}
