package table_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/journal"
)

// fault is what may happen to a request on its way.
type fault func(r *http.Request, via http.RoundTripper) (*http.Response, error)

var errReset = errors.New("connection reset by peer")

// netError is what net.Conn returns, as far as the SDK looks.
type netError struct{ error }

func (netError) Temporary() bool { return true }
func (netError) Timeout() bool   { return false }

// answer is a fault in which the service refuses.
func answer(status int, body string) fault {
	return func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Request: r, Body: io.NopCloser(strings.NewReader(body)),
			Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		}, nil
	}
}

// cut is a request that never arrives.
func cut(*http.Request, http.RoundTripper) (*http.Response, error) { return nil, netError{errReset} }

// lost is a request that is met, and whose answer is not seen.
func lost(r *http.Request, via http.RoundTripper) (*http.Response, error) {
	resp, err := via.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	return nil, netError{errReset}
}

// half is a request that is met, and whose answer ends in the middle.
func half(r *http.Request, via http.RoundTripper) (*http.Response, error) {
	resp, err := via.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), ends{}))
	return resp, nil
}

// ends is a stream that breaks off.
type ends struct{}

func (ends) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// hang is a request that nobody answers.
func hang(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

const problem = `{"__type":"com.amazonaws.dynamodb.v20120810#`

var (
	conflict  = answer(http.StatusBadRequest, problem+`TransactionConflictException","message":"Transaction is ongoing for the item"}`)
	conflicts = answer(http.StatusBadRequest,
		problem+`TransactionCanceledException","message":"cancelled","CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict"}]}`)
	throttles = answer(http.StatusBadRequest,
		problem+`TransactionCanceledException","message":"cancelled","CancellationReasons":[{"Code":"ThrottlingError"},{"Code":"None"}]}`)
	throttled  = answer(http.StatusBadRequest, problem+`ThrottlingException","message":"slow down"}`)
	exceeded   = answer(http.StatusBadRequest, problem+`ProvisionedThroughputExceededException","message":"slow down"}`)
	inProgress = answer(http.StatusBadRequest, problem+`TransactionInProgressException","message":"wait"}`)
	broken     = answer(http.StatusInternalServerError, problem+`InternalServerError","message":"oops"}`)
	gone       = answer(http.StatusServiceUnavailable, "nobody here")
	denied     = answer(http.StatusBadRequest, problem+`AccessDeniedException","message":"not you"}`)
)

// script is a transport on which the next requests of an operation go wrong.
type script struct {
	via http.RoundTripper

	mu     sync.Mutex
	faults map[string][]fault // by operation
	calls  map[string]int
}

func (s *script) next(op string, faults ...fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = map[string][]fault{op: faults}
	s.calls = map[string]int{}
}

func (s *script) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[op]++
	var f fault
	if left := s.faults[op]; len(left) > 0 {
		f, s.faults[op] = left[0], left[1:]
	}
	s.mu.Unlock()
	if f == nil {
		return s.via.RoundTrip(r)
	}
	return f(r, s.via)
}

// scripted returns tables behind a script.
func scripted(t *testing.T) (*script, *table.Tables) {
	t.Helper()
	s := &script{}
	c := client(t, func(rt http.RoundTripper) http.RoundTripper { s.via = rt; return s })
	return s, create(t, c, ownership())
}

