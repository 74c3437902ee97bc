package queue_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

// hold receives one message in a bubble and returns it and how to end all.
func hold(t *testing.T, f *transport, c queue.Config) (*message.Message, func()) {
	t.Helper()
	c.Client = f.client()
	q := queue.New(c)
	s := q.Subscriber(nil, nil)
	out, err := s.Subscribe(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	f.put("m", 1)
	return <-out, func() {
		shut(t, s)
		shut(t, q)
	}
}

func TestVisibilityIsExtendedUntilTheAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		m, end := hold(t, f, queue.Config{})
		received := time.Now()
		<-time.After(40*time.Minute + time.Second)
		m.Ack()
		synctest.Wait()
		beats := f.of("ChangeMessageVisibility")
		if len(beats) != 160 {
			t.Errorf("%d extensions in 40 minutes, want one each 15 s", len(beats))
		}
		for i, b := range beats {
			if at := b.at.Sub(received); at != time.Duration(i+1)*15*time.Second || b.seconds("VisibilityTimeout") != 45*time.Second {
				t.Errorf("extension %d after %v by %v", i, at, b.seconds("VisibilityTimeout"))
			}
		}
		if got := f.of("DeleteMessage"); len(got) != 1 || got[0].input["ReceiptHandle"] != "receipt-m" {
			t.Errorf("deleted: %v", got)
		}
		end()
		if got := len(f.of("ChangeMessageVisibility")); got != len(beats) {
			t.Errorf("%d extensions after the ack", got-len(beats))
		}
	})
}

func TestVisibilityIsExtendedWhileNobodyTakesTheMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		first, end := hold(t, f, queue.Config{})
		f.put("second", 1)
		<-time.After(time.Minute)
		beats := map[any]int{}
		for _, b := range f.of("ChangeMessageVisibility") {
			beats[b.input["ReceiptHandle"]]++
		}
		if beats["receipt-m"] < 3 || beats["receipt-second"] < 3 {
			t.Errorf("extensions: %v", beats)
		}
		first.Ack()
		end()
	})
}

func TestVisibilityEndsAfterTwelveHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		var log logged
		received := time.Now()
		m, end := hold(t, f, queue.Config{Visibility: 7 * time.Minute, Wait: 20 * time.Second, Log: log.logger()})
		<-time.After(13 * time.Hour)
		var until time.Duration
		for _, b := range f.of("ChangeMessageVisibility") {
			until = b.at.Sub(received) + b.seconds("VisibilityTimeout")
			if until > 12*time.Hour {
				t.Fatalf("asked for %v after %v: SQS refuses more than 12 h", b.seconds("VisibilityTimeout"), b.at.Sub(received))
			}
		}
		if until < 12*time.Hour-2*time.Second {
			t.Errorf("held until %v, want nearly 12 h", until)
		}
		if m.Context().Err() != nil || !strings.Contains(log.String(), "12 hours") {
			t.Errorf("the work's context: %v, log: %s", m.Context().Err(), &log)
		}
		m.Ack()
		synctest.Wait()
		if len(f.of("DeleteMessage")) != 1 {
			t.Error("not deleted in the end")
		}
		end()
	})
}

func TestFailedExtensionIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		failures := 0
		f.answers(func(c call) (int, any, error) {
			if c.op != "ChangeMessageVisibility" || failures == 4 {
				return 0, nil, nil
			}
			failures++
			if failures%2 == 0 {
				return hang(c)
			}
			return http.StatusInternalServerError, failure("InternalFailure", "try later"), nil
		})
		m, end := hold(t, f, queue.Config{})
		received := time.Now()
		<-time.After(45 * time.Second)
		beats := f.of("ChangeMessageVisibility")
		if len(beats) != 5 || beats[4].at.Sub(received) >= 45*time.Second {
			t.Errorf("%d extensions, want four failed ones and a good one in time: %v", len(beats), beats)
		}
		m.Ack()
		end()
	})
}

func TestLostMessageIsNoticed(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransport()
				f.answers(func(c call) (int, any, error) {
					if c.op == "ChangeMessageVisibility" {
						return http.StatusBadRequest, failure(code, "gone"), nil
					}
					return 0, nil, nil
				})
				var log logged
				m, end := hold(t, f, queue.Config{Log: log.logger()})
				<-time.After(10 * time.Minute)
				if got := len(f.of("ChangeMessageVisibility")); got != 1 || !strings.Contains(log.String(), "message lost") {
					t.Errorf("%d extensions of a lost message, want 1; log: %s", got, &log)
				}
				if m.Context().Err() != nil {
					t.Error("the work was stopped")
				}
				m.Ack()
				synctest.Wait()
				if len(f.of("DeleteMessage")) != 1 {
					t.Error("the finished message was not deleted")
				}
				end()
			})
		})
	}
}

// TestHeldMessageStaysInvisible is the same against the emulator, over several
// visibility periods.
func TestHeldMessageStaysInvisible(t *testing.T) {
	t.Parallel()
	b := newBed(t, map[string]string{"VisibilityTimeout": "300"})
	q := open(t, queue.Config{Visibility: time.Second})
	b.send(t, "one", nil)
	s, out := b.subscribe(t, q)
	m := next(t, out)
	go func() {
		for other := range out {
			t.Errorf("%q came again while it was held", other.Payload)
			other.Ack()
		}
	}()
	if again := b.receive(t, 4); again != nil {
		t.Errorf("%q was visible while it was held", *again.Body)
	}
	m.Ack()
	shut(t, s)
	if n := b.left(t, b.url); n != 0 {
		t.Errorf("%d messages left, want none", n)
	}
}
