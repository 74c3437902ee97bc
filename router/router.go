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
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// Queues is how the router reaches the platform's queues.
type Queues interface {
	message.Publisher
	// Subscriber returns a new subscriber. It calls gate, if there is one,
	// before each receive, and receives only after it returned. Messages it
	// hands out carry a delivery (protocol.WithDelivery).
	Subscriber(gate func(context.Context) error) message.Subscriber
	// PublishAfter publishes a message that is delivered after a delay.
	PublishAfter(delay time.Duration, topic string, messages ...*message.Message) error
}

// Config configures a Router. Unclaimed, Queues, Claims and Instruction are
// required.
type Config struct {
	Unclaimed string // topic
	Queues    Queues
	Claims    *claim.Claims
	Names     protocol.Names
	// Instruction is what a command is carried out with; its Pair and Lease
	// are set for each claim.
	Instruction handlers.Instruction
	// MaxClaims is the most projects worked on at once; zero means 1.
	MaxClaims int
	// IdleTimeout is how long a project without work is kept; zero means
	// 5 min.
	IdleTimeout time.Duration
	// Look is how long a leaving worker looks for late work; zero means 5 s.
	Look   time.Duration
	Policy Policy // empty means SameThread
	// ShutdownGrace is the time from the end of Run's context to its return;
	// zero means 25 s. A job may finish until 10 s before its end.
	ShutdownGrace time.Duration
	// Retry is the pause between tries of a command; its Attempts are those
	// of Instruction.
	Retry middleware.Retry
	// Metrics takes a line per message; nil means none are written.
	Metrics io.Writer
	// Redact removes secrets from what is logged; nil means nothing is.
	Redact func(string) string
	Log    *slog.Logger // nil means none
}

// Router is the worker. Make one with New.
type Router struct {
	config Config
	router *message.Router
	claim  *handlers.Claim

	stopping chan struct{} // closed when the worker is leaving
	gate     *gate
	tenures  sync.WaitGroup

	mu  sync.Mutex
	ctx context.Context //nolint:containedctx // RunHandlers wants the context of Run, and is called from handlers
	n   int             // makes handler names unique
}

// New returns a router; Run starts it.
func New(c Config) (*Router, error) {
	c.MaxClaims = defaultTo(c.MaxClaims, 1)
	c.IdleTimeout = defaultTo(c.IdleTimeout, 5*time.Minute)
	c.Look = defaultTo(c.Look, 5*time.Second)
	c.ShutdownGrace = defaultTo(c.ShutdownGrace, 25*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = io.Discard
	}
	wm, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("make router: %w", err)
	}
	r := &Router{config: c, router: wm, stopping: make(chan struct{}), gate: newGate(c.MaxClaims)}
	r.claim = &handlers.Claim{
		Claims: c.Claims, Names: c.Names, Queues: r,
		Reserve: r.gate.reserve, Unreserve: r.gate.unreserve, Open: r.open,
	}
	r.addMiddleware()
	wm.AddConsumerHandler("claim", c.Unclaimed, c.Queues.Subscriber(r.gate.wait), r.handleUnclaimed)
	return r, nil
}

// Run works until ctx ends, then hands everything back and returns nil within
// ShutdownGrace. It can be called once.
func (r *Router) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	r.mu.Lock()
	r.ctx = run
	r.mu.Unlock()

	failed := make(chan error, 1)
	go func() { failed <- r.router.Run(run) }()
	select {
	case err := <-failed:
		return fmt.Errorf("router ended by itself: %w", err)
	case <-ctx.Done():
	}
	r.gate.close()
	r.mu.Lock() // no tenure begins from here on
	close(r.stopping)
	r.mu.Unlock()
	r.tenures.Wait()
	if err := r.router.Close(); err != nil {
		return fmt.Errorf("close router: %w", err)
	}
	return <-failed
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
	if !m.Delivery.Sent.IsZero() {
		msg.Metadata.Set(protocol.AttrSentAt, m.Delivery.SentAt())
	}
	return r.config.Queues.Publish(r.config.Names.Input(m.Pair()), msg)
}

// Resend implements handlers.Queues.
func (r *Router) Resend(_ context.Context, c protocol.ClaimRequest, delay time.Duration) error {
	body, err := c.Encode()
	if err != nil {
		return err
	}
	return r.config.Queues.PublishAfter(delay, r.config.Unclaimed, message.NewMessage(watermill.NewUUID(), body))
}

// handleUnclaimed adapts handlers.Claim.
func (r *Router) handleUnclaimed(msg *message.Message) error {
	c, err := protocol.DecodeUnclaimed(msg.Payload, protocol.DeliveryOf(msg.Context()))
	if err != nil {
		return middleware.Permanent(err)
	}
	return classify(r.claim.Handle(msg.Context(), c))
}

// classify says in the middleware's words what a handler's error means.
func classify(err error) error {
	var f *handlers.StepError
	switch {
	case err == nil:
		return nil
	case handlers.HandedBack(err):
		return middleware.HandBack(err)
	case errors.As(err, &f) && f.Permanent:
		return middleware.Permanent(err)
	case errors.As(err, &f) && f.RetryAfter > 0:
		return middleware.RetryAfter(err, f.RetryAfter)
	}
	return err
}

// gate counts the claims.
type gate struct {
	mu      sync.Mutex
	free    int
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

func newGate(places int) *gate { return &gate{free: places, changed: make(chan struct{})} }

// wait returns when there is room for a claim.
func (g *gate) wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		open, changed := g.free > 0 && !g.closed, g.changed
		g.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) reserve() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free == 0 || g.closed {
		return false
	}
	g.free--
	return true
}

func (g *gate) unreserve() { g.set(func() { g.free++ }) }
func (g *gate) close()     { g.set(func() { g.closed = true }) }

func (g *gate) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}