// TestAFaultIsNotAFailure: whatever goes wrong once or twice is tried again, and
// what was written is there. (What hangs: TestAnOutageOfAMinute.)
func TestAFaultIsNotAFailure(t *testing.T) {
	s, tables := scripted(t)
	fence := take(t, tables.Claims(), "a#b")
	records := tables.Journal()
	for name, f := range map[string]fault{
		"cut": cut, "lost": lost, "half": half, "broken": broken, "gone": gone, "throttled": throttled, "exceeded": exceeded,
		"conflicts": conflicts, "throttles": throttles, "inProgress": inProgress,
	} {
		t.Run(name, func(t *testing.T) {
			r := journal.Record{Key: "cmd#a#b#" + name, Body: []byte(name), Expires: time.Now().Add(time.Hour)}
			s.next("TransactWriteItems", f, f)
			if err := records.Put(t.Context(), r, fence); err != nil {
				t.Fatalf("Put: %v", err)
			}
			if n := s.count("TransactWriteItems"); n < 2 {
				t.Fatalf("%d calls: the fault did not happen", n)
			}
			s.next("GetItem", f, f)
			got, err := records.Get(t.Context(), r.Key)
			if err != nil || string(got.Body) != name {
				t.Fatalf("Get: %q, %v", got.Body, err)
			}
		})
	}
}

// TestALeaseOutlivesFaults: also one whose answer is lost, and one that meets
// the journal's transaction.
func TestALeaseOutlivesFaults(t *testing.T) {
	s, tables := scripted(t)
	for name, f := range map[string]fault{"cut": cut, "lost": lost, "broken": broken, "throttled": throttled, "conflict": conflict} {
		t.Run(name, func(t *testing.T) {
			claims := &claim.Claims{Table: tables.Claims(), ContainerID: "c1"}
			s.next("UpdateItem", f, f)
			lease, err := claims.Acquire(t.Context(), "a#"+name)
			if err != nil {
				t.Fatal(err)
			}
			s.next("UpdateItem", f)
			if err := lease.Releasing(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.next("UpdateItem", f, f)
			if err := lease.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			row, err := tables.Claims().Get(t.Context(), "a#"+name)
			if err != nil || row.Status != claim.Released || row.Fence != lease.Fence() {
				t.Fatalf("row %+v, %v", row, err)
			}
		})
	}
}

func TestWhatCannotGetBetterIsNotTriedAgain(t *testing.T) {
	s, tables := scripted(t)
	s.next("TransactWriteItems", denied, denied)
	err := tables.Journal().Put(t.Context(), journal.Record{Key: "k", Expires: time.Now().Add(time.Hour)}, journal.Fence{ProjectKey: "a#b", Number: 1})
	if err == nil || errors.Is(err, journal.ErrFenced) || s.count("TransactWriteItems") != 1 {
		t.Fatalf("%v after %d calls", err, s.count("TransactWriteItems"))
	}
}

// TestAFrozenOwnerCannotWrite: its record was on its way when another took the
// project.
func TestAFrozenOwnerCannotWrite(t *testing.T) {
	s, tables := scripted(t)
	fence := take(t, tables.Claims(), "a#b")
	r := journal.Record{Key: "cmd#a#b#1", Body: []byte("by a ghost"), Expires: time.Now().Add(time.Hour)}
	s.next("TransactWriteItems", func(req *http.Request, via http.RoundTripper) (*http.Response, error) {
		take(t, tables.Claims(), "a#b")
		return via.RoundTrip(req)
	})
	if err := tables.Journal().Put(t.Context(), r, fence); !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("Put: %v; want ErrFenced", err)
	}
	if _, err := tables.Journal().Get(t.Context(), r.Key); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("Get: %v; want ErrNotFound", err)
	}
}

// A record whose answer was lost is written once: what another owner wrote in the
// meantime stays.
func TestALostAnswerIsNotWrittenTwice(t *testing.T) {
	s, tables := scripted(t)
	fence := take(t, tables.Claims(), "a#b")
	r := journal.Record{Key: "cmd#a#b#1", Body: []byte("first"), Expires: time.Now().Add(time.Hour)}
	s.next("TransactWriteItems", func(req *http.Request, via http.RoundTripper) (*http.Response, error) {
		resp, err := lost(req, via)
		second := r
		second.Body = []byte("second")
		if err := tables.Journal().Put(t.Context(), second, take(t, tables.Claims(), "a#b")); err != nil {
			t.Error(err)
		}
		return resp, err
	})
	err := tables.Journal().Put(t.Context(), r, fence)
	got, gerr := tables.Journal().Get(t.Context(), r.Key)
	if err != nil && !errors.Is(err, journal.ErrFenced) || gerr != nil || string(got.Body) != "second" {
		t.Fatalf("Put: %v; Get: %q, %v", err, got.Body, gerr)
	}
}

