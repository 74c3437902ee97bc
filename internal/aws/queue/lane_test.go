package queue_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/router/lanetest"
)

// harness is a queue in the emulator for the lane's suite.
type harness struct {
	*bed
	queues *queue.Queues
}

func (h *harness) Publish(t *testing.T, m *message.Message) {
	t.Helper()
	publish(t, h.queues, h.topic, m)
}

func (h *harness) Subscriber(t *testing.T) (message.Subscriber, string) {
	t.Helper()
	return h.queues.Subscriber(nil, nil), h.topic
}

func (h *harness) Left(t *testing.T) int {
	t.Helper()
	return h.left(t, h.url)
}

func TestLane(t *testing.T) {
	t.Parallel()
	lanetest.Test(t, func(t *testing.T) lanetest.Harness {
		t.Helper()
		backoff := func(int) time.Duration { return time.Second }
		return &harness{bed: newBed(t, nil), queues: open(t, queue.Config{Backoff: backoff})}
	})
}
