package router

import (
	"context"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// gate counts the claims. The unclaimed queue is received from while there is
// room for another, and one request at a time: a second one would wait for what
// becomes of the first, and could be another worker's meanwhile.
type gate struct {
	mu       sync.Mutex
	free     int
	handling bool // a request is being received or handled
	closed   bool
	changed  chan struct{} // closed and replaced at each change
}

func newGate(places int) *gate { return &gate{free: places, changed: make(chan struct{})} }

// wait is the unclaimed queue's Gate.
func (g *gate) wait(ctx context.Context) (time.Duration, func(int), error) {
	for {
		g.mu.Lock()
		open, changed := g.free > 0 && !g.closed && !g.handling, g.changed
		g.handling = g.handling || open
		g.mu.Unlock()
		if open {
			return 0, g.received, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		}
	}
}

// received ends a receive; a request that it brought is handled before the next.
func (g *gate) received(taken int) {
	if taken == 0 {
		g.handled()
	}
}

func (g *gate) handled() { g.set(func() { g.handling = false }) }

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

// polls lets the receives of a claimed project's queue through, so that a leaving
// worker knows of each whether it is over and what it brought.
type polls struct {
	lease *claim.Lease
	need  time.Duration // of trust, for one receive

	mu      sync.Mutex
	allowed int  // how many may begin; endless if negative
	short   bool // what is received is soon visible again: it may be handed back
	running bool
	changed chan struct{} // closed and replaced at each change
}

// lookVisibility is for what a leaving worker finds, until the project is its own
// again.
const lookVisibility = 15 * time.Second

func newPolls(l *claim.Lease, need time.Duration) *polls {
	return &polls{lease: l, need: need, allowed: -1, changed: make(chan struct{})}
}

// gate is the queue's Gate. A receive begins only if the lease outlasts it.
func (p *polls) gate(ctx context.Context) (time.Duration, func(int), error) {
	for {
		if err := p.lease.Check(); err != nil {
			return 0, nil, err
		}
		trusted := p.lease.Left() > p.need
		p.mu.Lock()
		changed := p.changed
		if trusted && p.allowed != 0 {
			defer p.mu.Unlock()
			p.running = true
			if p.allowed > 0 {
				p.allowed--
			}
			if p.short {
				return lookVisibility, p.end, nil
			}
			return 0, p.end, nil
		}
		p.mu.Unlock()
		if err := p.pause(ctx, changed, trusted); err != nil {
			return 0, nil, err
		}
	}
}

// pause waits for a change, or for a renewal.
func (p *polls) pause(ctx context.Context, changed <-chan struct{}, trusted bool) error {
	var renewed <-chan time.Time
	if !trusted {
		again := time.NewTimer(100 * time.Millisecond)
		defer again.Stop()
		renewed = again.C
	}
	select {
	case <-changed:
	case <-renewed:
	case <-p.lease.Lost():
		return claim.ErrLeaseLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (p *polls) end(int) { p.set(func() { p.running = false }) }

// hold lets none begin, and returns when none is under way. When the subscription
// ends, or ctx does, it returns too.
func (p *polls) hold(ctx context.Context) {
	p.set(func() { p.allowed = 0 })
	p.settled(ctx)
}

// look lets one begin, and returns when it is over.
func (p *polls) look(ctx context.Context) {
	p.set(func() { p.allowed, p.short = 1, true })
	p.settled(ctx)
	p.set(func() { p.allowed, p.short = 0, false })
}

// resume lets them begin again.
func (p *polls) resume() { p.set(func() { p.allowed = -1 }) }

func (p *polls) settled(ctx context.Context) {
	for {
		p.mu.Lock()
		over, changed := !p.running && p.allowed <= 0, p.changed
		p.mu.Unlock()
		if over {
			return
		}
		select {
		case <-changed:
		case <-p.lease.Lost():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (p *polls) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}
