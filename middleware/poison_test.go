package middleware_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/middleware"
)

// byShop is a Topic.
func byShop(msg *message.Message) string { return msg.Metadata.Get("shop") + "_dead" }

func TestPoisonQueueGivesUp(t *testing.T) {
	tests := []struct {
		name     string
		inner    []message.HandlerMiddleware
		err      error
		reason   string
		attempts string
	}{
		{"permanent", []message.HandlerMiddleware{middleware.Retry{}.Middleware}, middleware.Permanent(errDown), errDown.Error(), "1"},
		{"exhausted", []message.HandlerMiddleware{middleware.Retry{Attempts: 4, InitialBackoff: -1}.Middleware}, errDown, errDown.Error(), "4"},
		{"without Retry", nil, errDown, errDown.Error(), "1"},
		{"a deadline of its own", nil, context.DeadlineExceeded, "context deadline exceeded", "1"},
		{"several lines", nil, errors.New("no oven:\n\tbroken\x1b[2J"), "no oven:  broken\uFFFD[2J", "1"},
		{"long", nil, errors.New(strings.Repeat("é", 2000)), strings.Repeat("é", 512), "1"},
		{"no text", nil, errors.New(" "), "an error without a text", "1"},
		{"a secret", nil, errors.New("card 4111 refused"), "card *** refused", "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dead := &topics{}
			poison := middleware.PoisonQueue{
				Topic: byShop, Publisher: dead,
				Redact: func(s string) string { return strings.ReplaceAll(s, "4111", "***") },
				Now:    func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)) },
			}
			h := chain(failing(tt.err), append([]message.HandlerMiddleware{poison.Middleware}, tt.inner...)...)
			produced, err := h(newMessage(t, "two loaves", "shop", "north"))
			if produced != nil || err != nil {
				t.Errorf("got %v and %v, want neither", produced, err)
			}
			if len(dead.messages["north_dead"]) != 1 || dead.count() != 1 {
				t.Fatalf("published %v, want one message in north_dead", dead.messages)
			}
			got := dead.messages["north_dead"][0]
			if got.UUID != "uuid-1" || string(got.Payload) != "two loaves" {
				t.Errorf("message %s with %q, want it as it came", got.UUID, got.Payload)
			}
			want := message.Metadata{
				"shop":                    "north",
				middleware.PoisonReason:   tt.reason,
				middleware.PoisonAttempts: tt.attempts,
				middleware.PoisonTime:     "2026-01-02T02:04:05Z",
			}
			if diff := cmp.Diff(want, got.Metadata); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPoisonQueueHandsBack(t *testing.T) {
	tests := []struct {
		name string
		ctx  context.Context //nolint:containedctx // of the message
		err  error
		want error
	}{
		{"success", t.Context(), nil, nil},
		{"handed back", t.Context(), middleware.HandBack(errDown), errDown},
		{"the service stops", cancelled(t, errStop), context.Canceled, context.Canceled},
		{"the service stops, another error", cancelled(t, errStop), errDown, errDown},
		{"the service stops, permanent", cancelled(t, errStop), middleware.Permanent(errDown), errDown},
		{"the lease ends", deadlineIn(t, 0), context.DeadlineExceeded, context.DeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dead := &topics{}
			poison := middleware.PoisonQueue{Publisher: dead, Then: func(*message.Message, error) ([]*message.Message, error) {
				t.Error("Then was called")
				return nil, nil
			}}
			msg := newMessage(t, "")
			msg.SetContext(tt.ctx)
			produced, err := poison.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				msg.SetContext(t.Context()) // must not hide that the message's has ended
				return []*message.Message{msg}, tt.err
			})(msg)
			if !errors.Is(err, tt.want) || len(produced) != 1 {
				t.Errorf("got %d messages and %v, want what the handler gave", len(produced), err)
			}
			if dead.count() != 0 {
				t.Errorf("dead-lettered %v", dead.messages)
			}
			if msg.Context() != tt.ctx {
				t.Error("the context is another one")
			}
		})
	}
}

func TestPoisonQueueNeverDropsAMessage(t *testing.T) {
	fails := func(*message.Message, error) ([]*message.Message, error) {
		return []*message.Message{{}}, errStop
	}
	tests := []struct {
		name      string
		poison    middleware.PoisonQueue
		publisher *topics
		want      error
		dead      int
	}{
		{"zero value", middleware.PoisonQueue{}, nil, middleware.ErrNoDeadLetterTopic, 0},
		{"no publisher", middleware.PoisonQueue{Topic: byShop}, nil, middleware.ErrNoDeadLetterTopic, 0},
		{
			"no topic for it",
			middleware.PoisonQueue{Topic: func(*message.Message) string { return "" }},
			&topics{}, middleware.ErrNoDeadLetterTopic, 0,
		},
		{"the publisher fails", middleware.PoisonQueue{}, &topics{err: io.ErrClosedPipe}, io.ErrClosedPipe, 0},
		{"Then fails", middleware.PoisonQueue{Then: fails}, &topics{}, errStop, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.publisher != nil {
				tt.poison.Publisher = tt.publisher
			}
			msg := newMessage(t, "")
			before := msg.Copy()
			produced, err := tt.poison.Middleware(failing(errDown))(msg)
			if !errors.Is(err, errDown) || !errors.Is(err, tt.want) {
				t.Errorf("error %v, want the handler's and %v", err, tt.want)
			}
			if produced != nil {
				t.Errorf("produced %v along with an error", produced)
			}
			if tt.publisher != nil && tt.publisher.count() != tt.dead {
				t.Errorf("dead-lettered %v, want %d", tt.publisher.messages, tt.dead)
			}
			if !msg.Equals(before) {
				t.Errorf("the message became %v", msg)
			}
		})
	}
}

