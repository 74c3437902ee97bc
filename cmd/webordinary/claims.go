package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

func claimsCommand(sys system) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "claims",
		Short: "Show who has which project",
		Long: "Shows who has which project: since when, when the owner last renewed its claim, what is left of\n" +
			"its lease, and what waits in the input queue.\n\n" +
			"LEFT is an estimate. A row holds no end of the lease: it is LEASE_DURATION less the age of the last\n" +
			"renewal, by this machine's clock, with this machine's LEASE_DURATION. A claim of which nothing is\n" +
			"left is stale: its owner is dead or frozen, and a worker with capacity takes it over once it has seen\n" +
			"for LEASE_DURATION that nothing moves. A row that is not of this worker's kind is stale after 5 min.\n\n" +
			"A claim on a bucket is that of the worker which deploys to it now.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := newOperator(cmd.Context(), sys, output)
			if err != nil {
				return err
			}
			defer o.close()
			return o.listClaims(cmd.Context())
		},
	}
	outputFlag(cmd, &output, "an object with claims and requests")
	cmd.AddCommand(claimsReleaseCommand(sys), claimsRequestCommand(sys))
	return cmd
}

// held is a claim, for people and for programs.
type held struct {
	Key          string    `json:"key"`
	Container    string    `json:"container"`
	Status       string    `json:"status"`
	ClaimedAt    time.Time `json:"claimedAt,omitzero"`
	LastActivity time.Time `json:"lastActivity,omitzero"`
	LeaseLeftMs  int64     `json:"leaseLeftMs"` // an estimate; nothing or less is stale
	Stale        bool      `json:"stale"`
	Fence        int64     `json:"fence,omitempty"`
	Rev          int64     `json:"rev,omitempty"`
	Queue        *depth    `json:"queue,omitempty"` // none for a bucket
}

// foreignLife is when a row of another kind counts as a dead owner's.
const foreignLife = 5 * time.Minute

func (o *operator) heldOf(row claim.Row, now time.Time) held {
	left := o.config.LeaseDuration
	if row.Rev == 0 {
		left = foreignLife
	}
	left -= now.Sub(row.LastActivity)
	return held{
		Key: row.ProjectKey, Container: row.ContainerID, Status: string(row.Status), ClaimedAt: row.ClaimedAt, LastActivity: row.LastActivity,
		LeaseLeftMs: left.Milliseconds(), Stale: left <= 0, Fence: row.Fence, Rev: row.Rev,
	}
}

func (o *operator) listClaims(ctx context.Context) error {
	live, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	rows, err := o.claims.Live(live)
	if err != nil {
		return fmt.Errorf("the claims in %s cannot be read: %w", o.config.OwnershipTable, err)
	}
	slices.SortFunc(rows, func(a, b claim.Row) int { return strings.Compare(a.ProjectKey, b.ProjectKey) })
	all := []held{}
	for _, row := range rows {
		h := o.heldOf(row, time.Now())
		if err := o.addQueue(ctx, &h); err != nil {
			return err
		}
		all = append(all, h)
	}
	var requests *depth
	if o.config.UnclaimedQueueURL != "" {
		d, err := o.depth(ctx, o.config.UnclaimedQueueURL)
		if err != nil {
			return err
		}
		requests = &d
	}
	if o.json {
		return writeJSON(o.sys.stdout, struct {
			Claims   []held `json:"claims"`
			Requests *depth `json:"requests,omitempty"`
		}{all, requests})
	}
	return o.printClaims(all, requests)
}

// addQueue says what waits for whoever has a project.
func (o *operator) addQueue(ctx context.Context, h *held) error {
	p, err := protocol.ParseKey(h.Key)
	if err != nil || handlers.IsBucket(h.Key) {
		return nil //nolint:nilerr // it has no queue
	}
	d, err := o.depth(ctx, o.names.Input(p))
	h.Queue = &d
	return err
}

