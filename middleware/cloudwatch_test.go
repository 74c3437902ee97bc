package middleware_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/middleware"
)

// handleOnce lets a handler handle a message, whatever it does, and returns the
// members of the one line that came of it.
func handleOnce(t *testing.T, c middleware.CloudWatch, h message.HandlerFunc, msg *message.Message) map[string]any {
	t.Helper()
	var out bytes.Buffer
	c.Writer = &out
	done := make(chan struct{})
	go func() { // Goexit ends it
		defer close(done)
		defer func() { _ = recover() }() // the Router's part
		_, _ = c.Middleware(h)(msg)
	}()
	<-done
	line, rest, ok := strings.Cut(out.String(), "\n")
	if !ok || rest != "" {
		t.Fatalf("wrote %q, want one line", out.String())
	}
	if err := validEMF(line); err != nil {
		t.Errorf("not a record in the Embedded Metric Format: %v\n%s", err, line)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		t.Fatal(err)
	}
	return members
}

// emf is the Embedded Metric Format's own block, of which nothing may be missing.
type emf struct {
	Timestamp         *int64 `json:"Timestamp"`
	CloudWatchMetrics []struct {
		Namespace  string     `json:"Namespace"`
		Dimensions [][]string `json:"Dimensions"`
		Metrics    []struct {
			Name string `json:"Name"`
			Unit string `json:"Unit"`
		} `json:"Metrics"`
	} `json:"CloudWatchMetrics"`
}

// validEMF checks a line against the specification of the format.
func validEMF(line string) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		return err
	}
	var block emf
	decoder := json.NewDecoder(bytes.NewReader(members["_aws"]))
	decoder.DisallowUnknownFields() // the specification forbids others
	if err := decoder.Decode(&block); err != nil {
		return fmt.Errorf("_aws: %w", err)
	}
	if block.Timestamp == nil || len(block.CloudWatchMetrics) == 0 {
		return errors.New("no Timestamp or no CloudWatchMetrics")
	}
	if err := namesOnce(line); err != nil {
		return err
	}
	for _, m := range block.CloudWatchMetrics {
		if m.Namespace == "" || len(m.Dimensions) == 0 || len(m.Metrics) == 0 {
			return fmt.Errorf("a part is missing: %+v", m)
		}
		for _, set := range m.Dimensions {
			for _, name := range set {
				var value string
				if err := json.Unmarshal(members[name], &value); err != nil || strings.TrimSpace(value) == "" || len(value) > 1024 {
					return fmt.Errorf("dimension %s has the value %s", name, members[name])
				}
				if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
					return fmt.Errorf("dimension %s is not printable ASCII: %q", name, value)
				}
			}
		}
		for _, metric := range m.Metrics {
			var value float64
			if err := json.Unmarshal(members[metric.Name], &value); err != nil {
				return fmt.Errorf("metric %s has the value %s", metric.Name, members[metric.Name])
			}
			if metric.Unit != "Count" && metric.Unit != "Milliseconds" {
				return fmt.Errorf("metric %s has the unit %q", metric.Name, metric.Unit)
			}
		}
	}
	return nil
}

// namesOnce checks that no name is in an object twice, which encoding/json lets
// pass.
func namesOnce(line string) error {
	decoder := json.NewDecoder(strings.NewReader(line))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	seen := map[any]bool{}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("member %s is there twice", name)
		}
		seen[name] = true
		if err := decoder.Decode(new(json.RawMessage)); err != nil {
			return err
		}
	}
	return nil
}

func TestCloudWatchLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	clock := []time.Time{at.Add(-1234567 * time.Microsecond), at}
	c := middleware.CloudWatch{Namespace: "Bakery", Now: func() time.Time {
		now := clock[0]
		clock = clock[1:]
		return now
	}}
	got := handleOnce(t, c, chain(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg, msg}, nil
	}, middleware.CorrelationID{}.Middleware), newMessage(t, "two loaves", "correlation_id", "order-7", "shop", "north"))
	metric := func(name, unit string) map[string]any { return map[string]any{"Name": name, "Unit": unit} }
	want := map[string]any{
		"time": "2026-01-02T03:04:05.678Z", "level": "INFO", "msg": "message handled",
		"handler": "unknown", "topic": "", "message_id": "uuid-1", "correlation_id": "order-7",
		"outcome": "ok", "duration": 1234.567, "attempt": 1.0, "produced": 2.0, "messages": 1.0,
		"_aws": map[string]any{
			"Timestamp": float64(at.UnixMilli()),
			"CloudWatchMetrics": []any{map[string]any{
				"Namespace":  "Bakery",
				"Dimensions": []any{[]any{"handler"}, []any{"handler", "outcome"}},
				"Metrics": []any{
					metric("messages", "Count"), metric("duration", "Milliseconds"),
					metric("attempt", "Count"), metric("produced", "Count"),
				},
			}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestCloudWatchOutcomes(t *testing.T) {
	poison := middleware.PoisonQueue{Publisher: &topics{}}.Middleware
	retry := middleware.Retry{InitialBackoff: -1}.Middleware
	recoverer := middleware.Recoverer{}.Middleware
	all := []message.HandlerMiddleware{poison, retry, recoverer}
	panics := func(*message.Message) ([]*message.Message, error) { panic("no oven") }
	exits := func(*message.Message) ([]*message.Message, error) {
		runtime.Goexit()
		return nil, nil
	}
	tests := []struct {
		name   string
		inner  []message.HandlerMiddleware
		h      message.HandlerFunc
		ended  bool   // the context of the message
		want   string // level, outcome, failure
		reason string
		runs   float64
	}{
		{"success", all, failing(nil), false, "INFO ok <nil>", "<nil>", 1},
		{"success, the service stops", all, failing(nil), true, "INFO ok <nil>", "<nil>", 1},
		{"poisoned, permanent", all, failing(middleware.Permanent(errDown)), false, "ERROR poisoned permanent", errDown.Error(), 1},
		{"poisoned, exhausted", all, failing(errDown), false, "ERROR poisoned transient", errDown.Error(), 3},
		{"poisoned, panic", all, panics, false, "ERROR poisoned panic", "panic (string): no oven", 1},
		{"handed back", all, failing(middleware.HandBack(errDown)), false, "WARN handed_back <nil>", errDown.Error(), 1},
		{
			"handed back, the service stops", all, failing(errDown), true,
			"WARN handed_back <nil>",
			errDown.Error() + " (not tried again: " + errStop.Error() + ")", 1,
		},
		{"failed", []message.HandlerMiddleware{retry}, failing(errDown), false, "ERROR failed transient", errDown.Error(), 3},
		{"failed, permanent", nil, failing(middleware.Permanent(errDown)), false, "ERROR failed permanent", errDown.Error(), 1},
		{"failed, panic", []message.HandlerMiddleware{recoverer}, panics, false, "ERROR failed panic", "panic (string): no oven", 1},
		{"failed, panic outside Recoverer", nil, panics, false, "ERROR failed panic", "the handler did not return", 1},
		{"failed, no return", all, exits, false, "ERROR failed panic", "the handler did not return", 1},
		{
			"failed, no dead-letter topic",
			[]message.HandlerMiddleware{middleware.PoisonQueue{}.Middleware},
			failing(errDown), false, "ERROR failed transient",
			errDown.Error() + " " + middleware.ErrNoDeadLetterTopic.Error(), 1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg := newMessage(t, "")
			if tt.ended {
				msg.SetContext(cancelled(t, errStop))
			}
			before := msg.Context()
			got := handleOnce(t, middleware.CloudWatch{}, chain(tt.h, tt.inner...), msg)
			if is := fmt.Sprint(got["level"], " ", got["outcome"], " ", got["failure"]); is != tt.want {
				t.Errorf("level, outcome and failure: %s, want %s", is, tt.want)
			}
			if is := fmt.Sprint(got["error"]); is != tt.reason {
				t.Errorf("error %q, want %q", is, tt.reason)
			}
			if got["attempt"] != tt.runs {
				t.Errorf("attempt %v, want %v", got["attempt"], tt.runs)
			}
			_, stack := got["stack"]
			if want := strings.HasPrefix(tt.reason, "panic ("); stack != want {
				t.Errorf("there is a stack: %t, want %t", stack, want)
			}
			if msg.Context() != before {
				t.Error("the context is another one")
			}
		})
	}
}

func TestCloudWatchDurationIsOfAllAttemptsAndPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := handleOnce(t, middleware.CloudWatch{}, chain(func(*message.Message) ([]*message.Message, error) {
			<-time.After(250 * time.Millisecond)
			return nil, errDown
		}, middleware.Retry{Random: always(0.5), InitialBackoff: time.Second, Multiplier: 1}.Middleware), newMessage(t, ""))
		if got["duration"] != 1750.0 {
			t.Errorf("duration %v, want 3 * 250 ms and 2 * 500 ms", got["duration"])
		}
		if want := float64(time.Now().UnixMilli()); got["_aws"].(map[string]any)["Timestamp"] != want {
			t.Errorf("timestamp %v, want the end, %v", got["_aws"], want)
		}
	})
}

