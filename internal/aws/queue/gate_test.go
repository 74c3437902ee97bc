package queue_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

func countEnds(n *atomic.Int32) queue.Gate {
	return func(ctx context.Context) (time.Duration, func(int), error) {
		return 0, func(int) { n.Add(1) }, ctx.Err()
	}
}

// invisible is how many messages the emulator holds back.
func (b *bed) invisible(tb testing.TB) int {
	tb.Helper()
	name := types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
	out, err := b.client.GetQueueAttributes(tb.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &b.url, AttributeNames: []types.QueueAttributeName{name}})
	if err != nil {
		tb.Fatal(err)
	}
	if out.Attributes[string(name)] == "0" {
		return 0
	}
	return 1
}

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		open := make(chan time.Duration)
		var gates, ends, taken atomic.Int32
		closed := errors.New("no more")
		s := q.Subscriber(func(ctx context.Context) (time.Duration, func(int), error) {
			gates.Add(1)
			select {
			case visibility, ok := <-open:
				if !ok {
					return 0, nil, closed
				}
				return visibility, func(n int) { ends.Add(1); taken.Add(int32(n)) }, nil
			case <-ctx.Done():
				return 0, nil, ctx.Err()
			}
		}, func() { t.Error("unsure of nothing") })
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		if n := len(f.of("ReceiveMessage")); n != 0 || gates.Load() != 1 {
			t.Fatalf("%d receives past a closed gate, asked %d times", n, gates.Load())
		}
		open <- 7 * time.Second
		<-time.After(6 * time.Second)
		got := f.of("ReceiveMessage")
		if len(got) != 1 || got[0].seconds("VisibilityTimeout") != 7*time.Second || ends.Load() != 1 {
			t.Fatalf("received %v, %d ended, want one empty receive", got, ends.Load())
		}
		f.put("m", 1)
		open <- 0
		synctest.Wait()
		if got := f.of("ReceiveMessage"); len(got) != 2 || got[1].seconds("VisibilityTimeout") != 45*time.Second || ends.Load() != 1 || gates.Load() != 2 {
			t.Fatalf("received %v, %d ended, %d asked, before the message was taken", got, ends.Load(), gates.Load())
		}
		m := <-out
		synctest.Wait()
		if ends.Load() != 2 || taken.Load() != 1 || gates.Load() != 3 {
			t.Fatalf("%d ended, %d asked, after the message was taken", ends.Load(), gates.Load())
		}
		close(open)
		if _, ok := <-out; ok {
			t.Fatal("a message came past a gate that failed")
		}
		if m.Context().Err() != nil || gates.Load() != 3 {
			t.Errorf("context: %v, asked %d times", m.Context().Err(), gates.Load())
		}
		m.Ack()
		shut(t, s)
		if n := len(f.of("DeleteMessage")); n != 1 || ends.Load() != 2 {
			t.Errorf("%d deleted, %d ended", n, ends.Load())
		}
	})
}

// TestShortVisibilityOfALookIsExtended receives with a short visibility, which is
// all that a look needs if it finds nothing or its owner dies.
func TestShortVisibilityOfALookIsExtended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		s := q.Subscriber(func(ctx context.Context) (time.Duration, func(int), error) { return 6 * time.Second, nil, ctx.Err() }, nil)
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		f.put("m", 1)
		m := <-out
		<-time.After(20 * time.Second)
		beats := f.of("ChangeMessageVisibility")
		if len(beats) != 2 || beats[0].at.Sub(start) != 2*time.Second || beats[0].seconds("VisibilityTimeout") != 45*time.Second {
			t.Errorf("extensions: %v, want the first after 2 s", beats)
		}
		m.Ack()
		shut(t, s)
	})
}
