// Command sibling is a small service that has nothing to do with websites and uses
// package middleware for its own messages. It bakes four orders, says what became
// of them, and ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/webordinary/claude-code-container/middleware"
)

// The topics.
const (
	orders   = "orders"
	receipts = "receipts"
	dead     = "orders_dead"
)

func main() {
	err := run(context.Background(), os.Stdout)
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sibling:", err)
		os.Exit(1) //nolint:forbidigo // of main
	}
}

// run writes a line of JSON for each order, and then what became of them.
func run(ctx context.Context, stdout io.Writer) error {
	queues := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	router, err := newRouter(queues, stdout)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	select {
	case <-router.Running():
	case err := <-ended:
		return errors.Join(context.Cause(ctx), err)
	}
	summary, err := order(ctx, queues, "bread", "cake", "stones", "pie")
	if err := errors.Join(context.Cause(ctx), err, router.Close(), <-ended); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, summary)
	return err
}

// order sends one order after the other and waits for what becomes of it.
func order(ctx context.Context, queues *gochannel.GoChannel, what ...string) (string, error) {
	baked, err := queues.Subscribe(ctx, receipts)
	if err != nil {
		return "", fmt.Errorf("subscribe to %s: %w", receipts, err)
	}
	given, err := queues.Subscribe(ctx, dead)
	if err != nil {
		return "", fmt.Errorf("subscribe to %s: %w", dead, err)
	}
	var summary strings.Builder
	for i, payload := range what {
		msg := message.NewMessage(fmt.Sprintf("order-%d", i+1), []byte(payload))
		if err := queues.Publish(orders, msg); err != nil {
			return "", fmt.Errorf("publish %s: %w", payload, err)
		}
		topic := receipts
		select {
		case msg = <-baked:
		case msg = <-given:
			topic = dead
		}
		if msg == nil {
			return "", errors.New("the queues are closed")
		}
		msg.Ack()
		fmt.Fprintf(&summary, "%s: %s for %s", topic, msg.Payload, msg.Metadata.Get(middleware.CorrelationIDKey))
		if topic == dead {
			fmt.Fprintf(&summary, ", attempts %s: %s", msg.Metadata.Get(middleware.PoisonAttempts), msg.Metadata.Get(middleware.PoisonReason))
		}
		summary.WriteByte('\n')
	}
	return summary.String(), nil
}

func newRouter(queues *gochannel.GoChannel, stdout io.Writer) (*message.Router, error) {
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("make router: %w", err)
	}
	router.AddMiddleware(
		middleware.CloudWatch{Writer: stdout, Namespace: "Bakery"}.Middleware,
		middleware.CorrelationID{ID: func(msg *message.Message) string { return msg.UUID }}.Middleware,
		middleware.PoisonQueue{
			Topic:     func(*message.Message) string { return dead },
			Publisher: queues,
		}.Middleware,
		middleware.Retry{InitialBackoff: 10 * time.Millisecond}.Middleware,
		middleware.Recoverer{}.Middleware,
	)
	router.AddHandler("bake", orders, queues, receipts, queues, bake)
	return router, nil
}

// bake makes a receipt of an order.
func bake(msg *message.Message) ([]*message.Message, error) {
	switch what := string(msg.Payload); {
	case what == "cake" && middleware.Attempt(msg.Context()) == 1:
		return nil, errors.New("the oven is cold") // tried again
	case what == "stones":
		return nil, middleware.Permanent(errors.New("nobody bakes stones"))
	case what == "pie":
		panic("the oven is gone")
	}
	receipt := message.NewMessage(watermill.NewUUID(), append([]byte("one "), msg.Payload...))
	return []*message.Message{receipt}, nil
}
