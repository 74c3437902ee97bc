package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

func statusCommand(sys system) *cobra.Command {
	var output string
	limit := 20_000
	cmd := &cobra.Command{
		Use:   "status PROJECT USER",
		Short: "Show how a project is: claim, queues, threads, last error, deploy",
		Long: "Shows how a project of a user is: who has it, what waits, its threads with their branches and last\n" +
			"commands, the last error, and what its bucket holds.\n\n" +
			"The journal has no list of a project's commands, so its table is looked through item by item, no\n" +
			"further than --scan items; when that is not all, it says so. Commands are kept for 30 days.",
		Example: "  webordinary status amelia scott",
		Args:    needs("PROJECT", "USER"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return fmt.Errorf("--scan is %d; at least 1", limit)
			}
			o, err := newOperator(cmd.Context(), sys, output)
			if err != nil {
				return err
			}
			defer o.close()
			p := protocol.Pair{ProjectID: args[0], UserID: args[1]}
			if err := checkPair(p, o.names); err != nil {
				return err
			}
			s, err := o.status(cmd.Context(), p, limit)
			switch {
			case err != nil:
				return err
			case o.json:
				return writeJSON(sys.stdout, s)
			}
			return o.printStatus(s)
		},
	}
	cmd.Flags().IntVar(&limit, "scan", limit, "how many items of the journal's table to look at, at most")
	outputFlag(cmd, &output, "an object")
	return cmd
}

// projectStatus is all that is known of a project and user.
type projectStatus struct {
	ProjectID string           `json:"projectId"`
	UserID    string           `json:"userId"`
	Claim     *held            `json:"claim"` // null if nobody ever had it
	Queues    map[string]depth `json:"queues"`
	Threads   []threadStatus   `json:"threads"`
	LastError *commandStatus   `json:"lastError"` // of all threads
	Deploy    *deployStatus    `json:"deploy"`    // null if nothing was
	// Partial says that the journal was not looked through to its end.
	Partial bool `json:"partial"`
}

type threadStatus struct {
	ThreadID string        `json:"threadId"`
	Branch   string        `json:"branch"`
	Commands int           `json:"commands"`
	Last     commandStatus `json:"last"`
}

type commandStatus struct {
	CommandID string    `json:"commandId"`
	ThreadID  string    `json:"threadId"`
	State     string    `json:"state"` // done, failed, interrupted, given up, or the last finished step
	Sent      time.Time `json:"sent,omitzero"`
	Answered  time.Time `json:"answered,omitzero"`
	Attempt   int       `json:"attempt"`
	ErrorCode string    `json:"errorCode,omitempty"`
	Error     string    `json:"error,omitempty"`
	Summary   string    `json:"summary,omitempty"`
	CommitID  string    `json:"commitId,omitempty"`
}

type deployStatus struct {
	Bucket    string    `json:"bucket"`
	URL       string    `json:"url"`
	CommitID  string    `json:"commitId"`
	CommandID string    `json:"commandId"`
	Project   string    `json:"project"` // whose command it was
	Deployed  time.Time `json:"deployed,omitzero"`
	Complete  bool      `json:"complete"`
}

func (o *operator) status(ctx context.Context, p protocol.Pair, limit int) (*projectStatus, error) {
	s := &projectStatus{ProjectID: p.ProjectID, UserID: p.UserID, Queues: map[string]depth{}, Threads: []threadStatus{}}
	row, err := o.row(ctx, p.Key())
	if err != nil {
		return nil, err
	}
	if row.ProjectKey != "" {
		h := o.heldOf(row, time.Now())
		h.Stale = h.Stale && (row.Status == claim.Active || row.Status == claim.Releasing)
		s.Claim = &h
	}
	for name, topic := range map[string]string{
		"input": o.names.Input(p), "output": o.names.Output(p), "interrupts": o.names.Interrupts(p), "dlq": o.names.DLQ(p),
	} {
		if s.Queues[name], err = o.depth(ctx, topic); err != nil {
			return nil, err
		}
	}
	records, more, err := o.tables.Records(ctx, p.Key(), limit)
	if err != nil {
		return nil, err
	}
	s.Partial = more
	if err := s.read(records); err != nil {
		return nil, err
	}
	s.Deploy, err = o.deployOf(ctx, p)
	return s, err
}

func (o *operator) deployOf(ctx context.Context, p protocol.Pair) (*deployStatus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	bucket := o.names.Bucket(p.ProjectID)
	site, found, err := (&journal.Journal{Store: o.tables.Journal()}).LoadSite(ctx, bucket)
	if err != nil || !found {
		return nil, err
	}
	return &deployStatus{
		Bucket: bucket, URL: o.names.SiteURL(bucket), CommitID: site.Commit, CommandID: site.CommandID,
		Project: site.ProjectKey, Deployed: site.Deployed, Complete: site.Complete,
	}, nil
}

// read sorts the commands into threads, the one with the newest command first.
func (s *projectStatus) read(records []journal.Record) error {
	threads := map[string]*threadStatus{}
	for _, r := range records {
		var e journal.Entry
		if err := json.Unmarshal(r.Body, &e); err != nil {
			return fmt.Errorf("read journal record %s: %w", r.Key, err)
		}
		c := statusOf(e)
		branch := protocol.Branch(e.ThreadID)
		if e.ThreadID == "" { // refused before it had one
			branch = ""
		}
		t := threads[branch]
		if t == nil {
			t = &threadStatus{ThreadID: e.ThreadID, Branch: branch, Last: c}
			threads[branch] = t
		}
		t.Commands++
		if c.Sent.After(t.Last.Sent) {
			t.Last = c
		}
		if c.ErrorCode != "" && (s.LastError == nil || c.Answered.After(s.LastError.Answered)) {
			s.LastError = &c
		}
	}
	for _, t := range threads {
		s.Threads = append(s.Threads, *t)
	}
	slices.SortFunc(s.Threads, func(a, b threadStatus) int {
		return cmp.Or(b.Last.Sent.Compare(a.Last.Sent), cmp.Compare(a.Branch, b.Branch))
	})
	return nil
}

