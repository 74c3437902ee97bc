package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/webordinary/claude-code-container/middleware"
)

// difference is a property that a middleware of this package has and the one of
// Watermill has not: the same check passes with the one and fails with the other,
// for the reason given.
type difference struct {
	name        string
	ours, stock func(t *testing.T) error
	lacks       string // what the check says of the stock one
}

// check runs each check in a bubble, so that pauses take no time.
func check(t *testing.T, differences []difference) {
	t.Helper()
	for _, d := range differences {
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := d.ours(t); err != nil {
					t.Errorf("ours: %v", err)
				}
				if err := d.stock(t); err == nil || err.Error() != d.lacks {
					t.Errorf("the stock one: %v, want %s", err, d.lacks)
				}
			})
		})
	}
}

// with binds a check to a middleware.
func with(f func(*testing.T, message.HandlerMiddleware) error, m message.HandlerMiddleware) func(*testing.T) error {
	return func(t *testing.T) error {
		t.Helper()
		return f(t, m)
	}
}

// stockRetry is the stock Retry with pauses of 100 ms, 200 ms, 400 ms...
func stockRetry() stock.Retry {
	return stock.Retry{MaxRetries: 2, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Hour, Multiplier: 2}
}

// ourRetry is ours with the same pauses.
func ourRetry() middleware.Retry {
	return middleware.Retry{InitialBackoff: 100 * time.Millisecond, MaxBackoff: time.Hour, Random: always(1)}
}

func TestRetryDiffersFromStock(t *testing.T) {
	ours, theirs := ourRetry(), stockRetry()
	check(t, []difference{
		{
			"zero value tries again",
			with(triesAgain, middleware.Retry{}.Middleware), with(triesAgain, stock.Retry{}.Middleware),
			"ran 1 times, want more than once",
		},
		{
			"permanent errors are not tried again",
			with(heedsPermanence, ours.Middleware), with(heedsPermanence, theirs.Middleware),
			"ran 3 times, want 1",
		},
		{
			"an error says how long to wait",
			with(heedsRetryAfter, ours.Middleware), with(heedsRetryAfter, theirs.Middleware),
			"waited 100ms, want at least 1m0s",
		},
		{"the hook is told the pause to come", tellsPauses(ourTelling), tellsPauses(stockTelling), "told [200ms 800ms], paused [100ms 400ms]"},
		{"the hook does not change the pauses", samePauses(ourTelling, ours.Middleware), samePauses(stockTelling, theirs.Middleware), "paused [100ms 400ms] with a hook and [100ms 200ms] without"},
		{
			"the handler's error survives a cancellation while it waits",
			with(keepsTheError, ours.Middleware), with(keepsTheError, theirs.Middleware),
			"error the service stops, want the handler's too",
		},
		{
			"an attempt does not begin with a context that the one before ended",
			with(freshContext, ours.Middleware), with(freshContext, theirs.Middleware),
			"attempt 2 began with context canceled",
		},
		{
			"a failure produces nothing",
			with(producesNothing, ours.Middleware), with(producesNothing, theirs.Middleware),
			"produced 1 messages along with the database is down",
		},
	})
}

func triesAgain(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	runs := 0
	_, _ = m(counting(&runs, errDown))(newMessage(t, ""))
	if runs < 2 {
		return fmt.Errorf("ran %d times, want more than once", runs)
	}
	return nil
}

// counting is a handler that fails and counts.
func counting(runs *int, err error) message.HandlerFunc {
	return func(*message.Message) ([]*message.Message, error) {
		*runs++
		return nil, err
	}
}

func heedsPermanence(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	runs := 0
	_, _ = m(counting(&runs, middleware.Permanent(errDown)))(newMessage(t, ""))
	if runs != 1 {
		return fmt.Errorf("ran %d times, want 1", runs)
	}
	return nil
}

func heedsRetryAfter(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	if got := pausesOf(t, m, middleware.RetryAfter(errDown, time.Minute)); got[0] < time.Minute {
		return fmt.Errorf("waited %v, want at least %v", got[0], time.Minute)
	}
	return nil
}

// pausesOf measures the pauses between the attempts of a handler that fails.
func pausesOf(t *testing.T, m message.HandlerMiddleware, err error) []time.Duration {
	t.Helper()
	var pauses []time.Duration
	var last time.Time
	_, _ = m(func(*message.Message) ([]*message.Message, error) {
		if !last.IsZero() {
			pauses = append(pauses, time.Since(last))
		}
		last = time.Now()
		return nil, err
	})(newMessage(t, ""))
	return pauses
}

