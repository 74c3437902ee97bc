package queue_test

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

func Example() {
	var client *sqs.Client // as the SDK's configuration makes it
	queues := queue.New(queue.Config{Client: client})
	defer queues.Close() //nolint:errcheck // it cannot fail
	if err := queues.Publish("greetings", message.NewMessage(watermill.NewUUID(), []byte("hello"))); err != nil {
		return
	}
	subscriber := queues.Subscriber(nil, nil)
	defer subscriber.Close() //nolint:errcheck // it cannot fail
	messages, err := subscriber.Subscribe(context.Background(), "greetings")
	if err != nil {
		return
	}
	for m := range messages {
		fmt.Println(string(m.Payload), protocol.DeliveryOf(m.Context()).Receives)
		m.Ack()
	}
}
