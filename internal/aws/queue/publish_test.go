package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/middleware"
)

func msg(body string, metadata message.Metadata) *message.Message {
	m := message.NewMessage("u-1", []byte(body))
	m.Metadata = metadata
	return m
}

func TestPublishedAttributes(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	q := open(t, queue.Config{})
	body := "\U0001F35E\t\n\r " + "ÿ\uFFFD\U0010FFFF"
	err := q.Publish(b.topic, msg(body, message.Metadata{
		"empty": "", "refused": "a\x00b\uFFFE\uFFFF\xff", "fine": "\U0001F35E\t\n\r",
		"not a name": "x", "AWS.reserved": "x", ".dot": "x", "two..dots": "x",
	}))
	if err != nil {
		t.Fatal(err)
	}
	m := b.receive(t, 1)
	got := map[string]string{}
	for name, value := range m.MessageAttributes {
		got[name] = *value.StringValue
	}
	want := map[string]string{"refused": "a\uFFFDb\uFFFD\uFFFD\uFFFD", "fine": "\U0001F35E\t\n\r", sqs.UUIDAttribute: "u-1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if *m.Body != body {
		t.Errorf("body %q, want %q", *m.Body, body)
	}
}

func TestPublishedAttributesAreTenAtMost(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	q := open(t, queue.Config{})
	metadata := message.Metadata{}
	for _, name := range []string{
		"commandId", "sentAt", "resent", "sessionId", "correlation_id",
		middleware.PoisonReason, middleware.PoisonTopic, middleware.PoisonHandler, middleware.PoisonAttempts, middleware.PoisonTime,
	} {
		metadata[name] = "ours"
	}
	for i := range 20 {
		metadata[fmt.Sprintf("foreign%02d", i)] = "x"
	}
	publish(t, q, b.topic, msg("full", maps.Clone(metadata)))
	delete(metadata, "sessionId")
	delete(metadata, "resent")
	publish(t, q, b.topic, msg("room for one", maps.Clone(metadata)))
	delete(metadata, "sentAt")
	delete(metadata, middleware.PoisonHandler)
	delete(metadata, middleware.PoisonTime)
	publish(t, q, b.topic, msg("room for four", metadata))
	want := map[string][]string{
		"full": {
			"commandId", "correlation_id", "poison_attempts", "poison_handler", "poison_reason", "poison_time", "poison_topic",
			"resent", "sentAt", "sessionId",
		},
		"room for one": {
			"_watermill_message_uuid", "commandId", "correlation_id", "foreign00", "poison_attempts", "poison_handler",
			"poison_reason", "poison_time", "poison_topic", "sentAt",
		},
		"room for four": {
			"_watermill_message_uuid", "commandId", "correlation_id", "foreign00", "foreign01", "foreign02", "foreign03",
			"poison_attempts", "poison_reason", "poison_topic",
		},
	}
	for range 3 {
		m := b.receive(t, 1)
		if diff := cmp.Diff(want[*m.Body], slices.Sorted(maps.Keys(m.MessageAttributes))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", *m.Body, diff)
		}
	}
}

func publish(tb testing.TB, q *queue.Queues, topic string, m *message.Message) {
	tb.Helper()
	if err := q.Publish(topic, m); err != nil {
		tb.Fatal(err)
	}
}

func TestPublishedSizes(t *testing.T) {
	t.Parallel()
	b := newBed(t, map[string]string{"MaximumMessageSize": "1024"})
	q := open(t, queue.Config{})
	long := strings.Repeat("x", 500)
	for _, test := range []struct {
		body     int
		metadata message.Metadata
		want     []string // attributes
	}{
		{400, message.Metadata{"foreign": long, "commandId": "c"}, []string{"_watermill_message_uuid", "commandId", "foreign"}},
		{600, message.Metadata{"foreign": long, "commandId": "c"}, []string{"_watermill_message_uuid", "commandId"}},
		{600, message.Metadata{"poison_reason": long, "commandId": "c"}, []string{"commandId"}},
		{1024, message.Metadata{"poison_reason": long, "commandId": "c"}, nil},
	} {
		publish(t, q, b.topic, msg(strings.Repeat("b", test.body), test.metadata))
		m := b.receive(t, 1)
		if got := slices.Sorted(maps.Keys(m.MessageAttributes)); len(*m.Body) != test.body || !slices.Equal(got, test.want) {
			t.Errorf("%d bytes with %v, want %d with %v", len(*m.Body), got, test.body, test.want)
		}
	}
	err := q.Publish(b.topic, msg(strings.Repeat("b", 1025), message.Metadata{"commandId": "c"}))
	if !errors.Is(err, queue.ErrTooLong) || !strings.Contains(err.Error(), "1025 bytes") || strings.Contains(err.Error(), "bbb") {
		t.Errorf("1025 bytes: %v, want ErrTooLong", err)
	}
	large := newBed(t, map[string]string{"MaximumMessageSize": "1048576"})
	publish(t, q, large.topic, msg(strings.Repeat("b", 1<<20), message.Metadata{"foreign": "x"}))
	if m := large.receive(t, 1); m == nil || len(*m.Body) != 1<<20 {
		t.Error("the largest message that SQS takes did not come")
	}
}

