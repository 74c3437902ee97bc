package middleware_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/middleware"
)

func TestCorrelationID(t *testing.T) {
	from := func(id string) func(*message.Message) string {
		return func(*message.Message) string { return id }
	}
	const uuid = `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
	tests := []struct {
		name     string
		incoming string
		id       func(*message.Message) string
		want     string // a regular expression
	}{
		{"incoming", "order-7", from("never"), "^order-7$"},
		{"incoming, spaced", " order-7\n", nil, "^order-7$"},
		{"incoming, hostile", "a\x1b[2Jb\u202Ec", nil, "^a\uFFFD\\[2Jb\uFFFDc$"},
		{"incoming, long", strings.Repeat("é", 1000), nil, "^é{128}$"},
		{"from the func", "", from("made-1"), "^made-1$"},
		{"from the func, hostile", " ", from("made\n1"), "^made 1$"},
		{"the func has none", "", from(" "), uuid},
		{"zero value", "", nil, uuid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg := newMessage(t, "", "correlation_id", tt.incoming)
			before := msg.Context()
			var inside string
			produced, err := middleware.CorrelationID{ID: tt.id}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				inside = middleware.CorrelationIDFrom(msg.Context())
				return []*message.Message{newMessage(t, "one"), {}, newMessage(t, "own", "correlation_id", "its own")}, errDown
			})(msg)
			if err != errDown { //nolint:errorlint // the very same
				t.Errorf("error %v, want the handler's", err)
			}
			if !regexp.MustCompile(tt.want).MatchString(inside) {
				t.Errorf("id %q in the context, want %s", inside, tt.want)
			}
			for i, want := range []string{inside, inside, "its own"} {
				if got := produced[i].Metadata.Get(middleware.CorrelationIDKey); got != want {
					t.Errorf("message %d has the id %q, want %q", i, got, want)
				}
			}
			if got := msg.Metadata.Get("correlation_id"); got != tt.incoming {
				t.Errorf("the message's own id became %q", got)
			}
			if msg.Context() != before || middleware.CorrelationIDFrom(before) != "" {
				t.Error("the context is not as it was")
			}
		})
	}
}

func TestCorrelationIDMakesAForeignIDFit(t *testing.T) {
	msg := newMessage(t, "", "correlation_id", "a\x00b")
	produced, err := middleware.CorrelationID{}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg.Copy()}, nil // with the metadata from outside
	})(msg)
	if err != nil {
		t.Fatal(err)
	}
	if got := produced[0].Metadata.Get("correlation_id"); got != "a\uFFFDb" {
		t.Errorf("id %q, want one that a queue takes", got)
	}
}
