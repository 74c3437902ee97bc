package queue_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	wmsqs "github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
)

// calls counts finished calls by operation, as a middleware of a client.
type calls struct {
	mu   sync.Mutex
	n    map[string]int
	want int           // deletes until all is closed
	all  chan struct{} // closed when want messages were deleted
}

func newCalls(want int) *calls {
	return &calls{n: map[string]int{}, want: want, all: make(chan struct{})}
}

func (c *calls) options(o *sqs.Options) { o.APIOptions = append(o.APIOptions, c.add) }

func (c *calls) add(stack *middleware.Stack) error {
	op := stack.ID()
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("Calls", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleFinalize(ctx, in)
		c.done(op)
		return out, metadata, err
	}), middleware.After)
}

func (c *calls) done(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[op]++
	if op == "DeleteMessage" && c.n[op] == c.want {
		close(c.all)
	}
}

func (c *calls) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, some := range c.n {
		n += some
	}
	return n
}

// fill puts n messages into the bed's queue.
func (b *bed) fill(tb testing.TB, n int) {
	tb.Helper()
	for sent := 0; sent < n; {
		var batch []types.SendMessageBatchRequestEntry
		for ; sent < n && len(batch) < 10; sent++ {
			batch = append(batch, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(sent)), MessageBody: aws.String("a message of some length")})
		}
		if _, err := b.client.SendMessageBatch(tb.Context(), &sqs.SendMessageBatchInput{QueueUrl: &b.url, Entries: batch}); err != nil {
			tb.Fatal(err)
		}
	}
}

// consumer takes all messages from a queue, so many at a time, and returns when
// they are deleted; stop ends it.
type consumer func(b *testing.B, bed *bed, client *sqs.Client, n, concurrency int) (stop func())

// raw is what anybody would write first.
func raw(b *testing.B, bed *bed, client *sqs.Client, n, concurrency int) (stop func()) {
	b.Helper()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range concurrency {
		wg.Go(func() {
			for left.Load() > 0 {
				out, err := client.ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{
					QueueUrl: &bed.url, WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
					MessageSystemAttributeNames: []types.MessageSystemAttributeName{"SentTimestamp", "ApproximateReceiveCount"},
				})
				if err != nil {
					b.Error(err)
				}
				if err != nil || len(out.Messages) == 0 {
					continue
				}
				left.Add(-1)
				if _, err := client.DeleteMessage(b.Context(), &sqs.DeleteMessageInput{QueueUrl: &bed.url, ReceiptHandle: out.Messages[0].ReceiptHandle}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	return wg.Wait
}

func ours(b *testing.B, bed *bed, client *sqs.Client, _, concurrency int) (stop func()) {
	b.Helper()
	q := queue.New(queue.Config{Client: client, Wait: time.Second})
	s := q.Subscriber(nil, nil)
	wait := consume(b, s, bed.url, concurrency)
	return func() {
		shut(b, s)
		wait()
		shut(b, q)
	}
}

// plain is watermill-aws as it comes.
func plain(b *testing.B, bed *bed, client *sqs.Client, _, concurrency int) (stop func()) {
	b.Helper()
	s, err := wmsqs.NewSubscriber(wmsqs.SubscriberConfig{
		AWSConfig:        aws.Config{Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")},
		OptFns:           []func(*sqs.Options){func(o *sqs.Options) { *o = client.Options() }},
		QueueUrlResolver: wmsqs.TransparentUrlResolver{},
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	wait := consume(b, s, bed.url, concurrency)
	return func() {
		shut(b, s)
		wait()
	}
}

// consume acks what comes from so many subscriptions.
func consume(b *testing.B, s message.Subscriber, url string, concurrency int) (wait func()) {
	b.Helper()
	var wg sync.WaitGroup
	for range concurrency {
		out, err := s.Subscribe(b.Context(), url)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			for m := range out {
				m.Ack()
			}
		})
	}
	return wg.Wait
}

// BenchmarkReceive measures a queue with messages being emptied, by a raw loop of
// receive and delete with batches of one, by us, and by plain watermill-aws; all
// three in turn in each round, so that a busy machine slows all of them. Rates and
// ratios are medians of the rounds, so that it may be busy for a moment.
func BenchmarkReceive(b *testing.B) {
	const n = 1000 // a round takes a third of a second
	consumers := []struct {
		name string
		run  consumer
	}{{"raw", raw}, {"ours", ours}, {"plain", plain}}
	for _, concurrency := range []int{1, 4} {
		b.Run(fmt.Sprintf("concurrency=%d", concurrency), func(b *testing.B) {
			beds := map[string]*bed{} // one each: a poll that plain breaks off may swallow a message
			for _, c := range consumers {
				beds[c.name] = newBed(b, nil)
			}
			took, used := map[string][]float64{}, map[string]time.Duration{}
			total := 0
			for round := range b.N {
				for i := range consumers { // each goes first once in three rounds
					c := consumers[(round+i)%len(consumers)]
					beds[c.name].fill(b, n)
					h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
					count := newCalls(n)
					client := sqs.New(clientOf(endpoint(b), h).Options(), count.options)
					start, before := time.Now(), processorTime(b)
					stop := c.run(b, beds[c.name], client, n, concurrency)
					<-count.all
					took[c.name] = append(took[c.name], time.Since(start).Seconds())
					used[c.name] += processorTime(b) - before
					if c.name == "ours" {
						total += count.total()
					}
					stop()
					h.CloseIdleConnections()
				}
			}
			for name, all := range took {
				b.ReportMetric(n/middle(all), name+"_msg/s")
				b.ReportMetric(float64(used[name].Microseconds())/float64(n*b.N), name+"_cpu-µs/msg")
			}
			b.ReportMetric(middle(quotients(took["raw"], took["ours"])), "ours/raw")
			b.ReportMetric(middle(quotients(took["plain"], took["ours"])), "ours/plain")
			b.ReportMetric(float64(total)/float64(n*b.N), "calls/msg")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processorTime is what this process has used: other processes do not add to it.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quotients divides round by round.
func quotients(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}

func middle(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// TestCalls counts what SQS charges for.
func TestCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransport()
		q := queue.New(queue.Config{Client: f.client()})
		s := q.Subscriber(nil, nil)
		out, err := s.Subscribe(t.Context(), "https://sqs.example/1/q")
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour - time.Second)
		if n := len(f.all()); n != 720 {
			t.Errorf("%d calls in an idle hour, want a poll each 5 s", n)
		}
		before := len(f.all())
		for i := range 100 {
			f.put(strconv.Itoa(i), 1)
			(<-out).Ack()
			synctest.Wait()
		}
		if n := len(f.all()) - before; n != 200 {
			t.Errorf("%d calls for 100 messages, want a receive and a delete each: %s", n, strings.Join(f.ops(), " "))
		}
		shut(t, s)
	})
}
