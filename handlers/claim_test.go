package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// desk is what a Claim works with. It notes what it is asked for.
type desk struct {
	did              []string
	room             bool
	opening, sending error
}

// Forward implements handlers.Queues.
func (d *desk) Forward(_ context.Context, m protocol.InputMessage) error {
	d.did = append(d.did, "forward "+m.CommandID)
	return d.sending
}

// Resend implements handlers.Queues.
func (d *desk) Resend(_ context.Context, c protocol.ClaimRequest, delay time.Duration) error {
	d.did = append(d.did, fmt.Sprintf("resend with work %v after %v", c.Work != nil, delay))
	return nil
}

func (d *desk) reserve() bool {
	d.did = append(d.did, "reserve")
	return d.room
}

func (d *desk) unreserve() { d.did = append(d.did, "unreserve") }

func (d *desk) open(_ context.Context, p protocol.Pair, l *claim.Lease) error {
	d.did = append(d.did, "open "+p.Key()+" with "+l.Key())
	return d.opening
}

func TestClaim(t *testing.T) {
	boom := errors.New("boom")
	const opened = "open amelia#scott with amelia#scott"
	tests := []struct {
		name   string
		held   claim.Status // by another worker; empty if it never was
		desk   desk
		did    []string
		err    error
		holder string
		bare   []string // done for a request without work, where that differs
	}{
		{name: "free, with room", desk: desk{room: true}, did: []string{"reserve", opened, "forward c-1"}, bare: []string{"reserve", opened}, holder: "here"},
		{name: "released, with room", held: claim.Released, desk: desk{room: true}, did: []string{"reserve", opened, "forward c-1"}, bare: []string{"reserve", opened}, holder: "here"},
		{
			name: "free, without room",
			did:  []string{"reserve", "forward c-1", "resend with work false after 5s"}, bare: []string{"reserve", "resend with work false after 5s"},
		},
		{name: "somebody works", held: claim.Active, desk: desk{room: true}, did: []string{"reserve", "unreserve", "forward c-1"}, bare: []string{"reserve", "unreserve"}, holder: "there"},
		{name: "somebody works, without room", held: claim.Active, did: []string{"reserve", "forward c-1"}, bare: []string{"reserve"}, holder: "there"},
		{
			name: "somebody is leaving", held: claim.Releasing, desk: desk{room: true}, holder: "there",
			did:  []string{"reserve", "unreserve", "forward c-1", "resend with work false after 5s"},
			bare: []string{"reserve", "unreserve", "resend with work false after 5s"},
		},
		{
			name: "it cannot be opened", desk: desk{room: true, opening: boom}, err: boom,
			did: []string{"reserve", opened, "unreserve"}, bare: []string{"reserve", opened, "unreserve"},
		},
	}
	for _, tt := range tests {
		for _, work := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, work %v", tt.name, work), func(t *testing.T) {
				table, d, did := &claim.Memory{}, tt.desk, tt.did
				hold(t, table, tt.held)
				c := protocol.ClaimRequest{ProjectID: "amelia", UserID: "scott"}
				if work {
					c.Work = &protocol.InputMessage{CommandID: "c-1"}
				} else {
					did = tt.bare
				}
				h := &handlers.Claim{
					Claims: &claim.Claims{Table: table, ContainerID: "here"},
					Queues: &d, Reserve: d.reserve, Unreserve: d.unreserve, Open: d.open,
				}
				if err := h.Handle(t.Context(), c); !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if diff := cmp.Diff(did, d.did); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				row, err := table.Get(t.Context(), "amelia#scott")
				if err != nil && !errors.Is(err, claim.ErrNoRow) {
					t.Fatal(err)
				}
				if row.ContainerID != tt.holder {
					t.Errorf("the project is %s by %q, want by %q", row.Status, row.ContainerID, tt.holder)
				}
			})
		}
	}
}

// hold makes somebody else the owner, as far as they are.
func hold(t *testing.T, table *claim.Memory, s claim.Status) {
	t.Helper()
	if s == "" {
		return
	}
	l, err := (&claim.Claims{Table: table, ContainerID: "there"}).Acquire(t.Context(), "amelia#scott")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Abandon)
	switch s {
	case claim.Releasing:
		err = l.Releasing(t.Context())
	case claim.Released:
		err = l.Release(t.Context())
	case claim.Active:
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestClaimForAnImpossiblePair: trying again does not make a name possible.
func TestClaimForAnImpossiblePair(t *testing.T) {
	d := &desk{room: true}
	h := &handlers.Claim{Claims: &claim.Claims{Table: &claim.Memory{}}, Queues: d, Reserve: d.reserve, Unreserve: d.unreserve, Open: d.open}
	for _, p := range []protocol.Pair{
		{ProjectID: "no_bucket", UserID: "scott"},
		{ProjectID: strings.Repeat("p", 40), UserID: strings.Repeat("u", 40)},
	} {
		err := h.Handle(t.Context(), protocol.ClaimRequest{ProjectID: p.ProjectID, UserID: p.UserID})
		var f *handlers.StepError
		if !errors.As(err, &f) || !f.Permanent || f.Code != protocol.InvalidMessage {
			t.Errorf("%v: error %v, want a permanent invalid_message", p, err)
		}
	}
	if d.did != nil {
		t.Errorf("done: %v", d.did)
	}
}

// TestClaimWhoseWorkCannotBeSent is tried again: the work must not be lost.
func TestClaimWhoseWorkCannotBeSent(t *testing.T) {
	boom := errors.New("boom")
	for _, room := range []bool{true, false} {
		d := &desk{room: room, sending: boom}
		h := &handlers.Claim{Claims: &claim.Claims{Table: &claim.Memory{}}, Queues: d, Reserve: d.reserve, Unreserve: d.unreserve, Open: d.open}
		c := protocol.ClaimRequest{ProjectID: "amelia", UserID: "scott", Work: &protocol.InputMessage{CommandID: "c-1"}}
		if err := h.Handle(t.Context(), c); !errors.Is(err, boom) {
			t.Errorf("room %v: error %v, want %v", room, err, boom)
		}
		if last := d.did[len(d.did)-1]; last != "forward c-1" {
			t.Errorf("room %v: done %v after the work was not sent", room, d.did)
		}
	}
}
