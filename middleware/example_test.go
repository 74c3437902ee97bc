package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/webordinary/claude-code-container/middleware"
)

// A handler that fails transiently is tried again; Permanent says that it is no
// use.
func ExampleRetry() {
	retry := middleware.Retry{
		Attempts:       5,
		InitialBackoff: 10 * time.Millisecond,
		OnRetry: func(_ *message.Message, err error, attempt int, _ time.Duration) {
			fmt.Printf("attempt %d: %v\n", attempt, err)
		},
	}
	bake := retry.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		if middleware.Attempt(msg.Context()) < 3 {
			return nil, errors.New("the oven is cold")
		}
		return nil, middleware.Permanent(errors.New("no flour"))
	})
	_, err := bake(message.NewMessage("1", nil))
	fmt.Println(err, middleware.IsPermanent(err))
	// Output:
	// attempt 1: the oven is cold
	// attempt 2: the oven is cold
	// no flour true
}

// What cannot be handled goes to a dead-letter topic, here one for each shop, and
// the customer gets an answer.
func ExamplePoisonQueue() {
	queues := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	poison := middleware.PoisonQueue{
		Topic:     func(msg *message.Message) string { return msg.Metadata.Get("shop") + "_dead" },
		Publisher: queues,
		Then: func(msg *message.Message, _ error) ([]*message.Message, error) {
			return []*message.Message{message.NewMessage(msg.UUID, []byte("sorry"))}, nil
		},
	}
	bake := poison.Middleware(func(*message.Message) ([]*message.Message, error) {
		return nil, middleware.Permanent(errors.New("no flour"))
	})
	msg := message.NewMessage("1", []byte("two loaves"))
	msg.Metadata.Set("shop", "north")
	answers, err := bake(msg)
	fmt.Printf("%s, error %v\n", answers[0].Payload, err)

	messages, err := queues.Subscribe(context.Background(), "north_dead")
	if err != nil {
		panic(err)
	}
	dead := <-messages
	fmt.Printf("%s: %s\n", dead.Payload, dead.Metadata.Get(middleware.PoisonReason))
	// Output:
	// sorry, error <nil>
	// two loaves: no flour
}

// All that follows from a message has its correlation id.
func ExampleCorrelationID() {
	correlate := middleware.CorrelationID{
		ID: func(msg *message.Message) string { return "order-" + msg.UUID },
	}
	bake := correlate.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		fmt.Println("baking for", middleware.CorrelationIDFrom(msg.Context()))
		return []*message.Message{message.NewMessage("receipt", nil)}, nil
	})
	receipts, err := bake(message.NewMessage("7", nil))
	fmt.Println("receipt for", receipts[0].Metadata.Get(middleware.CorrelationIDKey), err)
	// Output:
	// baking for order-7
	// receipt for order-7 <nil>
}

// Each message is one line on the standard output, of which CloudWatch Logs makes
// metrics. Here the handler is not known, because there is no Router.
func ExampleCloudWatch() {
	logs := middleware.CloudWatch{
		Namespace: "Bakery",
		Now:       func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
	bake := logs.Middleware(func(*message.Message) ([]*message.Message, error) {
		return nil, errors.New("no flour")
	})
	_, err := bake(message.NewMessage("7", []byte("two loaves")))
	fmt.Println(err)
	// Output:
	// {"time":"2026-01-02T03:04:05Z","level":"ERROR","msg":"message handled","duration":0,"produced":0,"handler":"unknown","topic":"","message_id":"7","outcome":"failed","attempt":1,"messages":1,"_aws":{"Timestamp":1767323045000,"CloudWatchMetrics":[{"Namespace":"Bakery","Dimensions":[["handler"],["handler","outcome"]],"Metrics":[{"Name":"messages","Unit":"Count"},{"Name":"duration","Unit":"Milliseconds"},{"Name":"attempt","Unit":"Count"},{"Name":"produced","Unit":"Count"}]}]},"error":"no flour","failure":"transient"}
	// no flour
}

// A panic becomes a Permanent error; its stack is for the log.
func ExampleRecoverer() {
	recoverer := middleware.Recoverer{OnPanic: func(msg *message.Message, p *middleware.PanicError) {
		fmt.Printf("message %s: %v, with a stack: %t\n", msg.UUID, p.Value, len(p.Stack) > 0)
	}}
	bake := recoverer.Middleware(func(*message.Message) ([]*message.Message, error) {
		panic("the oven is gone")
	})
	_, err := bake(message.NewMessage("7", nil))
	fmt.Println(err, middleware.IsPermanent(err))
	// Output:
	// message 7: the oven is gone, with a stack: true
	// panic (string): the oven is gone true
}