func (o *operator) printClaims(all []held, requests *depth) error {
	now, stale := time.Now(), 0
	g := &grid{}
	g.head("PROJECT", "OWNER", "SINCE", "RENEWED", "LEFT", "STATUS", "QUEUE")
	for _, h := range all {
		queue := "-"
		if h.Queue != nil {
			queue = h.Queue.String()
		}
		status, colour := h.Status, green
		if h.Status != string(claim.Active) {
			colour = yellow
		}
		if h.Stale {
			status, colour, stale = h.Status+", stale", red, stale+1
		}
		g.add(plain(h.Key), plain(h.Container), plain(ago(now, h.ClaimedAt)), plain(ago(now, h.LastActivity)),
			when(h.Stale, red, leftOf(h)), painted(colour, status), plain(queue))
	}
	if len(all) == 0 {
		if err := o.say("Nobody has a project."); err != nil {
			return err
		}
	} else if err := g.write(o.sys.stdout, o.style); err != nil {
		return err
	}
	if stale > 0 {
		if err := o.say("\n%s stale: the owner does not renew. A worker with capacity takes over by itself; if none does,\nstart one, or `webordinary claims release KEY`.", counted(stale, "claim")); err != nil {
			return err
		}
	}
	if requests != nil && requests.Waiting+requests.Delayed+requests.InFlight > 0 {
		return o.say("\nClaim requests: %s", requests)
	}
	return nil
}

func leftOf(h held) string {
	if h.LeaseLeftMs <= 0 {
		return "none"
	}
	return "~" + span(time.Duration(h.LeaseLeftMs)*time.Millisecond)
}

