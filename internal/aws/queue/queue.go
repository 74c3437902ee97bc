package queue

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const (
	maxReceives   = 3              // of the queues' RedrivePolicy
	maxInvisible  = 12 * time.Hour // in all, from the receive; SQS allows no more
	maxDelay      = 15 * time.Minute
	callTimeout   = 5 * time.Second // of one attempt that SQS answers at once
	hurriedSettle = 10 * time.Second
	maxBackoff    = time.Minute // of a nack
)

// ErrClosed comes from publishing to queues that were closed.
var ErrClosed = errors.New("the queues are closed")

// Config configures Queues. Only Client is required.
type Config struct {
	// Client is used with its endpoint, credentials and HTTP client; its
	// retries are not.
	Client *sqs.Client
	// Visibility is how long a message stays invisible without a sign of
	// life, in whole seconds; zero means 45 s. The queue's own setting does
	// not matter.
	Visibility time.Duration
	// Wait is how long a receive waits for a message, in whole seconds up to
	// 20; zero means 5 s. Close takes as long.
	Wait time.Duration
	// Create creates queues that are missing: visibility 300 s, retention
	// 4 days, long polling 20 s. Those for which DLQ returns a name
	// dead-letter to it after three receives; nil means none.
	Create bool
	DLQ    func(topic string) string
	// Backoff is how long a nacked message stays away, given how often it
	// was received; nil means 1 s, doubled with each receive, up to a minute.
	Backoff func(receives int) time.Duration
	// PublishTimeout bounds the publishing of one message, all attempts
	// together; zero means 2 min.
	PublishTimeout time.Duration
	// CloseTimeout is how long closing a subscriber waits for messages that
	// were handed out and are not settled; zero means 2 min.
	CloseTimeout time.Duration
	// Log gets ids and errors, never a payload; nil means nowhere.
	Log *slog.Logger
	// LogContext returns the context of a line about a message that was received,
	// for its ids; it is called only when there is such a line. nil means the
	// message's own, which says nothing.
	LogContext func(*message.Message) context.Context
}

// Queues publishes to SQS and makes subscribers. A topic is the name of a
// standard queue or its URL. All methods may be called from several goroutines.
type Queues struct {
	config Config
	client *sqs.Client
	idle   func() // closes idle connections

	mu      sync.Mutex
	urls    map[string]string // by topic
	closed  bool
	sending sync.WaitGroup
}

// New returns queues. It makes no call.
func New(c Config) *Queues {
	c.Visibility = wholeSeconds(c.Visibility, 45*time.Second)
	c.Wait = min(wholeSeconds(c.Wait, 5*time.Second), 20*time.Second)
	if c.DLQ == nil {
		c.DLQ = func(string) string { return "" }
	}
	if c.Backoff == nil {
		c.Backoff = defaultBackoff
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = 2 * time.Minute
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = 2 * time.Minute
	}
	if c.LogContext == nil {
		c.LogContext = (*message.Message).Context
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queues{config: c, idle: func() {}, urls: map[string]string{}}
	options := c.Client.Options()
	options.Retryer, options.RetryMaxAttempts = aws.NopRetryer{}, 0
	options.HTTPClient = q.own(options.HTTPClient)
	q.client = sqs.New(options)
	return q
}

// own returns an HTTP client whose idle connections can be closed, which those
// of the SDK's default client cannot be. SQS does not redirect.
func (q *Queues) own(c sqs.HTTPClient) sqs.HTTPClient {
	if buildable, ok := c.(*awshttp.BuildableClient); ok {
		c = &http.Client{
			Transport: buildable.GetTransport(), Timeout: buildable.GetTimeout(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if closer, ok := c.(interface{ CloseIdleConnections() }); ok {
		q.idle = closer.CloseIdleConnections
	}
	return c
}

// Close waits for what is being published, refuses more, and closes idle
// connections. Subscribers are closed on their own, before it or after; the last
// one to be closed leaves no connection.
func (q *Queues) Close() error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.sending.Wait()
	q.idle()
	return nil
}

// idleIfClosed is for what is closed after Close.
func (q *Queues) idleIfClosed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.idle()
	}
}

// Gate is asked before each receive and may block; it ends when its context does,
// which is the end of the subscription. A visibility of zero means the configured
// one. end, which may be nil, is called once, when the receive has returned and
// what it brought was taken from the subscription's channel or given back, with the
// number of messages taken. An error ends the subscription's receiving,
// and no message's context.
type Gate = func(ctx context.Context) (visibility time.Duration, end func(taken int), err error)

// Subscriber returns a subscriber with connections in common with q. Both
// arguments may be nil. unsure is called when a receive or the settling of a
// message ended without success, so that a message may be invisible for a while;
// it must return soon.
func (q *Queues) Subscriber(gate Gate, unsure func()) message.Subscriber {
	if gate == nil {
		gate = func(ctx context.Context) (time.Duration, func(int), error) { return 0, nil, ctx.Err() }
	}
	if unsure == nil {
		unsure = func() {}
	}
	return &subscriber{
		queues: q, gate: gate, unsure: unsure,
		closing: make(chan struct{}), abandon: make(chan struct{}), closed: make(chan struct{}),
	}
}

func defaultBackoff(receives int) time.Duration {
	return min(time.Second<<min(max(receives-1, 0), 10), maxBackoff)
}

// wholeSeconds rounds up, as SQS counts in seconds.
func wholeSeconds(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		d = otherwise
	}
	return time.Duration(seconds(d)) * time.Second
}

// seconds rounds up to what fits into a parameter.
func seconds(d time.Duration) int32 {
	return int32(min(max(math.Ceil(d.Seconds()), 0), maxInvisible.Seconds()))
}