func TestCloudWatchCountsOnlyWhatIsPublished(t *testing.T) {
	got := handleOnce(t, middleware.CloudWatch{}, func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	}, newMessage(t, ""))
	if got["produced"] != 0.0 {
		t.Errorf("produced %v, want 0: the Router drops what comes with an error", got["produced"])
	}
}

func TestCloudWatchKeepsPayloadAndSecretsOut(t *testing.T) {
	const secret = "4111-1111"
	tests := map[string]message.HandlerFunc{
		"success":       failing(nil),
		"error":         failing(errors.New("card " + secret + " refused")),
		"permanent":     failing(middleware.Permanent(errors.New("card " + secret + " refused"))),
		"panic":         func(*message.Message) ([]*message.Message, error) { panic("card " + secret) },
		"panic, struct": func(*message.Message) ([]*message.Message, error) { panic(order{Card: secret}) },
		"panic, payload": func(msg *message.Message) ([]*message.Message, error) {
			panic(msg.Payload)
		},
		"at the cut": failing(errors.New(strings.Repeat(".", 2<<10-4) + secret)),
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			c := middleware.CloudWatch{Redact: func(s string) string { return strings.ReplaceAll(s, secret, "***") }}
			msg := newMessage(t, `{"card":"`+secret+`"}`, "token", secret)
			got := handleOnce(t, c, chain(h,
				middleware.PoisonQueue{Publisher: &topics{}}.Middleware,
				middleware.Retry{InitialBackoff: -1}.Middleware,
				middleware.Recoverer{}.Middleware,
			), msg)
			if text := fmt.Sprint(got); strings.Contains(text, secret[:4]) {
				t.Errorf("the line has the secret: %s", text)
			}
		})
	}
}