// ourTelling and stockTelling are the two with a hook that notes what it is told.
func ourTelling(told *[]time.Duration) message.HandlerMiddleware {
	retry := ourRetry()
	retry.OnRetry = func(_ *message.Message, _ error, _ int, pause time.Duration) { *told = append(*told, pause) }
	return retry.Middleware
}

func stockTelling(told *[]time.Duration) message.HandlerMiddleware {
	retry := stockRetry()
	retry.OnRetryHook = func(_ int, delay time.Duration) { *told = append(*told, delay) }
	return retry.Middleware
}

func tellsPauses(telling func(*[]time.Duration) message.HandlerMiddleware) func(*testing.T) error {
	return func(t *testing.T) error {
		t.Helper()
		var told []time.Duration
		if got := pausesOf(t, telling(&told), errDown); !slices.Equal(got, told) {
			return fmt.Errorf("told %v, paused %v", told, got)
		}
		return nil
	}
}

func samePauses(telling func(*[]time.Duration) message.HandlerMiddleware, without message.HandlerMiddleware) func(*testing.T) error {
	return func(t *testing.T) error {
		t.Helper()
		var told []time.Duration
		got, want := pausesOf(t, telling(&told), errDown), pausesOf(t, without, errDown)
		if !slices.Equal(got, want) {
			return fmt.Errorf("paused %v with a hook and %v without", got, want)
		}
		return nil
	}
}

func keepsTheError(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errStop) })
	msg := newMessage(t, "")
	msg.SetContext(ctx)
	if _, err := m(failing(errDown))(msg); !errors.Is(err, errDown) || !errors.Is(err, errStop) {
		return fmt.Errorf("error %w, want the handler's too", err)
	}
	return nil
}

func freshContext(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	attempt := 0
	var began error
	_, _ = m(func(msg *message.Message) ([]*message.Message, error) {
		attempt++
		if err := msg.Context().Err(); err != nil && began == nil {
			began = fmt.Errorf("attempt %d began with %w", attempt, err)
		}
		msg.SetContext(cancelled(t, nil)) // as the stock Timeout does
		return nil, errDown
	})(newMessage(t, ""))
	return began
}

func producesNothing(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	produced, err := m(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	})(newMessage(t, ""))
	if len(produced) > 0 {
		return fmt.Errorf("produced %d messages along with %v", len(produced), err) //nolint:errorlint // the text of the check
	}
	return nil
}

// aPoisonQueue makes a middleware that publishes to a publisher.
type aPoisonQueue func(message.Publisher) message.HandlerMiddleware

func ourPoison(p message.Publisher) message.HandlerMiddleware {
	return middleware.PoisonQueue{Topic: byShop, Publisher: p}.Middleware
}

func stockPoison(p message.Publisher) message.HandlerMiddleware {
	m, err := stock.PoisonQueue(p, "poison")
	if err != nil {
		panic(err) // there is a topic
	}
	return m
}

func TestPoisonQueueDiffersFromStock(t *testing.T) {
	both := func(name string, f func(*testing.T, aPoisonQueue) error, lacks string) difference {
		return difference{
			name,
			func(t *testing.T) error { t.Helper(); return f(t, ourPoison) },
			func(t *testing.T) error { t.Helper(); return f(t, stockPoison) },
			lacks,
		}
	}
	ours, theirs := middleware.Recoverer{}.Middleware, stock.Recoverer
	check(t, []difference{
		both("a shutdown poisons nothing", sparesShutdown, "dead-lettered context canceled"),
		both("handed back is not poisoned", sparesHandedBack, "dead-lettered the service stops"),
		both("a topic for each message", choosesTopics, "topics [poison], want [north_dead south_dead]"),
		both("the message as it came", keepsTheMessage, `payload "eaten", want "bread"`),
		both("no empty metadata", fillsMetadata, "handler_poisoned is empty"),
		both("one short line of reason", shortReason, "reason of 9000 bytes"),
		both("attempts", countsAttempts, "no attempts among the metadata"),
		both("a failure produces nothing", poisonProducesNothing, "produced 1 messages of a failed handler"),
		both("no publisher is an error", needsPublisher, "panic: runtime error: invalid memory address or nil pointer dereference"),
		{
			"no stack trace",
			func(t *testing.T) error { t.Helper(); return hidesStack(t, ourPoison, ours) },
			func(t *testing.T) error { t.Helper(); return hidesStack(t, stockPoison, theirs) },
			"reason_poisoned has a stack trace",
		},
	})
}

