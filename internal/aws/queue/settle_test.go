package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

func TestSeveralMessagesAreHeld(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	s, out := b.subscribe(t, open(t, queue.Config{}))
	var held []*message.Message
	for i := range 5 {
		b.send(t, fmt.Sprint(i), nil)
		held = append(held, next(t, out))
	}
	for _, m := range held {
		if m.Context().Err() != nil {
			t.Errorf("%s: %v before it was settled", m.Payload, m.Context().Err())
		}
		m.Ack()
	}
	shut(t, s)
	if n := b.left(t, b.url); n != 0 {
		t.Errorf("%d messages left, want none", n)
	}
}

func TestNackComesBackAfterTheBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		s := q.Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 1)
		(<-out).Nack()
		synctest.Wait()
		if got := f.of("ChangeMessageVisibility"); len(got) != 1 || got[0].seconds("VisibilityTimeout") != time.Second {
			t.Errorf("visibility set: %v, want once, to 1 s", got)
		}
		f.put("again", 2)
		(<-out).Nack()
		synctest.Wait()
		if got := f.of("SendMessage"); len(got) != 1 || got[0].input["DelaySeconds"] != 2.0 {
			t.Errorf("sent again: %v, want once, after 2 s", got)
		}
		if got := f.of("DeleteMessage"); len(got) != 1 || got[0].input["ReceiptHandle"] != "receipt-again" {
			t.Errorf("deleted: %v, want the one that was sent again", got)
		}
		shut(t, s)
	})
}

// TestHandBackMakesNobodyWait, however often the message was received.
func TestHandBackMakesNobodyWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		s := queue.New(queue.Config{Client: f.client()}).Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("once", 1)
		queue.HandBack(<-out)
		f.put("twice", 2)
		queue.HandBack(<-out)
		synctest.Wait()
		if got := f.of("ChangeMessageVisibility"); len(got) != 1 || got[0].seconds("VisibilityTimeout") != 0 {
			t.Errorf("visibility set: %v, want once, to nothing", got)
		}
		if got := f.of("SendMessage"); len(got) != 1 || got[0].input["DelaySeconds"] != nil && got[0].input["DelaySeconds"] != 0.0 {
			t.Errorf("sent again: %v, want once, without a delay", got)
		}
		shut(t, s)
	})
}

// TestDropSettlesNothing: a delivery that was replaced by a later one of the same
// message is forgotten, its message is not.
func TestDropSettlesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		s := queue.New(queue.Config{Client: f.client()}).Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 1)
		m := <-out
		queue.Drop(m)
		queue.Drop(m)
		<-time.After(2 * time.Minute) // beyond every sign of life
		for _, call := range []string{"DeleteMessage", "ChangeMessageVisibility", "SendMessage"} {
			if got := f.of(call); len(got) != 0 {
				t.Errorf("%s: %v, want none", call, got)
			}
		}
		if m.Context().Err() == nil {
			t.Error("the context of what was dropped goes on")
		}
		shut(t, s)
	})
}

// TestNackedMessageIsNeverDeadLettered bounces a message as often as it likes.
func TestNackedMessageIsNeverDeadLettered(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	dead := b.create(t, b.topic+"-dlq", nil)
	b.redrive(t, dead)
	q := open(t, queue.Config{Backoff: noBackoff})
	body := "as it was: \U0001F35E\n\ttwo"
	number := types.MessageAttributeValue{DataType: aws.String("Number.int"), StringValue: aws.String("7")}
	id := b.send(t, body, map[string]types.MessageAttributeValue{"number": number})
	s, out := b.subscribe(t, q)
	var first protocol.Delivery
	for i := range 12 {
		m := next(t, out)
		d := protocol.DeliveryOf(m.Context())
		if i == 0 {
			first = d
			if d.MessageID != id || d.Receives != 1 || d.Resent || d.CommandID != "" || d.Sent.IsZero() {
				t.Errorf("first delivery: %+v", d)
			}
		}
		if d.Receives > 2 || !d.Sent.Equal(first.Sent) || string(m.Payload) != body || m.Metadata["number"] != "7" {
			t.Fatalf("delivery %d: %+v of %q %v", i, d, m.Payload, m.Metadata)
		}
		if i >= 2 && (!d.Resent || d.CommandID != "sqs-"+id || d.MessageID == id) {
			t.Fatalf("delivery %d: %+v, want it to be sent again as sqs-%s", i, d, id)
		}
		if i == 11 {
			want := message.Metadata{
				"number": "7", protocol.AttrCommandID: "sqs-" + id, protocol.AttrResent: "true",
				protocol.AttrSentAt: strconv.FormatInt(first.Sent.UnixMilli(), 10),
			}
			if diff := cmp.Diff(want, m.Metadata); diff != "" {
				t.Errorf("metadata for a dead-lettered copy (-want +got):\n%s", diff)
			}
			m.Ack()
			break
		}
		m.Nack()
	}
	shut(t, s)
	if n := b.left(t, b.url); n != 0 {
		t.Errorf("%d messages left, want none", n)
	}
	if n := b.left(t, dead); n != 0 {
		t.Errorf("%d messages dead-lettered, want none", n)
	}
}