// TestAttributesAreAccepted looks at whatever metadata there may be.
func TestAttributesAreAccepted(t *testing.T) {
	t.Parallel()
	f := newTransport()
	q := queue.New(queue.Config{Client: f.client()})
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune{0, 0x1f, 0xfffe, 0xffff, '.', 'a', ' '})))
		metadata := rapid.MapOfN(rapid.OneOf(text, rapid.StringMatching(`[a-z.]{1,8}`)), text, 0, 20).Draw(t, "metadata")
		if err := q.Publish("q", msg("body", metadata)); err != nil {
			t.Fatal(err)
		}
		sent := f.of("SendMessage")
		attributes, _ := sent[len(sent)-1].input["MessageAttributes"].(map[string]any)
		if len(attributes) > 10 {
			t.Fatalf("%d attributes", len(attributes))
		}
		for name, value := range attributes {
			v := value.(map[string]any)["StringValue"].(string)
			if v == "" || name == "" || strings.ContainsAny(v, "\x00\x1f\uFFFE\uFFFF") || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
				t.Fatalf("attribute %q: %q", name, v)
			}
		}
	})
}

func TestPublishAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		for _, delay := range []time.Duration{0, time.Millisecond, 5 * time.Second, time.Hour} {
			if err := q.PublishAfter(delay, "q", msg("later", nil)); err != nil {
				t.Fatal(err)
			}
		}
		var got []any
		for _, c := range f.of("SendMessage") {
			got = append(got, c.input["DelaySeconds"])
		}
		if diff := cmp.Diff([]any{nil, 1.0, 5.0, 900.0}, got); diff != "" {
			t.Errorf("delays (-want +got):\n%s", diff)
		}
	})
}

// TestPublishIsTriedAgain is about how long, and what.
func TestPublishIsTriedAgain(t *testing.T) {
	t.Parallel()
	unavailable := func(call) (int, any, error) {
		return http.StatusServiceUnavailable, failure("ServiceUnavailable", "later"), nil
	}
	refused := func(code string) answer {
		return func(call) (int, any, error) { return http.StatusBadRequest, failure(code, "no"), nil }
	}
	throttled := refused("KmsThrottled")
	for _, test := range []struct {
		name     string
		answer   answer
		min, max time.Duration // how long it takes
		calls    int           // zero: several
	}{
		{"unavailable", unavailable, 2*time.Minute - 6*time.Second, 2 * time.Minute, 0},
		{"throttled", throttled, 2*time.Minute - 6*time.Second, 2 * time.Minute, 0},
		{"no answer", hang, 2*time.Minute - 6*time.Second, 2 * time.Minute, 0},
		{"no queue", refused("QueueDoesNotExist"), 0, 0, 1},
		{"body refused", refused("InvalidMessageContents"), 0, 0, 1},
		{"denied", refused("AccessDeniedException"), 0, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransport()
				q := queue.New(queue.Config{Client: f.client()})
				if err := q.Publish("https://sqs.example/1/q", msg("first", nil)); err != nil {
					t.Fatal(err)
				}
				f.answers(test.answer)
				start := time.Now()
				err := q.Publish("https://sqs.example/1/q", msg("body", nil))
				took, calls := time.Since(start), len(f.of("SendMessage"))-1
				if err == nil || took < test.min || took > test.max {
					t.Errorf("%v after %v, want an error after %v to %v", err, took, test.min, test.max)
				}
				if test.calls > 0 && calls != test.calls || test.calls == 0 && (calls < 10 || calls > 100) {
					t.Errorf("%d attempts", calls)
				}
			})
		})
	}
}

func TestPublishRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		start := time.Now()
		f.answers(func(c call) (int, any, error) {
			if time.Since(start) > time.Minute {
				return 0, nil, nil
			}
			return hang(c)
		})
		if err := q.Publish("q", msg("body", nil)); err != nil {
			t.Errorf("an outage of a minute: %v", err)
		}
	})
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		f.answers(hang)
		q := queue.New(queue.Config{Client: f.client()})
		m := msg("body", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		m.SetContext(ctx)
		start := time.Now()
		if err := q.Publish("https://sqs.example/1/q", m); err == nil || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestNothingIsPublishedAfterClose(t *testing.T) {
	t.Parallel()
	q := queue.New(queue.Config{Client: newTransport().client()})
	shut(t, q)
	if err := q.Publish("q", msg("body", nil)); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// TestNoPayloadIsLogged looks at the log of all that can happen, at the most
// talkative level.
func TestNoPayloadIsLogged(t *testing.T) {
	t.Parallel()
	const secret = "correct horse battery staple"
	b := newBed(t, nil)
	var log logged
	q := open(t, queue.Config{Backoff: noBackoff, Log: log.logger()})
	publish(t, q, b.topic, msg(secret, message.Metadata{"hint": secret}))
	s, out := b.subscribe(t, q)
	for range 4 {
		next(t, out).Nack()
	}
	next(t, out).Ack()
	for _, body := range []string{"", "\x00" + secret} {
		if err := q.Publish(b.topic, msg(body, nil)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", body, err)
		}
	}
	b.send(t, secret, map[string]types.MessageAttributeValue{"hint": text(secret)})
	m := next(t, out)
	closed := closing(t, s)
	m.Nack()
	done(t, "the end of Close", closed)
	if strings.Contains(log.String(), "horse") || !strings.Contains(log.String(), "message sent") {
		t.Errorf("log: %s", &log)
	}
}
