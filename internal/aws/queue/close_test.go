package queue_test

import (
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

// seen is an HTTP client that says when an operation is requested.
type seen struct {
	*http.Client
	op   string
	when chan struct{}
}

func (s *seen) Do(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), s.op) {
		select {
		case s.when <- struct{}{}:
		default:
		}
	}
	return s.Client.Do(r)
}

// TestCloseLosesNothing closes while a receive is in flight, which then brings a
// message, and looks whether the next receive, at once, gets it.
func TestCloseLosesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name           string
		before, after  int // receives, by what SQS says
		isAnotherOne   bool
		visibleAtStart bool
	}{
		{name: "first receive", before: 0, after: 2},
		{name: "near the redrive limit", before: 2, after: 1, isAnotherOne: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, map[string]string{"VisibilityTimeout": "1"})
			h := &seen{Client: &http.Client{Transport: &http.Transport{}}, op: "ReceiveMessage", when: make(chan struct{}, 1)}
			q := open(t, queue.Config{Client: clientOf(endpoint(t), h), Wait: 5 * time.Second})
			// The message is received some times before, and then invisible until
			// the poll of the subscriber waits for it.
			id := ""
			if test.before > 0 {
				id = b.send(t, "precious", nil)
			}
			for range test.before {
				b.receive(t, 5)
			}
			s, out := b.subscribe(t, q)
			<-h.when
			closed := closing(t, s)
			if test.before == 0 {
				id = b.send(t, "precious", nil)
			}
			for m := range out {
				t.Errorf("%q was handed out after Close began", m.Payload)
			}
			done(t, "the end of Close", closed)
			m := b.receive(t, 0)
			if m == nil || *m.Body != "precious" {
				t.Fatalf("received %v at once after Close, want the message", m)
			}
			if n := receives(t, m); n != test.after || (*m.MessageId != id) != test.isAnotherOne {
				t.Errorf("received %d times, another one: %t", n, *m.MessageId != id)
			}
		})
	}
}

func TestWhatNobodyTookIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	var ends atomic.Int32
	s := open(t, queue.Config{}).Subscriber(countEnds(&ends), nil)
	b.send(t, "one", nil)
	if _, err := s.Subscribe(t.Context(), b.topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the message is held", func() bool { return b.invisible(t) == 1 })
	if n := ends.Load(); n != 0 {
		t.Errorf("end called %d times before the message was taken", n)
	}
	shut(t, s)
	if n := ends.Load(); n != 1 {
		t.Errorf("end called %d times, want once", n)
	}
	if m := b.receive(t, 0); m == nil || receives(t, m) != 2 {
		t.Errorf("received %v at once after Close, want the message", m)
	}
}

// TestCloseIsBounded has a handler that never settles.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client(), CloseTimeout: 10 * time.Minute})
		var unsure atomic.Int32
		s := q.Subscriber(nil, func() { unsure.Add(1) })
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 1)
		m := <-out
		start := time.Now()
		go shut(t, s)
		shut(t, s) // both wait
		if took := time.Since(start); took != 10*time.Minute {
			t.Errorf("Close took %v", took)
		}
		if m.Context().Err() == nil || unsure.Load() != 1 {
			t.Errorf("context: %v, unsure: %d times", m.Context().Err(), unsure.Load())
		}
		if got := len(f.of("ChangeMessageVisibility")); got < 39 {
			t.Errorf("%d extensions, want them to go on until the end", got)
		}
		if _, err := s.Subscribe(t.Context(), "q"); err == nil {
			t.Error("a closed subscriber subscribes")
		}
	})
}

// TestCloseHurries has an SQS that answers no more.
func TestCloseHurries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		unsure := make(chan struct{}, 10)
		q := queue.New(queue.Config{Client: f.client()})
		s := q.Subscriber(nil, func() { unsure <- struct{}{} })
		out, err := s.Subscribe(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		f.put("m", 1)
		m := <-out
		f.answers(hang)
		m.Ack()
		start := time.Now()
		shut(t, s)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("Close took %v", took)
		}
		if len(unsure) == 0 {
			t.Error("sure of a message that was not deleted")
		}
	})
}

func TestNothingIsLeftBehind(t *testing.T) {
	b := newBed(t, nil)
	b.left(t, b.url) // its own connection is there before and after
	before := goleak.IgnoreCurrent()
	q := queue.New(queue.Config{Client: clientOf(endpoint(t), awshttp.NewBuildableClient()), Wait: time.Second})
	s := q.Subscriber(nil, nil)
	out, err := s.Subscribe(t.Context(), b.topic)
	if err != nil {
		t.Fatal(err)
	}
	b.send(t, "one", nil)
	next(t, out).Ack()
	shut(t, s)
	shut(t, q)
	goleak.VerifyNone(t, before)
}

// TestManyCycles subscribes and closes for as long as a worker may live.
func TestManyCycles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		cycle := func() {
			s := q.Subscriber(nil, nil)
			out, err := s.Subscribe(t.Context(), "q")
			if err != nil {
				t.Fatal(err)
			}
			f.put("m", 1)
			(<-out).Ack()
			shut(t, s)
			f.mu.Lock()
			f.calls = nil
			f.mu.Unlock()
		}
		cycle()
		goroutines, bytes := runtime.NumGoroutine(), heap()
		for range 2000 {
			cycle()
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > goroutines+20 { // of tests beside this one
			t.Errorf("%d goroutines after 2000 cycles, %d before", n, goroutines)
		}
		if n := heap(); n > bytes+8<<20 {
			t.Errorf("%d bytes after 2000 cycles, %d before", n, bytes)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