func statusOf(e journal.Entry) commandStatus {
	c := commandStatus{CommandID: e.CommandID, ThreadID: e.ThreadID, Sent: e.Sent, Attempt: e.Attempt, CommitID: e.Commit}
	if len(e.Done) > 0 {
		c.State = string(e.Done[len(e.Done)-1])
	}
	var out protocol.OutputMessage
	if !e.Has(journal.Finished) || json.Unmarshal(e.Output, &out) != nil {
		return c
	}
	c.ErrorCode, c.Error, c.Summary = string(out.ErrorCode), out.Error, out.Summary
	c.Answered = time.UnixMilli(out.Timestamp).UTC()
	switch {
	case e.Has(journal.DeadLettered):
		c.State = "given up"
	case out.Interrupted:
		c.State = "interrupted"
	case out.Success && out.Superseded:
		c.State = "done, superseded"
	case out.Success:
		c.State = "done"
	default:
		c.State = "failed"
	}
	return c
}

// mostThreads are shown to people.
const mostThreads = 15

func (o *operator) printStatus(s *projectStatus) error {
	now := time.Now()
	g := &grid{}
	label := func(text string) cell { return painted(faint, text) }
	g.add(label("project"), painted(bold, s.ProjectID+"#"+s.UserID))
	g.add(label("claim"), o.claimCell(s.Claim, now))
	dead := s.Queues["dlq"]
	if s.Queues["input"].Missing && dead.Missing {
		g.add(label("queue"), painted(red, "none: it was not set up, or a pattern of queue names or the region is another one"))
	} else {
		g.add(label("queue"), plain("input "+s.Queues["input"].String()+"; output "+s.Queues["output"].String()))
		g.add(label("dlq"), when(dead.Waiting > 0, red, deadText(s, dead)))
	}
	if d := s.Deploy; d != nil {
		g.add(label("deploy"), when(!d.Complete, yellow, deployText(*d, now)))
		g.add(label("site"), plain(d.URL))
	} else {
		g.add(label("deploy"), plain("nothing yet"))
	}
	if e := s.LastError; e != nil {
		g.add(label("error"), plain(fmt.Sprintf("%s, %s: %s", e.ErrorCode, ago(now, e.Answered), short(e.Error, 120))))
		g.add(plain(""), plain("of command "+e.CommandID))
	}
	if err := g.write(o.sys.stdout, o.style); err != nil {
		return err
	}
	return errors.Join(o.printThreads(s, now), o.printPartial(s))
}

func deadText(s *projectStatus, d depth) string {
	if d.Missing {
		return "no queue: " + d.Queue
	}
	if d.Waiting == 0 {
		return "none"
	}
	return fmt.Sprintf("%s; webordinary dlq list --project %s --user %s", counted(d.Waiting, "dead letter"), s.ProjectID, s.UserID)
}

func (o *operator) claimCell(h *held, now time.Time) cell {
	switch {
	case h == nil:
		return plain("nobody ever had it")
	case h.Stale:
		return painted(red, fmt.Sprintf("%s, stale: %s renewed %s", h.Status, h.Container, ago(now, h.LastActivity)))
	case h.Status == string(claim.Active), h.Status == string(claim.Releasing):
		return painted(green, fmt.Sprintf("%s by %s, since %s, renewed %s", h.Status, h.Container, span(now.Sub(h.ClaimedAt)), ago(now, h.LastActivity)))
	}
	return plain(fmt.Sprintf("nobody; %s %s", h.Status, ago(now, h.LastActivity)))
}

func deployText(d deployStatus, now time.Time) string {
	text := fmt.Sprintf("%s at %s, %s, by %s", d.Bucket, shortSHA(d.CommitID), ago(now, d.Deployed), d.CommandID)
	if !d.Complete {
		return text + "; not complete: the next deploy repairs it"
	}
	return text
}

func (o *operator) printThreads(s *projectStatus, now time.Time) error {
	if len(s.Threads) == 0 {
		return o.say("\nNo command is known.")
	}
	if err := o.say(""); err != nil {
		return err
	}
	g := &grid{}
	g.head("BRANCH", "COMMANDS", "LAST", "SENT", "STATE", "SUMMARY")
	for _, t := range s.Threads[:min(len(s.Threads), mostThreads)] {
		g.add(plain(short(cmp.Or(t.Branch, "-"), 40)), plain(fmt.Sprint(t.Commands)), plain(short(t.Last.CommandID, 40)), plain(ago(now, t.Last.Sent)),
			painted(stateColour(t.Last.State), stateText(t.Last)), plain(short(cmp.Or(t.Last.Summary, t.Last.Error), 60)))
	}
	if err := g.write(o.sys.stdout, o.style); err != nil {
		return err
	}
	if n := len(s.Threads) - mostThreads; n > 0 {
		return o.say("and %s more", counted(n, "thread"))
	}
	return nil
}

func stateText(c commandStatus) string {
	if c.ErrorCode != "" {
		return c.State + ", " + c.ErrorCode
	}
	return c.State
}

func stateColour(state string) string {
	switch state {
	case "done", "done, superseded":
		return green
	case "failed", "given up":
		return red
	}
	return yellow
}

func (o *operator) printPartial(s *projectStatus) error {
	if !s.Partial {
		return nil
	}
	return o.say("\nThe journal's table has more items than were looked at: commands may be missing here. --scan N looks further.")
}