// TestRenewalsAndRecords: both touch the claim's row, all the time.
func TestRenewalsAndRecords(t *testing.T) {
	_, tables := scripted(t)
	lease, err := (&claim.Claims{Table: tables.Claims(), ContainerID: "c1"}).Acquire(t.Context(), "a#b")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Abandon()
	var writers sync.WaitGroup
	for _, key := range []string{"cmd#a#b#1", "cmd#a#b#2", "bucket#x"} {
		writers.Go(func() {
			for range 20 {
				r := journal.Record{Key: key, Body: []byte(key), Expires: time.Now().Add(time.Hour)}
				if err := tables.Journal().Put(t.Context(), r, journal.Fence{ProjectKey: "a#b", Number: lease.Fence()}); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	for range 30 {
		if err := lease.Resume(t.Context()); err != nil {
			t.Errorf("renewal: %v", err)
		}
	}
	writers.Wait()
}

// outage is a transport on which everything goes wrong until some time.
type outage struct {
	until time.Time
	fault fault
	calls int
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	o.calls++
	if time.Now().Before(o.until) {
		return o.fault(r, nil)
	}
	return answer(http.StatusOK, "{}")(r, nil)
}

func (o *outage) tables() *table.Tables {
	return table.New(dynamodb.New(dynamodb.Options{
		Region: "us-west-2", BaseEndpoint: aws.String("http://nowhere.invalid"), HTTPClient: &http.Client{Transport: o},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	}), table.Config{})
}

// TestAnOutageOfAMinute fails no read and no write of the journal; a longer one
// is not waited for much longer.
func TestAnOutageOfAMinute(t *testing.T) {
	record := journal.Record{Key: "k", Body: []byte("x"), Expires: time.Now().Add(time.Hour)}
	for name, f := range map[string]fault{"cut": cut, "hang": hang, "broken": broken, "gone": gone, "throttled": throttled, "conflicts": conflicts} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // pauses are random
				synctest.Test(t, func(t *testing.T) {
					o := &outage{until: time.Now().Add(time.Minute), fault: f}
					if err := o.tables().Journal().Put(t.Context(), record, journal.Fence{ProjectKey: "a#b", Number: 1}); err != nil {
						t.Fatalf("Put: %v", err)
					}
					o.until = time.Now().Add(time.Minute)
					if _, err := o.tables().Journal().Get(t.Context(), "k"); !errors.Is(err, journal.ErrNotFound) {
						t.Fatalf("Get: %v", err)
					}
					if o.calls > 300 {
						t.Errorf("%d calls in two minutes of outage", o.calls)
					}
				})
			}
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				o := &outage{until: start.Add(time.Hour), fault: f}
				err := o.tables().Journal().Put(t.Context(), record, journal.Fence{})
				if took := time.Since(start); err == nil || took > 90*time.Second {
					t.Fatalf("%v after %v", err, took)
				}
			})
		})
	}
}

// A lease that ends during an outage ends the waiting, and says so.
func TestTheContextEndsTheWaiting(t *testing.T) {
	for name, f := range map[string]fault{"cut": cut, "hang": hang} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				o := &outage{until: start.Add(time.Hour), fault: f}
				ctx, cancel := context.WithTimeoutCause(t.Context(), 7*time.Second, claim.ErrLeaseLost)
				defer cancel()
				_, gerr := o.tables().Journal().Get(ctx, "k")
				if !errors.Is(gerr, claim.ErrLeaseLost) || time.Since(start) != 7*time.Second {
					t.Fatalf("%v after %v", gerr, time.Since(start))
				}
			})
		})
	}
}