// poisoned returns what a poison queue published of a message.
func poisoned(t *testing.T, m aPoisonQueue, h message.HandlerFunc, msg *message.Message) map[string][]*message.Message {
	t.Helper()
	dead := &topics{}
	_, _ = m(dead)(h)(msg)
	return dead.messages
}

func spares(dead map[string][]*message.Message, err error) error {
	if len(dead) > 0 {
		return fmt.Errorf("dead-lettered %w", err)
	}
	return nil
}

func sparesShutdown(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	msg := newMessage(t, "")
	msg.SetContext(cancelled(t, nil))
	return spares(poisoned(t, m, failing(msg.Context().Err()), msg), msg.Context().Err())
}

func sparesHandedBack(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	return spares(poisoned(t, m, failing(middleware.HandBack(errStop)), newMessage(t, "")), errStop)
}

func choosesTopics(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	dead := &topics{}
	h := m(dead)(failing(errDown))
	for _, shop := range []string{"north", "south"} {
		_, _ = h(newMessage(t, "", "shop", shop))
	}
	var got []string
	for topic := range dead.messages {
		got = append(got, topic)
	}
	slices.Sort(got)
	if want := []string{"north_dead", "south_dead"}; !slices.Equal(got, want) {
		return fmt.Errorf("topics %v, want %v", got, want)
	}
	return nil
}

func keepsTheMessage(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	for _, messages := range poisoned(t, m, func(msg *message.Message) ([]*message.Message, error) {
		msg.Payload = []byte("eaten")
		return nil, errDown
	}, newMessage(t, "bread")) {
		if got := string(messages[0].Payload); got != "bread" {
			return fmt.Errorf("payload %q, want %q", got, "bread")
		}
	}
	return nil
}

func fillsMetadata(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	var empty []string
	for _, messages := range poisoned(t, m, failing(errDown), newMessage(t, "")) {
		for key, value := range messages[0].Metadata {
			if value == "" {
				empty = append(empty, key)
			}
		}
	}
	if len(empty) > 0 {
		return fmt.Errorf("%s is empty", slices.Min(empty))
	}
	return nil
}

func shortReason(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	for _, messages := range poisoned(t, m, failing(errors.New(strings.Repeat("no oven\n\n", 1000))), newMessage(t, "")) {
		for key, value := range messages[0].Metadata {
			if strings.Contains(key, "reason") && (len(value) > 1024 || strings.Contains(value, "\n")) {
				return fmt.Errorf("reason of %d bytes", len(value))
			}
		}
	}
	return nil
}

func countsAttempts(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	h := ourRetry().Middleware(failing(errDown))
	for _, messages := range poisoned(t, m, h, newMessage(t, "")) {
		for _, value := range messages[0].Metadata {
			if value == "3" {
				return nil
			}
		}
	}
	return errors.New("no attempts among the metadata")
}

func poisonProducesNothing(t *testing.T, m aPoisonQueue) error {
	t.Helper()
	produced, err := m(&topics{})(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	})(newMessage(t, ""))
	if err == nil && len(produced) > 0 { // the Router publishes them
		return fmt.Errorf("produced %d messages of a failed handler", len(produced))
	}
	return nil
}

func needsPublisher(t *testing.T, m aPoisonQueue) (err error) {
	t.Helper()
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	if _, err := m(nil)(failing(errDown))(newMessage(t, "")); !errors.Is(err, errDown) {
		return fmt.Errorf("error %w, want the handler's", err)
	}
	return nil
}

func hidesStack(t *testing.T, m aPoisonQueue, recoverer message.HandlerMiddleware) error {
	t.Helper()
	dead := poisoned(t, m, recoverer(panicking("no oven")), newMessage(t, ""))
	if len(dead) != 1 {
		return fmt.Errorf("dead-lettered %v", dead)
	}
	for _, messages := range dead {
		for key, value := range messages[0].Metadata {
			if strings.Contains(value, "blowUp") || strings.Contains(value, "goroutine") {
				return fmt.Errorf("%s has a stack trace", key)
			}
		}
	}
	return nil
}

// panicking is a handler that panics.
func panicking(value any) message.HandlerFunc {
	return func(*message.Message) ([]*message.Message, error) {
		blowUp(value)
		return nil, nil
	}
}

