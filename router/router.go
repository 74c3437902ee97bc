// Package router is the Watermill part of the worker: one message.Router that
// stays subscribed to the unclaimed topic and, while it runs, gets and loses a
// subscription for each claimed project.
//
// A claimed subscription is a Lane around the queue's own subscriber. It is
// opened before its handler is added to the Router, whose Subscribe then cannot
// fail; it is ended by closing the lane, whose channel closes after its last
// ack, so that the Router drops the handler with nothing in flight. Handlers get
// a publisher whose Close does nothing, and middleware is the Router's only.
package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// Gate is asked before each receive of a subscriber, and may wait. It says for how
// long what is received shall be invisible to others (zero means what the
// subscriber does by itself), and end, which may be nil: it is called once, when
// the receive is over and what it brought was taken or given back, with the number
// of messages taken. An error ends the subscription.
type Gate = func(context.Context) (visibility time.Duration, end func(taken int), err error)

// Queues is how the router reaches the platform's queues.
type Queues interface {
	message.Publisher
	// Subscriber returns a new subscriber. gate may be nil. unsure, which may
	// be nil, is told when a receive or a hand-back had no answer, so that a
	// message may be invisible for a while. Messages it hands out carry a
	// delivery (protocol.WithDelivery).
	Subscriber(gate Gate, unsure func()) message.Subscriber
	// PublishAfter publishes a message that is delivered after a delay.
	PublishAfter(delay time.Duration, topic string, messages ...*message.Message) error
	// Exists reports whether there is such a topic.
	Exists(ctx context.Context, topic string) (bool, error)
}

// Config configures a Router. Unclaimed, Queues, Claims and Instruction are
// required.
type Config struct {
	Unclaimed string // topic
	Queues    Queues
	Claims    *claim.Claims
	Names     protocol.Names
	// Instruction is what a command is carried out with; its Pair and Lease
	// are set for each claim. Its Buckets are Claims unless set.
	Instruction handlers.Instruction
	// MaxClaims is the most projects worked on at once; zero means 1.
	MaxClaims int
	// IdleTimeout is how long a project without work is kept; zero means
	// 5 min.
	IdleTimeout time.Duration
	// Poll is how long one receive of Queues takes at most; zero means 5 s. A
	// leaving worker looks for late work that long.
	Poll time.Duration
	// Visibility is how long a received message is invisible to others when
	// its receiver is gone; zero means 45 s.
	Visibility time.Duration
	// SweepInterval is the time between looks for dead owners; zero means
	// 10 s.
	SweepInterval time.Duration
	Policy        Policy // empty means SameThread
	// ShutdownGrace is the time from the end of Run's context to its return;
	// zero means 25 s. A job may finish until 10 s before its end.
	ShutdownGrace time.Duration
	// Drop and HandBack are those of the lanes' configuration.
	Drop, HandBack func(*message.Message)
	// Retry is the pause between tries of a command; its Attempts are those
	// of Instruction.
	Retry middleware.Retry
	// RetryPause is the shortest pause before a command is tried again that
	// failed for want of a service, so that its tries outlast an outage; zero
	// means 30 s.
	RetryPause time.Duration
	// Busy is told when a job begins and when none runs any more; it must not
	// block. Nil means nobody is.
	Busy func(bool)
	// CreateProgress publishes progress also where nobody made a queue for it;
	// publishing is to create it then.
	CreateProgress bool
	// Metrics takes what is measured, a line of JSON in each Write, one after the
	// other; nil means nothing is written.
	Metrics io.Writer
	// Redact removes secrets from what is logged; nil means nothing is.
	Redact func(string) string
	Log    *slog.Logger // nil means none
}

// Router is the worker. Make one with New.
type Router struct {
	config    Config
	router    *message.Router
	claim     *handlers.Claim
	unclaimed message.Subscriber
	gate      *gate
	metrics   *metric.Log

	jobsMu sync.Mutex
	jobs   int // running

	stopping chan struct{}   // closed when the worker is leaving
	stopped  time.Time       // when that was
	last     context.Context //nolint:containedctx // ends when leaving must be over; it is that of everything at the end
	tenures  sync.WaitGroup

	mu  sync.Mutex
	ctx context.Context //nolint:containedctx // RunHandlers wants the context of Run, and is called from handlers
	n   int             // makes handler names unique
}

// New returns a router; Run starts it.
func New(c Config) (*Router, error) {
	c.MaxClaims = defaultTo(c.MaxClaims, 1)
	c.IdleTimeout = defaultTo(c.IdleTimeout, 5*time.Minute)
	c.Instruction.Buckets = defaultTo(c.Instruction.Buckets, c.Claims)
	c.Poll = defaultTo(c.Poll, 5*time.Second)
	c.Visibility = defaultTo(c.Visibility, 45*time.Second)
	c.SweepInterval = defaultTo(c.SweepInterval, 10*time.Second)
	c.RetryPause = defaultTo(c.RetryPause, 30*time.Second)
	c.ShutdownGrace = defaultTo(c.ShutdownGrace, 25*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = io.Discard
	}
	c.Metrics = &lines{to: c.Metrics}
	if c.Busy == nil {
		c.Busy = func(bool) {}
	}
	wm, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("make router: %w", err)
	}
	r := &Router{
		config: c, router: wm, stopping: make(chan struct{}), gate: newGate(c.MaxClaims),
		metrics: metric.New(middleware.LogHandler(slog.NewJSONHandler(c.Metrics, nil)), nil),
	}
	r.claim = &handlers.Claim{
		Claims: c.Claims, Names: c.Names, Queues: r,
		Reserve: r.gate.reserve, Unreserve: r.gate.unreserve, Open: r.open, Claimed: r.claimed,
	}
	r.addMiddleware()
	r.unclaimed = c.Queues.Subscriber(r.gate.wait, nil)
	wm.AddConsumerHandler("claim", c.Unclaimed, r.unclaimed, r.handleUnclaimed)
	return r, nil
}