func claimsReleaseCommand(sys system) *cobra.Command {
	var yes bool
	var output string
	cmd := &cobra.Command{
		Use:   "release KEY",
		Short: "Take a project from its owner, and ask another worker to take it",
		Long: "Takes a project from its owner: KEY is projectId#userId. It shows the claim and asks; --yes answers.\n" +
			"What is written is written only if the owner is still the one that was shown; and if it was stale, only\n" +
			"if it has not moved.\n\n" +
			"An owner that lives ends its job within LEASE_RENEWAL; the command comes again. The row is not\n" +
			"free at once, as the owner may trust its lease for a while. It says `releasing` and moves no more: a\n" +
			"worker takes it over after LEASE_DURATION, and saves what is in the checkout. For that a claim\n" +
			"request is sent, so that no work is stranded. A frozen or dead owner is taken over in just this way\n" +
			"without anybody's help, if there is a worker with capacity.",
		Example: "  webordinary claims release amelia#scott",
		Args:    needs("KEY"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := newOperator(cmd.Context(), sys, output, "UNCLAIMED_QUEUE_URL")
			if err != nil {
				return err
			}
			defer o.close()
			return o.release(cmd.Context(), args[0], yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	outputFlag(cmd, &output, "the claim as it was, and what was done; needs --yes")
	return cmd
}

func checkKey(key string) error {
	if handlers.IsBucket(key) {
		return nil
	}
	if _, err := protocol.ParseKey(key); err != nil {
		return fmt.Errorf("%q is not the key of a claim: %w; `webordinary claims` lists them", key, err)
	}
	return nil
}

// released is what release prints for programs.
type released struct {
	Claim          held   `json:"claim"` // as it was
	Status         string `json:"status"`
	ClaimRequested bool   `json:"claimRequested"`
}

func (o *operator) release(ctx context.Context, key string, yes bool) error {
	if err := checkKey(key); err != nil {
		return err
	}
	row, err := o.row(ctx, key)
	if err != nil {
		return err
	}
	if row.ProjectKey == "" || row.Status != claim.Active && row.Status != claim.Releasing {
		return fmt.Errorf("nobody has %s; there is nothing to release. If work waits: `webordinary claims request %s`", key, key)
	}
	h := o.heldOf(row, time.Now())
	if err := o.addQueue(ctx, &h); err != nil {
		return err
	}
	if !o.json {
		if err := o.printClaims([]held{h}, nil); err != nil {
			return err
		}
	}
	if !yes {
		if err := o.confirm(ctx, h); err != nil {
			return err
		}
	}
	err = o.evict(ctx, row, h.Stale)
	switch {
	case errors.Is(err, claim.ErrMoved):
		return fmt.Errorf("%s is not as it was shown: its owner has come back or left in the meantime. Nothing was changed; look again", key)
	case err != nil:
		return err
	}
	return o.tellReleased(ctx, h)
}

// evict takes a project from the owner that was shown. One that was shown to be stale
// must not have moved; the renewals of one that lives are no news.
func (o *operator) evict(ctx context.Context, row claim.Row, stale bool) error {
	var err error
	for range 3 {
		if _, err = claim.Evict(ctx, o.claims, row); !errors.Is(err, claim.ErrMoved) || stale {
			return err
		}
		now, rerr := o.row(ctx, row.ProjectKey)
		if rerr != nil {
			return rerr
		}
		if now.Fence != row.Fence || now.Tenure != row.Tenure || now.ContainerID != row.ContainerID || now.Status == claim.Released {
			return err
		}
		row = now
	}
	return err
}

// confirm asks the person at the terminal.
func (o *operator) confirm(ctx context.Context, h held) error {
	if !fromTerminal(o.sys.stdin) || o.json {
		return fmt.Errorf("%s was not released: nobody can be asked here; say --yes", h.Key)
	}
	consequence := "Its owner seems dead."
	if !h.Stale {
		consequence = "Its owner lives: what it does now is cut off, and done again by the next."
	}
	fmt.Fprintf(o.sys.stderr, "\n%s Release %s? [y/N] ", consequence, h.Key) //nolint:errcheck // the answer is what counts
	typed := make(chan string, 1)
	go func() { // it ends with a line, or with the program
		line, _ := bufio.NewReader(o.sys.stdin).ReadString('\n') // what was not typed is no
		typed <- strings.ToLower(strings.TrimSpace(line))
	}()
	var answer string
	select {
	case answer = <-typed:
	case <-ctx.Done():
	}
	if answer != "y" && answer != "yes" {
		return fmt.Errorf("%s was not released", h.Key)
	}
	return nil
}

func (o *operator) tellReleased(ctx context.Context, h held) error {
	p, err := protocol.ParseKey(h.Key)
	asked := err == nil && !handlers.IsBucket(h.Key)
	if asked {
		if err := o.sendRequest(context.WithoutCancel(ctx), p); err != nil {
			return fmt.Errorf("%s was taken from %s, but no worker could be asked to take it; say `webordinary claims request %s` when this is mended: %w", h.Key, h.Container, h.Key, err)
		}
	}
	if o.json {
		return writeJSON(o.sys.stdout, released{Claim: h, Status: string(claim.Releasing), ClaimRequested: asked})
	}
	if err := o.say("\n%s was taken from %s.", h.Key, h.Container); err != nil {
		return err
	}
	next := "the next deploy"
	if asked {
		next = "a worker, which was asked by a claim request,"
	}
	return o.say("If that lives, it ends its job within its LEASE_RENEWAL. After LEASE_DURATION (%s here)\n%s takes it over.", o.config.LeaseDuration, next)
}

func claimsRequestCommand(sys system) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "request KEY",
		Short: "Ask the workers to take a project, if nobody has it",
		Long: "Sends a claim request for projectId#userId, unless its row says that a worker has it and lives, as the\n" +
			"platform does after it has sent work. It does no harm when there is no work: the worker leaves again.",
		Example: "  webordinary claims request amelia#scott",
		Args:    needs("KEY"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := newOperator(cmd.Context(), sys, output, "UNCLAIMED_QUEUE_URL")
			if err != nil {
				return err
			}
			defer o.close()
			return o.request(cmd.Context(), args[0])
		},
	}
	outputFlag(cmd, &output, "whether a request was sent")
	return cmd
}

func (o *operator) request(ctx context.Context, key string) error {
	p, err := protocol.ParseKey(key)
	if err == nil {
		err = o.names.Check(p)
	}
	if err != nil {
		return fmt.Errorf("%q is not the key of a project and user: %w", key, err)
	}
	asked, err := o.requestClaim(ctx, p)
	switch {
	case err != nil:
		return err
	case o.json:
		return writeJSON(o.sys.stdout, map[string]any{"key": key, "claimRequested": asked})
	case asked:
		return o.say("A claim request for %s was sent.", key)
	}
	return o.say("A worker has %s; nothing was sent.", key)
}