// redrive makes the bed's queue dead-letter after three receives.
func (b *bed) redrive(t *testing.T, deadURL string) {
	t.Helper()
	out, err := b.client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
		QueueUrl: &deadURL, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := json.Marshal(map[string]any{"deadLetterTargetArn": out.Attributes["QueueArn"], "maxReceiveCount": 3})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.client.SetQueueAttributes(t.Context(), &awssqs.SetQueueAttributesInput{
		QueueUrl: &b.url, Attributes: map[string]string{"RedrivePolicy": string(policy)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestResentKeepsItsCommand(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	_, out := b.subscribe(t, open(t, queue.Config{Backoff: noBackoff}))
	attributes := map[string]types.MessageAttributeValue{
		protocol.AttrCommandID: text("c-1"), protocol.AttrSentAt: text("1700000000123"),
	}
	for i := range 7 { // with the two: as many as there is room for beside resent
		attributes["foreign"+strconv.Itoa(i)] = text("x")
	}
	b.send(t, "body", attributes)
	for range 5 {
		next(t, out).Nack()
	}
	m := next(t, out)
	want := protocol.Delivery{Sent: time.UnixMilli(1700000000123).UTC(), Resent: true, CommandID: "c-1"}
	got := protocol.DeliveryOf(m.Context())
	got.MessageID, got.Receives = "", 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delivery (-want +got):\n%s", diff)
	}
	if len(m.Metadata) != 10 {
		t.Errorf("metadata: %v, want all ten", m.Metadata)
	}
	m.Ack()
}

// TestNotSentAgainIsBouncedStill is the last resort of a hand-back.
func TestNotSentAgainIsBouncedStill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		f.answers(func(c call) (int, any, error) {
			if c.op == "SendMessage" {
				return http.StatusForbidden, failure("AccessDeniedException", "no"), nil
			}
			return 0, nil, nil
		})
		var log logged
		q := queue.New(queue.Config{Client: f.client(), Log: log.logger()})
		s := q.Subscriber(nil, func() { t.Error("unsure of a message that was handed back") })
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 3)
		(<-out).Nack()
		shut(t, s)
		if len(f.of("DeleteMessage")) != 0 || len(f.of("ChangeMessageVisibility")) != 1 {
			t.Error("a message that was not sent again must stay")
		}
		if !strings.Contains(log.String(), "message not sent again") {
			t.Errorf("log: %s", &log)
		}
	})
}

func TestSettledAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Close began", "the context ended"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, nil)
			s := open(t, queue.Config{Backoff: noBackoff}).Subscriber(nil, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, err := s.Subscribe(ctx, b.topic)
			if err != nil {
				t.Fatal(err)
			}
			b.send(t, "acked", nil)
			acked := next(t, out)
			b.send(t, "nacked", nil)
			nacked := next(t, out)
			var closed <-chan struct{}
			if way == "Close began" {
				closed = closing(t, s)
			} else {
				cancel()
			}
			done(t, "the end of the channel", out)
			if acked.Context().Err() == nil {
				t.Error("the message's context has not ended")
			}
			acked.Ack()
			nacked.Nack()
			if closed == nil {
				closed = closing(t, s)
			}
			done(t, "the end of Close", closed)
			if n := b.left(t, b.url); n != 1 {
				t.Errorf("%d messages left, want the nacked one", n)
			}
			if m := b.receive(t, 5); m == nil || *m.Body != "nacked" {
				t.Errorf("received %v, want the nacked one", m)
			}
		})
	}
}

// TestUnreadableMessage is delivered with what can be read: the stock unmarshaler
// panics on the first of these.
func TestUnreadableMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	_, out := b.subscribe(t, open(t, queue.Config{}))
	for _, attributes := range []map[string]types.MessageAttributeValue{
		{sqs.UUIDAttribute: {DataType: aws.String("Binary"), BinaryValue: []byte("u-1")}},
		{"custom": {DataType: aws.String("Binary.gif"), BinaryValue: []byte{0, 0xff}}, sqs.UUIDAttribute: text("u-1")},
		{protocol.AttrSentAt: text("yesterday"), protocol.AttrCommandID: {DataType: aws.String("Number"), StringValue: aws.String("1")}, sqs.UUIDAttribute: text("u-1")},
	} {
		b.send(t, "{not json", attributes)
		m := next(t, out)
		if string(m.Payload) != "{not json" || m.UUID != "u-1" || protocol.DeliveryOf(m.Context()).Sent.IsZero() {
			t.Errorf("%v came as %s %q %v, %+v", attributes, m.UUID, m.Payload, m.Metadata, protocol.DeliveryOf(m.Context()))
		}
		m.Ack()
	}
}

// TestTheLastReceiveIsNotRisked: a message whose receivers crash is sent again
// before it is handed out a third time, so SQS never moves it away.
func TestTheLastReceiveIsNotRisked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		s := queue.New(queue.Config{Client: f.client()}).Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 3)
		synctest.Wait()
		sent, deleted := f.of("SendMessage"), f.of("DeleteMessage")
		if len(sent) != 1 || len(deleted) != 1 || sent[0].input["DelaySeconds"] != nil && sent[0].input["DelaySeconds"] != 0.0 {
			t.Errorf("sent again %v, deleted %v; want once each, without a delay", sent, deleted)
		}
		select {
		case m := <-out:
			t.Errorf("message %s was handed out", m.UUID)
		default:
		}
		shut(t, s)
	})
}
