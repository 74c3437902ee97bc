package queue_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

func TestMain(m *testing.M) {
	// Watermill's suite leaves this one of its own behind.
	multiplier := goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe.func2")
	goleak.VerifyTestMain(emulators.Tests{M: m}, multiplier)
}

// soon is when what must happen has happened.
const soon = 30 * time.Second

func endpoint(tb testing.TB) string {
	tb.Helper()
	return emulators.Shared(tb).SQS
}

// clientOf returns a client for an endpoint as cmd would make one.
func clientOf(endpoint string, h sqs.HTTPClient) *sqs.Client {
	return sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, HTTPClient: h,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
}

// bed is one queue in the emulator, and a client of its own to look at it.
type bed struct {
	client *sqs.Client
	topic  string
	url    string
}

func newBed(tb testing.TB, attributes map[string]string) *bed {
	tb.Helper()
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	tb.Cleanup(h.CloseIdleConnections)
	b := &bed{client: clientOf(endpoint(tb), h), topic: "test-" + watermill.NewShortUUID()}
	b.url = b.create(tb, b.topic, attributes)
	return b
}

func (b *bed) create(tb testing.TB, name string, attributes map[string]string) string {
	tb.Helper()
	out, err := b.client.CreateQueue(tb.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		tb.Fatal(err)
	}
	return *out.QueueUrl
}

// open returns Queues for the emulator; what the test leaves open is closed.
func open(tb testing.TB, c queue.Config) *queue.Queues {
	tb.Helper()
	if c.Client == nil {
		c.Client = clientOf(endpoint(tb), awshttp.NewBuildableClient())
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	q := queue.New(c)
	tb.Cleanup(func() { shut(tb, q) })
	return q
}

// subscribe returns a subscriber, and its channel for the bed's queue.
func (b *bed) subscribe(tb testing.TB, q *queue.Queues) (message.Subscriber, <-chan *message.Message) {
	tb.Helper()
	s := q.Subscriber(nil, nil)
	tb.Cleanup(func() { shut(tb, s) })
	out, err := s.Subscribe(tb.Context(), b.topic)
	if err != nil {
		tb.Fatal(err)
	}
	return s, out
}

// send puts a message into the queue as a producer without Watermill does.
func (b *bed) send(tb testing.TB, body string, attributes map[string]types.MessageAttributeValue) (id string) {
	tb.Helper()
	out, err := b.client.SendMessage(tb.Context(), &sqs.SendMessageInput{QueueUrl: &b.url, MessageBody: &body, MessageAttributes: attributes})
	if err != nil {
		tb.Fatal(err)
	}
	return *out.MessageId
}

// receive looks for a message for some seconds; nil if there is none.
func (b *bed) receive(tb testing.TB, wait int32) *types.Message {
	tb.Helper()
	out, err := b.client.ReceiveMessage(tb.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &b.url, WaitTimeSeconds: wait, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	if len(out.Messages) == 0 {
		return nil
	}
	return &out.Messages[0]
}

// left is the number of messages in a queue: visible, invisible and delayed.
func (b *bed) left(tb testing.TB, url string) int {
	tb.Helper()
	out, err := b.client.GetQueueAttributes(tb.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, name := range []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	} {
		some, err := strconv.Atoi(out.Attributes[string(name)])
		if err != nil {
			tb.Fatal(err)
		}
		n += some
	}
	return n
}

// receives is how often a message was received, by what SQS says of it now.
func receives(tb testing.TB, m *types.Message) int {
	tb.Helper()
	n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// next takes a message from a subscription.
func next(tb testing.TB, out <-chan *message.Message) *message.Message {
	tb.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	select {
	case m, ok := <-out:
		if !ok {
			tb.Fatal("the subscription ended, want a message")
		}
		return m
	case <-timeout.C:
		tb.Fatal("no message came")
	}
	return nil
}

// done waits for a channel to be closed.
func done[T any](tb testing.TB, what string, c <-chan T) {
	tb.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	for {
		select {
		case _, open := <-c:
			if !open {
				return
			}
		case <-timeout.C:
			tb.Fatalf("waited too long for: %s", what)
		}
	}
}

// eventually waits until something is so.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), soon)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited too long for: %s", what)
		}
	}
}

// shut closes what cannot fail to close.
func shut(tb testing.TB, c io.Closer) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Error(err)
	}
}

// closing closes in the background.
func closing(tb testing.TB, c io.Closer) <-chan struct{} {
	tb.Helper()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		shut(tb, c)
	}()
	return closed
}

func text(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &s}
}

// logged is a log that can be searched.
type logged struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
}

func noBackoff(int) time.Duration { return 0 }
