package queue_test

import (
	"bytes"
	"context"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is when what must happen has happened.
const soon = 30 * time.Second

func endpoint(testing.TB) string { return "http://127.0.0.1:19324" }

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

func newBed(t testing.TB, attributes map[string]string) *bed {
	t.Helper()
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(h.CloseIdleConnections)
	b := &bed{client: clientOf(endpoint(t), h), topic: "test-" + watermill.NewShortUUID()}
	b.url = b.create(t, b.topic, attributes)
	return b
}

func (b *bed) create(t testing.TB, name string, attributes map[string]string) string {
	t.Helper()
	out, err := b.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return *out.QueueUrl
}

// open returns Queues for the emulator; what the test leaves open is closed.
func open(t testing.TB, c queue.Config) *queue.Queues {
	t.Helper()
	if c.Client == nil {
		c.Client = clientOf(endpoint(t), awshttp.NewBuildableClient())
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	q := queue.New(c)
	t.Cleanup(func() { q.Close() })
	return q
}

// subscribe returns a subscriber, and its channel for the bed's queue.
func (b *bed) subscribe(t testing.TB, q *queue.Queues) (message.Subscriber, <-chan *message.Message) {
	t.Helper()
	s := q.Subscriber(nil, nil)
	t.Cleanup(func() { s.Close() })
	out, err := s.Subscribe(t.Context(), b.topic)
	if err != nil {
		t.Fatal(err)
	}
	return s, out
}

// send puts a message into the queue as a producer without Watermill does.
func (b *bed) send(t testing.TB, body string, attributes map[string]types.MessageAttributeValue) (id string) {
	t.Helper()
	out, err := b.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &b.url, MessageBody: &body, MessageAttributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return *out.MessageId
}

// receive looks for a message for some seconds; nil if there is none.
func (b *bed) receive(t testing.TB, wait int32) *types.Message {
	t.Helper()
	out, err := b.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &b.url, WaitTimeSeconds: wait, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Messages) == 0 {
		return nil
	}
	return &out.Messages[0]
}

// left is the number of messages in a queue: visible, invisible and delayed.
func (b *bed) left(t testing.TB, url string) int {
	t.Helper()
	out, err := b.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	} {
		some, err := strconv.Atoi(out.Attributes[string(name)])
		if err != nil {
			t.Fatal(err)
		}
		n += some
	}
	return n
}

// receives is how often a message was received, by what SQS says of it now.
func receives(t testing.TB, m *types.Message) int {
	t.Helper()
	n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// next takes a message from a subscription.
func next(t testing.TB, out <-chan *message.Message) *message.Message {
	t.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	select {
	case m, ok := <-out:
		if !ok {
			t.Fatal("the subscription ended, want a message")
		}
		return m
	case <-timeout.C:
		t.Fatal("no message came")
	}
	return nil
}

// done waits for a channel to be closed.
func done[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	for {
		select {
		case _, open := <-c:
			if !open {
				return
			}
		case <-timeout.C:
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// close ends a subscriber in the background.
func closing(s message.Subscriber) <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
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