func TestCloudWatchAttrs(t *testing.T) {
	c := middleware.CloudWatch{Attrs: func(msg *message.Message) []slog.Attr {
		return []slog.Attr{
			slog.String("shop", msg.Metadata.Get("shop")),
			slog.String("shop", "twice"),
			slog.String("outcome", "a member's"), slog.String("", "nameless"),
			slog.Int("_aws", 1), //nolint:sloglint // the format's name
			slog.String("long", strings.Repeat("é", 1000)),
			slog.Any("lazy", lazy{}),
			slog.Int("loaves", 2),
		}
	}}
	got := handleOnce(t, c, failing(nil), newMessage(t, "", "shop", "north\n\x1b[2J"))
	for name, want := range map[string]any{
		"shop": "north \uFFFD[2J", "outcome": "ok", "": nil, "long": strings.Repeat("é", 128), "lazy": "a b", "loaves": 2.0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

type lazy struct{}

func (lazy) LogValue() slog.Value { return slog.StringValue("a\nb") }

func TestCloudWatchBoundsForeignText(t *testing.T) {
	msg := newMessage(t, "", "correlation_id", strings.Repeat("c", 9999))
	msg.UUID = strings.Repeat("u", 9999)
	got := handleOnce(t, middleware.CloudWatch{}, chain(failing(errors.New(strings.Repeat("no\n", 9999))),
		middleware.CorrelationID{}.Middleware), msg)
	for name, limit := range map[string]int{"message_id": 256, "correlation_id": 256, "error": 2048} {
		if text, _ := got[name].(string); text == "" || len(text) > limit || strings.Contains(text, "\n") {
			t.Errorf("%s has %d bytes, want one line of at most %d", name, len(text), limit)
		}
	}
}

// asHandler gives messages the name of a handler as the Router does.
func asHandler(t *testing.T, name string, c middleware.CloudWatch) map[string]any {
	t.Helper()
	var out bytes.Buffer
	c.Writer = &out
	router, queue := newRouter(t)
	router.AddMiddleware(c.Middleware)
	router.AddConsumerHandler(name, "orders", queue, func(*message.Message) error { return nil })
	runOnce(t, router, func() {
		if err := queue.Publish("orders", newMessage(t, "")); err != nil {
			t.Error(err)
		}
	})
	if err := validEMF(strings.TrimSpace(out.String())); err != nil {
		t.Errorf("not a record in the Embedded Metric Format: %v\n%s", err, &out)
	}
	var members map[string]any
	if err := json.Unmarshal(out.Bytes(), &members); err != nil {
		t.Fatal(err)
	}
	return members
}

func TestCloudWatchDimensionsFit(t *testing.T) {
	for name, want := range map[string]string{
		"bake":                    "bake",
		"bäcker\n1":               "b?cker 1",
		strings.Repeat("x", 2000): strings.Repeat("x", 256),
		" ":                       "unknown",
	} {
		got := asHandler(t, name, middleware.CloudWatch{})
		if got["handler"] != want || got["topic"] != "orders" {
			t.Errorf("handler %q and topic %q, want %q and orders", got["handler"], got["topic"], want)
		}
	}
}

// shared is a Writer for several goroutines that remembers each Write.
type shared struct {
	mu     sync.Mutex
	writes [][]byte
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, bytes.Clone(p))
	return len(p), nil
}

func TestCloudWatchLinesNeverMix(t *testing.T) {
	const handlers, messages = 4, 50
	out := &shared{}
	var alone bytes.Buffer // has no lock: one handler's lines come one by one
	var wg sync.WaitGroup
	single := middleware.CloudWatch{Writer: &alone}.Middleware(failing(errDown))
	for range handlers {
		h := middleware.CloudWatch{Writer: out}.Middleware(failing(errDown)) // as the Router, for each handler
		for range messages {
			msg := newMessage(t, "")
			wg.Go(func() {
				_, _ = h(msg)
				_, _ = single(msg.Copy())
			})
		}
	}
	wg.Wait()
	lines := bytes.SplitAfter(alone.Bytes(), []byte("\n"))
	lines = append(out.writes, lines[:len(lines)-1]...)
	if len(lines) != 2*handlers*messages {
		t.Errorf("%d lines, want %d", len(lines), 2*handlers*messages)
	}
	for _, line := range lines {
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("not one whole line in one Write: %q", line)
		}
		if err := validEMF(string(line)); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCloudWatchSurvivesABrokenWriter(t *testing.T) {
	produced, err := middleware.CloudWatch{Writer: broken{}}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	})(newMessage(t, ""))
	if len(produced) != 1 || err != errDown { //nolint:errorlint // the very same
		t.Errorf("got %v and %v, want both as they were", produced, err)
	}
}

func TestCloudWatchLetsAPanicPass(t *testing.T) {
	defer func() {
		if value := recover(); value != "no oven" {
			t.Errorf("recovered %v, want the handler's panic", value)
		}
	}()
	_, _ = middleware.CloudWatch{Writer: io.Discard}.Middleware(func(*message.Message) ([]*message.Message, error) {
		panic("no oven")
	})(newMessage(t, ""))
	t.Error("came back")
}
