package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// put sends a message with attributes.
func (b *bed) put(t *testing.T, body string, attributes map[string]string) {
	t.Helper()
	all := map[string]types.MessageAttributeValue{}
	for name, value := range attributes {
		all[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
	}
	if _, err := b.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &b.url, MessageBody: &body, MessageAttributes: all}); err != nil {
		t.Fatal(err)
	}
}

// counts returns how many messages are visible, and how many somebody has.
func counts(t *testing.T, q *queue.Queues, topic string) string {
	t.Helper()
	a, err := q.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d visible, %d in flight", a.Visible, a.InFlight)
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	dead := newBed(t, nil)
	q := open(t, queue.Config{Create: true})
	d, err := q.Describe(t.Context(), dead.topic)
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, map[string]string{
		"VisibilityTimeout": "300", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20",
		"RedrivePolicy": `{"deadLetterTargetArn":"` + d.ARN + `","maxReceiveCount":3}`,
	})
	b.put(t, "x", nil)
	for _, topic := range []string{b.topic, b.url} {
		a, err := q.Describe(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		if a.Name != b.topic || a.FIFO || a.Visible != 1 || a.Visibility != 5*time.Minute || a.Retention != 96*time.Hour ||
			a.Wait != 20*time.Second || a.DeadLetters != d.ARN || a.MaxReceives != 3 {
			t.Errorf("%s is %+v", topic, a)
		}
	}
	// What is not there is not created, whatever the configuration says.
	for range 2 {
		if _, err := q.Describe(t.Context(), "none-"+b.topic); !errors.Is(err, queue.ErrMissing) {
			t.Errorf("a missing queue: %v", err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	var want []string
	for _, c := range "cab" {
		b.create(t, b.topic+"-"+string(c), nil)
	}
	for _, c := range "abc" {
		want = append(want, b.topic+"-"+string(c))
	}
	q := open(t, queue.Config{})
	got, more, err := q.List(t.Context(), b.topic+"-", 3)
	if err != nil || more || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%v, %v, %v", got, more, err)
	}
	if got, more, err = q.List(t.Context(), b.topic+"-", 2); err != nil || !more || len(got) != 2 {
		t.Errorf("with a limit: %v, %v, %v", got, more, err)
	}
}

func TestBrowsingChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	for i := range 25 {
		b.put(t, fmt.Sprint(i), map[string]string{"poison_reason": "because"})
	}
	q := open(t, queue.Config{})
	for range 5 {
		all, more, err := q.Browse(t.Context(), b.topic, 100, queue.Look{})
		if err != nil || more || len(all) != 25 || all[0].Attributes["poison_reason"] != "because" {
			t.Fatalf("%d letters, %v, %v", len(all), more, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.Unlook(ended, all...); err != nil { // also for who was interrupted
			t.Fatal(err)
		}
		if got := counts(t, q, b.topic); got != "25 visible, 0 in flight" {
			t.Fatal(got)
		}
	}
	some, more, err := q.Browse(t.Context(), b.topic, 5, queue.Look{})
	if err != nil || !more || len(some) < 5 {
		t.Errorf("with a limit: %d letters, %v, %v", len(some), more, err)
	}
}

// TestReturnUsesUpNoReceives reads what is another's, again and again, where three
// receives are allowed.
func TestReturnUsesUpNoReceives(t *testing.T) {
	t.Parallel()
	dead := newBed(t, nil)
	q := open(t, queue.Config{})
	d, err := q.Describe(t.Context(), dead.topic)
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + d.ARN + `","maxReceiveCount":3}`})
	b.put(t, "another's", map[string]string{"commandId": "c-1"})
	for range 8 {
		all, err := q.Receive(t.Context(), b.topic, queue.Look{})
		if err != nil || len(all) != 1 || all[0].Body != "another's" || all[0].Attributes["commandId"] != "c-1" || len(all[0].Attributes) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		if err := q.Return(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
	}
	if got := counts(t, q, b.topic); got != "1 visible, 0 in flight" {
		t.Error(got)
	}
	if got := counts(t, q, dead.topic); got != "0 visible, 0 in flight" {
		t.Errorf("dead letters: %s", got)
	}
}

// TestForwardKeepsWhatACommandIsKnownBy, and drops what is named.
func TestForwardKeepsWhatACommandIsKnownBy(t *testing.T) {
	t.Parallel()
	from, to := newBed(t, nil), newBed(t, nil)
	q := open(t, queue.Config{})
	from.put(t, "given an id", map[string]string{"commandId": "c-1", "poison_reason": "because"})
	from.put(t, "without one", nil)
	all, _, err := q.Browse(t.Context(), from.topic, 10, queue.Look{})
	if err != nil || len(all) != 2 {
		t.Fatalf("%d letters, %v", len(all), err)
	}
	want := map[string]protocol.Delivery{}
	for _, l := range all {
		if err := q.Hold(t.Context(), l, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := q.Forward(t.Context(), to.topic, l, "poison_reason"); err != nil {
			t.Fatal(err)
		}
		if err := q.Remove(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		want[l.Body] = l.Delivery
	}
	if got := counts(t, q, from.topic); got != "0 visible, 0 in flight" {
		t.Error(got)
	}
	all, _, err = q.Browse(t.Context(), to.topic, 10, queue.Look{})
	if err != nil || len(all) != 2 {
		t.Fatalf("%d letters, %v", len(all), err)
	}
	for _, l := range all {
		before := want[l.Body]
		id := before.CommandID
		if id == "" {
			id = "sqs-" + before.MessageID
		}
		if !l.Delivery.Resent || l.Delivery.CommandID != id || !l.Delivery.Sent.Equal(before.Sent) || l.Attributes["poison_reason"] != "" {
			t.Errorf("%q came as %+v with %v", l.Body, l.Delivery, l.Attributes)
		}
	}
	if err := q.Forward(t.Context(), "none-"+to.topic, all[0]); !errors.Is(err, queue.ErrMissing) {
		t.Errorf("to a queue that is missing: %v", err)
	}
}
