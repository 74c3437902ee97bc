package queue_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

// cutter is a proxy that forwards requests to the emulator, and cuts the
// connection instead of passing on the answer as long as cuts are left.
type cutter struct {
	target string
	client *http.Client
	op     string
	cuts   atomic.Int32
	cut    atomic.Int32 // done
}

// newCutter returns a proxy that cuts off some answers to an operation, and its URL.
func newCutter(t *testing.T, op string, cuts int32) (*cutter, string) {
	t.Helper()
	c := &cutter{target: endpoint(t), client: &http.Client{Transport: &http.Transport{}}, op: op}
	c.cuts.Store(cuts)
	server := httptest.NewServer(c)
	t.Cleanup(func() {
		server.Close()
		c.client.CloseIdleConnections()
	})
	return c, server.URL
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, c.target+r.URL.Path, r.Body)
	if err != nil {
		panic(err)
	}
	request.Header = r.Header
	response, err := c.client.Do(request)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+c.op) && c.cuts.Add(-1) >= 0 {
		c.cut.Add(1)
		panic(http.ErrAbortHandler) // closes the connection
	}
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	w.Write(body) //nolint:errcheck // the client's matter
}

// cutSubscription subscribes through a proxy and counts how often it was unsure.
func (b *bed) cutSubscription(t *testing.T, op string, cuts int32, c queue.Config) (*cutter, message.Subscriber, <-chan *message.Message, *atomic.Int32) {
	t.Helper()
	proxy, url := newCutter(t, op, cuts)
	c.Client = clientOf(url, awshttp.NewBuildableClient())
	var unsure atomic.Int32
	s := open(t, c).Subscriber(nil, func() { unsure.Add(1) })
	t.Cleanup(func() { shut(t, s) })
	out, err := s.Subscribe(t.Context(), b.topic)
	if err != nil {
		t.Fatal(err)
	}
	return proxy, s, out, &unsure
}

func TestCutReceive(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.send(t, "one", nil)
	proxy, _, out, unsure := b.cutSubscription(t, "ReceiveMessage", 1, queue.Config{Visibility: 2 * time.Second})
	m := next(t, out) // when it is visible again
	if proxy.cut.Load() != 1 || unsure.Load() != 1 {
		t.Errorf("cut %d receives, unsure %d times, want once each", proxy.cut.Load(), unsure.Load())
	}
	m.Ack()
}

func TestCutDelete(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.send(t, "one", nil)
	proxy, s, out, unsure := b.cutSubscription(t, "DeleteMessage", 3, queue.Config{})
	next(t, out).Ack()
	shut(t, s)
	if proxy.cut.Load() != 3 || unsure.Load() != 0 {
		t.Errorf("cut %d deletes, unsure %d times, want three and sure", proxy.cut.Load(), unsure.Load())
	}
	if n := b.left(t, b.url); n != 0 {
		t.Errorf("%d messages left, want none", n)
	}
}

func TestCutHandBack(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.send(t, "one", nil)
	proxy, s, out, unsure := b.cutSubscription(t, "ChangeMessageVisibility", 2, queue.Config{Backoff: noBackoff})
	next(t, out).Nack()
	m := next(t, out)
	if proxy.cut.Load() == 0 || unsure.Load() != 0 {
		t.Errorf("cut %d hand-backs, unsure %d times, want two and sure", proxy.cut.Load(), unsure.Load())
	}
	m.Ack()
	shut(t, s)
}

// TestCutForGood is a hand-back that never gets an answer. It is given up when the
// message is visible again anyhow, and whoever leaves must know.
func TestCutForGood(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.send(t, "one", nil)
	_, s, out, unsure := b.cutSubscription(t, "ChangeMessageVisibility", 1_000_000, queue.Config{Visibility: 3 * time.Second})
	m := next(t, out)
	m.Nack()
	shut(t, s)
	if unsure.Load() == 0 {
		t.Error("sure of a message that may be invisible")
	}
	if b.receive(t, 5) == nil {
		t.Error("the message is lost")
	}
}

func TestCutSend(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	proxy, url := newCutter(t, "SendMessage", 2)
	q := open(t, queue.Config{Client: clientOf(url, awshttp.NewBuildableClient())})
	if err := q.Publish(b.topic, message.NewMessage(watermill.NewUUID(), []byte("one"))); err != nil {
		t.Fatal(err)
	}
	if n := b.left(t, b.url); proxy.cut.Load() != 2 || n != 3 {
		t.Errorf("cut %d sends, %d copies, want two and three: at least once", proxy.cut.Load(), n)
	}
}

// TestCutResend loses the answers of both calls of a re-send; copies have one
// command.
func TestCutResend(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"SendMessage", "DeleteMessage"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, nil)
			b.send(t, "one", nil)
			_, s, out, unsure := b.cutSubscription(t, op, 1, queue.Config{Backoff: noBackoff})
			next(t, out).Nack()
			next(t, out).Nack() // the second time it is sent again
			m := next(t, out)
			command := m.Metadata["commandId"]
			m.Ack()
			if op == "SendMessage" {
				copied := next(t, out)
				if copied.Metadata["commandId"] != command || command == "" {
					t.Errorf("commands %q and %q, want one", copied.Metadata["commandId"], command)
				}
				copied.Ack()
			}
			shut(t, s)
			if n := b.left(t, b.url); n != 0 || unsure.Load() != 0 {
				t.Errorf("%d messages left, unsure %d times, want none", n, unsure.Load())
			}
		})
	}
}
