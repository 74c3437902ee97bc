package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// Options are those of a protection. The zero value works.
type Options struct {
	// Expires is how long ECS protects the task if we are not heard of again;
	// it is renewed after half of that. Whole minutes, up to 48 h; zero means
	// 10 min.
	Expires time.Duration
	// Linger is how long the task stays protected after a job, so that a row
	// of jobs does not switch it off and on; zero means 30 s.
	Linger time.Duration
	// Pause is the time before a failed request is made again. It doubles up
	// to a quarter of Expires; zero means 5 s.
	Pause time.Duration
	// Transport reaches the agent; nil means directly.
	Transport http.RoundTripper
	Log       *slog.Logger // nil means none
}

// Protection keeps ECS from ending the task in a scale-in or a deployment while a
// job runs. It is a help: if ECS does not heed it, a job that is cut off goes on
// elsewhere.
type Protection struct {
	agent   agent
	url     string // empty outside of ECS
	options Options

	busy    atomic.Bool
	changed chan struct{} // holds one word

	// owned by Run
	on      bool      // it may be on
	renew   time.Time // when to switch it on again
	quiet   time.Time // when to switch it off; zero while busy
	retry   time.Time // not before; zero if the last request went well
	backoff time.Duration
}

// NewProtection returns the protection of the task that the environment names. It
// fails if what is named is no address of this machine.
func NewProtection(environ []string, o Options) (*Protection, error) {
	url, err := address(environ, agentVariable)
	if err != nil {
		return nil, err
	}
	if url != "" {
		url += "/task-protection/v1/state"
	}
	for _, d := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{{&o.Expires, 10 * time.Minute}, {&o.Linger, 30 * time.Second}, {&o.Pause, 5 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	if o.Expires < time.Minute || o.Expires > 48*time.Hour || o.Expires%time.Minute != 0 {
		return nil, fmt.Errorf("a task is protected for whole minutes, up to 48 h; not for %s", o.Expires)
	}
	if o.Transport == nil {
		o.Transport = direct()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Protection{agent: agent{transport: o.Transport}, url: url, options: o, changed: make(chan struct{}, 1)}, nil
}

// Busy says whether a job runs. It never waits, and may be called by several
// goroutines; the last word counts.
func (p *Protection) Busy(busy bool) {
	p.busy.Store(busy)
	select {
	case p.changed <- struct{}{}:
	default: // it will look anyway
	}
}

// Run does what Busy says until ctx ends; then protection is switched off, which
// takes 5 s at most. It is called once. Failures are logged and tried again.
func (p *Protection) Run(ctx context.Context) {
	if p.url == "" {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		wait := p.step(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	if p.on {
		p.put(context.WithoutCancel(ctx), false)
	}
}

// step does what is due, and returns how long nothing will be.
func (p *Protection) step(ctx context.Context) time.Duration {
	busy, now := p.busy.Load(), time.Now()
	switch {
	case busy:
		p.quiet = time.Time{}
	case p.quiet.IsZero():
		p.quiet = now.Add(p.options.Linger)
	}
	due, wanted := p.due(busy)
	if !wanted {
		return p.options.Expires
	}
	if wait := due.Sub(now); wait > 0 {
		return wait
	}
	if !p.put(ctx, busy) {
		p.backoff = min(max(2*p.backoff, p.options.Pause), p.options.Expires/4)
		p.retry = time.Now().Add(p.backoff)
	}
	return 0 // look again: it may have changed meanwhile
}

// due is when the next request is, if one is.
func (p *Protection) due(busy bool) (due time.Time, wanted bool) {
	switch {
	case busy && p.on:
		due = p.renew
	case !busy && p.on:
		due = p.quiet
	case !busy:
		return time.Time{}, false
	}
	if p.retry.After(due) {
		due = p.retry
	}
	return due, true
}

// put switches the protection on or off. One that failed may have been heard.
func (p *Protection) put(ctx context.Context, on bool) bool {
	began := time.Now()
	err := p.request(ctx, on)
	if err != nil {
		if on {
			p.on, p.renew = true, time.Time{}
		}
		p.options.Log.WarnContext(ctx, "task protection not changed", slog.Bool("on", on), slog.Any("error", err))
		return false
	}
	p.on, p.renew, p.retry, p.backoff = on, began.Add(p.options.Expires/2), time.Time{}, 0
	p.options.Log.DebugContext(ctx, "task protection changed", slog.Bool("on", on))
	return true
}

func (p *Protection) request(ctx context.Context, on bool) error {
	want := struct {
		ProtectionEnabled bool
		ExpiresInMinutes  int `json:",omitempty"`
	}{ProtectionEnabled: on}
	if on {
		want.ExpiresInMinutes = int(p.options.Expires / time.Minute)
	}
	body, err := json.Marshal(want)
	if err != nil {
		return err
	}
	var answer struct {
		Protection *struct{ ProtectionEnabled bool } `json:"protection"`
	}
	if err := p.agent.call(ctx, http.MethodPut, p.url, body, &answer); err != nil {
		return err
	}
	if answer.Protection == nil || answer.Protection.ProtectionEnabled != on {
		return errors.New("the agent's answer does not say so")
	}
	return nil
}