func TestCorrelationIDDiffersFromStock(t *testing.T) {
	ours := middleware.CorrelationID{}.Middleware
	check(t, []difference{
		{"never an empty id", with(neverEmpty, ours), with(neverEmpty, stock.CorrelationID), `correlation_id is there and empty`},
		{"makes one where there is none", with(makesID, ours), with(makesID, stock.CorrelationID), "no id"},
		{"makes a foreign id fit", with(fitID, ours), with(fitID, stock.CorrelationID), "the id has 10001 bytes and a control character"},
		{"messages without metadata", with(nilMetadata, ours), with(nilMetadata, stock.CorrelationID), "panic: assignment to entry in nil map"},
		{"the handler knows the id", with(knownInside, ours), with(knownInside, stock.CorrelationID), "no id in the context"},
	})
}

// producedBy returns the metadata of a message that a handler produces.
func producedBy(t *testing.T, m message.HandlerMiddleware, metadata ...string) message.Metadata {
	t.Helper()
	produced, err := m(func(*message.Message) ([]*message.Message, error) {
		return []*message.Message{message.NewMessage("", nil)}, nil
	})(newMessage(t, "", metadata...))
	if err != nil {
		t.Fatal(err)
	}
	return produced[0].Metadata
}

func neverEmpty(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	if id, ok := producedBy(t, m)["correlation_id"]; ok && id == "" { // SQS refuses it
		return errors.New("correlation_id is there and empty")
	}
	return nil
}

func makesID(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	if producedBy(t, m).Get("correlation_id") == "" {
		return errors.New("no id")
	}
	return nil
}

func fitID(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	id := producedBy(t, m, "correlation_id", strings.Repeat("x", 10_000)+"\x00").Get("correlation_id")
	if len(id) > 256 || strings.Contains(id, "\x00") {
		return fmt.Errorf("the id has %d bytes and a control character", len(id))
	}
	return nil
}

func nilMetadata(t *testing.T, m message.HandlerMiddleware) (err error) {
	t.Helper()
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	_, err = m(func(*message.Message) ([]*message.Message, error) {
		return []*message.Message{{}}, nil
	})(newMessage(t, ""))
	return err
}

func knownInside(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	var id string
	_, _ = m(func(msg *message.Message) ([]*message.Message, error) {
		id = middleware.CorrelationIDFrom(msg.Context())
		return nil, nil
	})(newMessage(t, "", "correlation_id", "order-7"))
	if id != "order-7" {
		return errors.New("no id in the context")
	}
	return nil
}

func TestRecovererDiffersFromStock(t *testing.T) {
	ours := middleware.Recoverer{}.Middleware
	check(t, []difference{
		{"a panic is permanent", with(panicsOnce, ours), with(panicsOnce, stock.Recoverer), "ran 3 times, want 1"},
		{"no stack in the text", with(shortPanic, ours), with(shortPanic, stock.Recoverer), "the text has a stack trace"},
		{"no values of structs in the text", with(hidesValues, ours), with(hidesValues, stock.Recoverer), "the text has the card"},
		{"a panic with an error wraps it", with(wrapsPanic, ours), with(wrapsPanic, stock.Recoverer), "errors.Is does not find unexpected EOF"},
		{
			"nacks when the handler ends its goroutine",
			with(nackedAfterGoexit, ours), with(nackedAfterGoexit, stock.Recoverer),
			"neither acknowledged nor nacked",
		},
	})
}

func panicsOnce(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	runs := 0
	_, _ = chain(func(*message.Message) ([]*message.Message, error) {
		runs++
		panic("no oven")
	}, middleware.Retry{}.Middleware, m)(newMessage(t, ""))
	if runs != 1 {
		return fmt.Errorf("ran %d times, want 1", runs)
	}
	return nil
}

func shortPanic(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	_, err := m(panicking("no oven"))(newMessage(t, ""))
	if err == nil || strings.Contains(err.Error(), "blowUp") {
		return errors.New("the text has a stack trace")
	}
	return nil
}

func hidesValues(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	_, err := m(panicking(order{Card: "4111"}))(newMessage(t, ""))
	if err == nil || strings.Contains(err.Error(), "4111") {
		return errors.New("the text has the card")
	}
	return nil
}

func wrapsPanic(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	if _, err := m(panicking(io.ErrUnexpectedEOF))(newMessage(t, "")); !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("errors.Is does not find %w", io.ErrUnexpectedEOF)
	}
	return nil
}
