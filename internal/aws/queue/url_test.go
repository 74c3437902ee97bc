package queue_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

func TestTopicIsANameOrAURL(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	q := open(t, queue.Config{})
	for _, topic := range []string{b.topic, b.url} {
		publish(t, q, topic, msg(topic, nil))
		s := q.Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		m := next(t, out)
		if string(m.Payload) != topic {
			t.Errorf("received %s, want %s", m.Payload, topic)
		}
		m.Ack()
		shut(t, s)
	}
}

func TestURLIsRemembered(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	n := &counter{Client: &http.Client{Transport: &http.Transport{}}}
	q := open(t, queue.Config{Client: clientOf(endpoint(t), n)})
	for range 3 {
		publish(t, q, b.topic, msg("body", nil))
	}
	if got := n.calls.Load(); got != 4 {
		t.Errorf("%d calls for three messages, want one look-up and three sends", got)
	}
}

// counter counts the requests of a client.
type counter struct {
	*http.Client
	calls atomic.Int64
}

func (c *counter) Do(r *http.Request) (*http.Response, error) {
	c.calls.Add(1)
	return c.Client.Do(r)
}

func TestFIFOIsRefused(t *testing.T) {
	t.Parallel()
	f := newTransport()
	q := queue.New(queue.Config{Client: f.client(), Create: true})
	for _, topic := range []string{"q.fifo", "https://sqs.us-east-1.amazonaws.com/1/q.fifo"} {
		_, exists := q.Exists(t.Context(), topic)
		_, subscribe := q.Subscriber(nil, nil).Subscribe(t.Context(), topic)
		for _, err := range []error{q.Publish(topic, msg("body", nil)), exists, subscribe} {
			if !errors.Is(err, queue.ErrFIFO) {
				t.Errorf("%s: %v, want ErrFIFO", topic, err)
			}
		}
	}
	if n := len(f.calls); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestMissingQueue(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	q := open(t, queue.Config{})
	for topic, want := range map[string]bool{b.topic: true, b.url: true, b.topic + "-not": false, b.url + "-not": false} {
		got, err := q.Exists(t.Context(), topic)
		if got != want || err != nil {
			t.Errorf("Exists(%s) = %t, %v", topic, got, err)
		}
	}
	var missing *types.QueueDoesNotExist
	if err := q.Publish(b.topic+"-not", msg("body", nil)); !errors.As(err, &missing) {
		t.Errorf("publish: %v, want QueueDoesNotExist", err)
	}
	s := q.Subscriber(nil, nil)
	if _, err := s.Subscribe(t.Context(), b.topic+"-not"); !errors.As(err, &missing) {
		t.Errorf("subscribe: %v, want QueueDoesNotExist", err)
	}
	shut(t, s)
}

// TestQueueThatIsMadeAgain is found under its new URL.
func TestQueueThatIsGone(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	q := open(t, queue.Config{})
	publish(t, q, b.topic, msg("body", nil))
	if _, err := b.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &b.url}); err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(b.topic, msg("body", nil)); err == nil {
		t.Error("published to a queue that is gone")
	}
	b.create(t, b.topic, nil)
	publish(t, q, b.topic, msg("body", nil))
}

func TestCreate(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	base := b.url[:len(b.url)-len(b.topic)]
	q := open(t, queue.Config{Create: true, DLQ: func(topic string) string { return "dlq-of-" + topic[len(topic)-8:] }})
	for _, topic := range []string{"made-" + watermill.NewShortUUID(), base + "made-" + watermill.NewShortUUID()} {
		publish(t, q, topic, msg("body", nil))
		url := topic
		if topic[:4] == "made" {
			url = base + topic
		}
		out, err := b.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"All"}})
		if err != nil {
			t.Fatal(err)
		}
		var policy map[string]any
		if err := json.Unmarshal([]byte(out.Attributes["RedrivePolicy"]), &policy); err != nil {
			t.Fatal(err)
		}
		got := map[string]any{
			"visibility": out.Attributes["VisibilityTimeout"], "retention": out.Attributes["MessageRetentionPeriod"],
			"wait": out.Attributes["ReceiveMessageWaitTimeSeconds"], "receives": policy["maxReceiveCount"],
			"target": policy["deadLetterTargetArn"],
		}
		want := map[string]any{
			"visibility": "300", "retention": "345600", "wait": "20", "receives": 3.0,
			"target": "arn:aws:sqs:us-east-1:000000000000:dlq-of-" + topic[len(topic)-8:],
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", topic, diff)
		}
	}
}