// Run works until ctx ends, then hands everything back and returns nil within
// ShutdownGrace. It can be called once.
func (r *Router) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	last, end := context.WithCancelCause(run)
	defer end(nil)
	r.mu.Lock()
	r.ctx, r.last = run, last
	r.mu.Unlock()

	failed := make(chan error, 1)
	go func() { failed <- r.router.Run(run) }()
	sweeping := make(chan struct{})
	go func() {
		defer close(sweeping)
		r.sweep(run)
	}()
	select {
	case err := <-failed:
		cancel()
		<-sweeping
		return fmt.Errorf("the router ended by itself: %w", errors.Join(err, errUnsubscribed))
	case <-ctx.Done():
	}
	over := time.AfterFunc(max(r.config.ShutdownGrace-2*time.Second, 0), func() { end(errNoTime) })
	defer over.Stop()
	r.gate.close()
	r.mu.Lock() // no tenure begins from here on
	r.stopped = time.Now()
	close(r.stopping)
	r.mu.Unlock()
	<-sweeping
	r.tenures.Go(func() { r.unclaimed.Close() }) //nolint:errcheck // what it could not give back comes back by itself
	if !r.left(last) {
		r.config.Log.WarnContext(ctx, "left before everything was handed back; what is missing comes back by itself")
		return nil
	}
	if err := r.router.Close(); err != nil {
		r.config.Log.WarnContext(ctx, "router not closed in time", slog.Any("error", err))
	}
	return <-failed
}

var errUnsubscribed = errors.New("nothing is received from the unclaimed queue any more")

// errNoTime ends what is still under way when the worker must be gone.
var errNoTime = fmt.Errorf("no time is left: %w", handlers.ErrShutdown)

// left waits until all tenures have ended; false if that takes too long.
func (r *Router) left(last context.Context) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.tenures.Wait()
	}()
	select {
	case <-done:
		return true
	case <-last.Done():
	}
	return false
}

// Running is closed when the router is subscribed.
func (r *Router) Running() <-chan struct{} { return r.router.Running() }

// Forward implements handlers.Queues. The command keeps its sent time, and so
// its place among those of its input queue.
func (r *Router) Forward(ctx context.Context, m protocol.InputMessage) error {
	body, err := m.Encode()
	if err != nil {
		return err
	}
	msg := message.NewMessage(watermill.NewUUID(), body)
	msg.SetContext(ctx)
	msg.Metadata.Set(protocol.AttrCommandID, m.CommandID)
	msg.Metadata.Set(middleware.CorrelationIDKey, middleware.CorrelationIDFrom(ctx))
	if !m.Delivery.Sent.IsZero() {
		msg.Metadata.Set(protocol.AttrSentAt, m.Delivery.SentAt())
	}
	return r.config.Queues.Publish(r.config.Names.Input(m.Pair()), msg)
}

// Resend implements handlers.Queues.
func (r *Router) Resend(ctx context.Context, c protocol.ClaimRequest, delay time.Duration) error {
	body, err := c.Encode()
	if err != nil {
		return err
	}
	msg := message.NewMessage(watermill.NewUUID(), body)
	msg.SetContext(ctx)
	return r.config.Queues.PublishAfter(delay, r.config.Unclaimed, msg)
}

// claimLife is how long a claim request is tried that cannot be met for want of a
// service. Sooner given up, it would leave its project to nobody.
const claimLife = time.Hour

// handleUnclaimed adapts handlers.Claim.
func (r *Router) handleUnclaimed(msg *message.Message) error {
	defer r.gate.handled()
	d := protocol.DeliveryOf(msg.Context())
	c, err := protocol.DecodeUnclaimed(msg.Payload, d)
	if err != nil {
		return middleware.Permanent(err)
	}
	err = classify(r.claim.Handle(msg.Context(), c), 0)
	if err != nil && !middleware.IsPermanent(err) && time.Since(d.Sent) < claimLife {
		return middleware.HandBack(err)
	}
	return err
}

// classify says in the middleware's words what a handler's error means. A failure
// for want of a service is tried again after the pause.
func classify(err error, pause time.Duration) error {
	var f *handlers.StepError
	switch {
	case err == nil:
		return nil
	case handlers.HandedBack(err):
		return middleware.HandBack(err)
	case !errors.As(err, &f):
		return err
	case f.Permanent:
		return middleware.Permanent(err)
	case f.RetryAfter > 0:
		return middleware.RetryAfter(err, f.RetryAfter)
	case slices.Contains([]protocol.ErrorCode{protocol.RepoUnreachable, protocol.DeployFailed, protocol.PushFailed, protocol.Internal}, f.Code):
		return middleware.RetryAfter(err, pause)
	}
	return err
}

// lines passes one Write at a time on, as several handlers write.
type lines struct {
	mu sync.Mutex
	to io.Writer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