func TestPoisonQueueWithoutATopicFuncUsesPoison(t *testing.T) {
	dead := &topics{}
	_, err := middleware.PoisonQueue{Publisher: dead}.Middleware(failing(errDown))(newMessage(t, ""))
	if err != nil || len(dead.messages["poison"]) != 1 {
		t.Errorf("published %v, error %v; want it in poison", dead.messages, err)
	}
	at, err := time.Parse(time.RFC3339, dead.messages["poison"][0].Metadata.Get(middleware.PoisonTime))
	if err != nil || time.Since(at) > time.Minute || at.Location() != time.UTC {
		t.Errorf("given up at %v (%v), want now in UTC", at, err)
	}
}

func TestPoisonQueueThenAnswers(t *testing.T) {
	dead := &topics{}
	poison := middleware.PoisonQueue{Publisher: dead, Then: func(msg *message.Message, err error) ([]*message.Message, error) {
		if dead.count() != 1 {
			t.Error("Then ran before the message was in the dead-letter topic")
		}
		return []*message.Message{newMessage(t, msg.Metadata.Get("shop")+": "+err.Error())}, nil
	}}
	produced, err := poison.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown // of a failed handler, not to be published
	})(newMessage(t, "", "shop", "north"))
	if err != nil || len(produced) != 1 {
		t.Fatalf("got %d messages and %v, want the answer alone", len(produced), err)
	}
	if got, want := string(produced[0].Payload), "north: "+errDown.Error(); got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

func TestPoisonQueuePublishesTheMessageAsItCame(t *testing.T) {
	dead := &topics{}
	h := middleware.PoisonQueue{Publisher: dead}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		msg.UUID = "other"
		msg.Payload[0] = '9'
		msg.Metadata.Set("shop", "south")
		msg.Metadata.Set("more", "of it")
		return nil, errDown
	})
	msg := newMessage(t, "2 loaves", "shop", "north", middleware.PoisonHandler, "of an earlier time")
	if _, err := h(msg); err != nil {
		t.Fatal(err)
	}
	got := dead.messages["poison"][0]
	if got == msg || got.UUID != "uuid-1" || string(got.Payload) != "2 loaves" {
		t.Errorf("message %s with %q, want a copy of what came", got.UUID, got.Payload)
	}
	delete(got.Metadata, middleware.PoisonTime)
	want := message.Metadata{"shop": "north", middleware.PoisonReason: errDown.Error(), middleware.PoisonAttempts: "1"}
	if diff := cmp.Diff(want, got.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestPoisonQueueNeverHasTheStack(t *testing.T) {
	dead := &topics{}
	h := chain(func(*message.Message) ([]*message.Message, error) {
		blowUp("no oven")
		return nil, nil
	}, middleware.PoisonQueue{Publisher: dead}.Middleware, middleware.Retry{}.Middleware, middleware.Recoverer{}.Middleware)
	if _, err := h(newMessage(t, "")); err != nil {
		t.Fatal(err)
	}
	got := dead.messages["poison"][0].Metadata
	if reason := got.Get(middleware.PoisonReason); reason != "panic (string): no oven" {
		t.Errorf("reason %q, want the panic's value alone", reason)
	}
	for key, value := range got {
		if strings.Contains(value, "blowUp") || strings.Contains(value, "goroutine") {
			t.Errorf("%s has the stack: %q", key, value)
		}
	}
}

// The Router knows the topic and the handler, and acknowledges what is poisoned:
// Publish returns.
func TestPoisonQueueInARouter(t *testing.T) {
	router, queue := newRouter(t)
	dead := &topics{}
	router.AddMiddleware(
		middleware.CorrelationID{ID: func(*message.Message) string { return "order-7" }}.Middleware,
		middleware.PoisonQueue{Publisher: dead}.Middleware,
	)
	router.AddConsumerHandler("bake", "orders", queue, func(*message.Message) error { return errDown })
	runOnce(t, router, func() {
		if err := queue.Publish("orders", newMessage(t, "")); err != nil {
			t.Error(err)
		}
	})
	got := dead.messages["poison"][0].Metadata
	delete(got, middleware.PoisonTime)
	want := message.Metadata{
		middleware.CorrelationIDKey: "order-7",
		middleware.PoisonReason:     errDown.Error(),
		middleware.PoisonTopic:      "orders",
		middleware.PoisonHandler:    "bake",
		middleware.PoisonAttempts:   "1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}
