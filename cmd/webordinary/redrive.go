package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// redrive says which letters go back.
type redrive struct {
	all bool
	id  string
	to  string // where one goes whose origin nobody knows
}

// redriven is what redrive prints of a letter for programs.
type redriven struct {
	ID             string `json:"id"`
	CommandID      string `json:"commandId,omitempty"`
	From           string `json:"from"`
	To             string `json:"to,omitempty"`
	ClaimRequested bool   `json:"claimRequested"`
	Error          string `json:"error,omitempty"`
}

// redrive sends letters back in the order in which they were sent. It stops between two
// when ctx ends, never within one.
func (d *deadLetters) redrive(ctx context.Context, r redrive) (err error) {
	some := slices.Clone(d.found)
	if !r.all {
		one, err := d.one(r.id)
		if err != nil {
			return err
		}
		some = []letter{one}
	}
	slices.SortStableFunc(some, func(a, b letter) int { return a.Sent.Compare(b.Sent) })
	asker, failed := newAsker(d.operator), 0
	defer func() { err = errors.Join(err, asker.settle(ctx)) }()
	for _, l := range some {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted; the dead letters not named above are where they were: %w", context.Cause(ctx))
		}
		done := d.sendBack(ctx, l, r.to, asker)
		if done.Error != "" {
			failed++
		}
		if err := d.tellRedriven(done); err != nil {
			return err
		}
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %s could not be sent back; they are where they were", failed, counted(len(some), "dead letter"))
	case len(some) == 0:
		d.note("No dead letters; nothing was sent.")
	case d.more:
		d.note("There are more dead letters: say it again.")
	}
	return nil
}

// poisonAttributes are of the former failure, and would be taken for those of the next.
var poisonAttributes = []string{ //nolint:gochecknoglobals // a list
	middleware.PoisonReason, middleware.PoisonTopic, middleware.PoisonHandler, middleware.PoisonAttempts, middleware.PoisonTime,
}

// sendBack sends one letter, and then deletes it: interrupted in between, it is twice
// there and not lost. Another command than ours does not find it while we have it.
func (d *deadLetters) sendBack(ctx context.Context, l letter, to string, asker *asker) redriven {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*callPatience)
	defer cancel()
	done := redriven{ID: l.ID, CommandID: l.CommandID, From: l.Queue, To: cmp.Or(l.From, to)}
	fail := func(err error) redriven {
		done.Error = err.Error()
		return done
	}
	if done.To == "" {
		return fail(errors.New("nobody knows where it came from; say --to"))
	}
	if done.To == l.Queue || done.To == l.raw.Queue {
		return fail(errors.New("it would be sent to the queue that it is in; say --to"))
	}
	if _, err := d.queues.Describe(ctx, done.To); err != nil {
		return fail(err)
	}
	if err := d.queues.Hold(ctx, l.raw, lookFor); err != nil { // there may have been many before it
		return fail(err)
	}
	if err := d.queues.Forward(ctx, done.To, l.raw, poisonAttributes...); err != nil {
		return fail(err)
	}
	if err := d.queues.Remove(ctx, l.raw); err != nil {
		d.note("%s was sent, but is still in %s too; a worker knows the second one again (%v)", l.ID, l.Queue, err)
	}
	d.found = slices.DeleteFunc(d.found, func(f letter) bool { return f.ID == l.ID })
	if pair, ok := d.readerOf(done.To, l); ok {
		asked, err := asker.ask(ctx, pair)
		if err != nil {
			d.note("%s was sent back: %v", l.ID, err)
		}
		done.ClaimRequested = asked
	}
	return done
}

// readerOf is the pair whose worker reads an input queue.
func (d *deadLetters) readerOf(input string, l letter) (protocol.Pair, bool) {
	for _, p := range []*protocol.Pair{&l.pair, d.pair} {
		if p != nil && *p != (protocol.Pair{}) && d.names.Input(*p) == input {
			return *p, true
		}
	}
	return protocol.Pair{}, false
}

func (d *deadLetters) tellRedriven(r redriven) error {
	if d.json {
		return writeJSON(d.sys.stdout, r)
	}
	name := cmp.Or(inert(r.CommandID), r.ID)
	if r.Error != "" {
		return d.say("%s  %s stays in %s: %s", d.style.paint(red, "kept"), name, r.From, inert(r.Error))
	}
	then := ""
	if r.ClaimRequested {
		then = "; a worker was asked to take it"
	}
	return d.say("%s  %s to %s%s", d.style.paint(green, "sent"), name, r.To, then)
}
