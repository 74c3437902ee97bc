package queue_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

// features are what SQS honestly is: messages outlive their subscribers, come at
// least once and in no order, and each goes to one consumer.
func features() tests.Features { return tests.Features{Persistent: true} }

// construct makes what Watermill's suite tests. It nacks hundreds of times and
// leaves messages unsettled.
func construct(t *testing.T) (message.Publisher, message.Subscriber) {
	t.Helper()
	q := open(t, queue.Config{Create: true, Backoff: noBackoff, CloseTimeout: 2 * time.Second})
	s := q.Subscriber(nil, nil)
	t.Cleanup(func() { shut(t, s) })
	return q, s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	short := features()
	short.ForceShort = true
	tests.TestPubSub(t, short, construct, nil)
}
