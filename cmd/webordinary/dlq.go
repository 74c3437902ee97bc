package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

const (
	// mostQueues and mostLetters bound what is looked at in one go.
	mostQueues  = 500
	mostLetters = 1000
	// lookFor is for how long a letter is hidden from others if we die while we
	// look at it; else it is put back at the end.
	lookFor = 30 * time.Second
)

func dlqCommand(sys system) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "See what was given up and why, and have it done again",
		Long: "Dead-letter queues hold what workers gave up: refusals, what failed again and again, and what cannot\n" +
			"be read; and what SQS moved there after three receives, with no word from anybody.\n\n" +
			"Without --project and --user all dead-letter queues are looked at that there are. Looking puts every\n" +
			"message back at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(dlqListCommand(sys), dlqShowCommand(sys), dlqRedriveCommand(sys))
	return cmd
}

func dlqListCommand(sys system) *cobra.Command {
	var p pairFlags
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters with their reasons", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withLetters(cmd.Context(), sys, looking{p, output}, func(_ context.Context, d *deadLetters) error { return d.list() })
		},
	}
	p.add(cmd, " whose dead letters are looked at")
	outputFlag(cmd, &output, "an array of letters")
	return cmd
}

func dlqShowCommand(sys system) *cobra.Command {
	var p pairFlags
	var output string
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one dead letter with its body",
		Long: "Shows a dead letter with its body. ID is its id in the list, or its commandId, or the beginning of one\n" +
			"of them.",
		Example: "  webordinary dlq show 973fa37e",
		Args:    needs("ID"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLetters(cmd.Context(), sys, looking{p, output}, func(_ context.Context, d *deadLetters) error { return d.show(args[0]) })
		},
	}
	p.add(cmd, " whose dead letters are looked at")
	outputFlag(cmd, &output, "the letter as an object")
	return cmd
}

func dlqRedriveCommand(sys system) *cobra.Command {
	var p pairFlags
	var r redrive
	var output string
	cmd := &cobra.Command{
		Use: "redrive [ID]", Short: "Send dead letters back to where they came from",
		Long: "Sends a dead letter, or with --all each, to the queue that it came from, and then deletes it here.\n" +
			"Interrupted in between, it is in both queues: a worker knows the second one again.\n\n" +
			"A command that was answered with a failure when it was given up runs again, as its next attempt, and is\n" +
			"answered once more. A claim request follows, as after `send`, so that a worker sees it.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		PreRunE: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) != r.all {
				return errors.New("say which dead letter, by its id in `webordinary dlq list`; or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r.id = append(args, "")[0]
			return withLetters(cmd.Context(), sys, looking{p, output}, func(ctx context.Context, d *deadLetters) error { return d.redrive(ctx, r) })
		},
	}
	p.add(cmd, " whose dead letters are sent back")
	cmd.Flags().BoolVar(&r.all, "all", false, "send back all that there are")
	cmd.Flags().StringVar(&r.to, "to", "", "name of the queue to send to, where nobody knows where a letter came from")
	outputFlag(cmd, &output, "an object per letter, a line each")
	return cmd
}

// deadLetters are what was found, and is put back at the end.
type deadLetters struct {
	*operator
	found []letter
	more  bool // there are others
	pair  *protocol.Pair
	empty []string // queues that were looked at
}

// letter is a dead letter, for people and for programs.
type letter struct {
	ID        string            `json:"id"`
	Queue     string            `json:"queue"`
	CommandID string            `json:"commandId,omitempty"`
	ProjectID string            `json:"projectId,omitempty"`
	UserID    string            `json:"userId,omitempty"`
	ThreadID  string            `json:"threadId,omitempty"`
	Reason    string            `json:"reason"`
	From      string            `json:"from,omitempty"` // where redrive sends it
	Attempts  string            `json:"attempts,omitempty"`
	Sent      time.Time         `json:"sent,omitzero"`
	Died      time.Time         `json:"died,omitzero"` // when it was given up
	Attrs     map[string]string `json:"attributes,omitempty"`
	Body      string            `json:"body,omitempty"`

	raw  queue.Letter
	pair protocol.Pair // zero if it names none that can be
}

// looking says where to look.
type looking struct {
	of     pairFlags
	output string
}

// withLetters looks into the queues, and puts back what is there, whatever happens.
func withLetters(ctx context.Context, sys system, w looking, do func(context.Context, *deadLetters) error) (err error) {
	o, err := newOperator(ctx, sys, w.output)
	if err != nil {
		return err
	}
	defer o.close()
	d := &deadLetters{operator: o}
	queues, err := d.queuesOf(ctx, w.of)
	if err != nil {
		return err
	}
	defer func() {
		var held []queue.Letter
		for _, l := range d.found {
			held = append(held, l.raw)
		}
		err = errors.Join(err, o.queues.Unlook(ctx, held...))
	}()
	for _, q := range queues {
		if err := d.look(ctx, q); err != nil {
			return err
		}
	}
	return do(ctx, d)
}

// queuesOf returns the pair's queue, or all that there are.
func (d *deadLetters) queuesOf(ctx context.Context, p pairFlags) ([]string, error) {
	pair, ok, err := p.pair(d.names)
	if err != nil {
		return nil, err
	}
	if ok {
		d.pair = &pair
		return []string{d.names.DLQ(pair)}, nil
	}
	queues, more, err := d.queuesLike(ctx, d.config.DLQPattern)
	if err != nil {
		return nil, err
	}
	if more {
		d.note("There are more than %d dead-letter queues; only the first are looked at. Say --project and --user.", mostQueues)
	}
	last := d.names.Unclaimed()
	if dep, err := d.depth(ctx, last); err == nil && !dep.Missing && !slices.Contains(queues, dep.Queue) {
		queues = append(queues, last)
	}
	return queues, nil
}

// queuesLike returns the queues whose names fit a pattern.
func (o *operator) queuesLike(ctx context.Context, pattern string) (fit []string, more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	prefix, _, _ := strings.Cut(pattern, "{")
	names, more, err := o.queues.List(ctx, prefix, mostQueues)
	if err != nil {
		return nil, false, err
	}
	is := patternOf(pattern)
	return slices.DeleteFunc(names, func(n string) bool { return !is.MatchString(n) }), more, nil
}

func (d *deadLetters) look(ctx context.Context, q string) error {
	all, more, err := d.queues.Browse(ctx, q, mostLetters-len(d.found), queue.Look{Visibility: lookFor})
	for _, raw := range all {
		d.found = append(d.found, d.read(raw))
	}
	d.more = d.more || more
	switch {
	case errors.Is(err, queue.ErrMissing):
		return fmt.Errorf("%w; the pattern of names or the region may be another one", err)
	case err != nil:
		return err
	case len(all) == 0:
		d.empty = append(d.empty, q)
	}
	return nil
}

// read says of a message what a person wants to know.
func (d *deadLetters) read(raw queue.Letter) letter {
	a := raw.Attributes
	l := letter{
		ID: raw.Delivery.MessageID, Queue: raw.Queue[strings.LastIndex(raw.Queue, "/")+1:], Attempts: a[middleware.PoisonAttempts],
		Sent: raw.Delivery.Sent, Attrs: a, Body: raw.Body, raw: raw,
	}
	if t, err := time.Parse(time.RFC3339, a[middleware.PoisonTime]); err == nil {
		l.Died = t
	}
	in, err := protocol.DecodeInput([]byte(raw.Body), raw.Delivery)
	if m := in.Command; err == nil && m != nil {
		l.CommandID, l.ProjectID, l.UserID, l.ThreadID = m.CommandID, m.ProjectID, m.UserID, m.ThreadID
		if checkPair(m.Pair(), d.names) == nil {
			l.pair = m.Pair()
		}
	}
	l.From = d.origin(l)
	l.Reason = a[middleware.PoisonReason]
	switch {
	case l.Reason != "":
	case err != nil:
		l.Reason = "SQS moved it: received three times and never settled. " + err.Error()
	default:
		l.Reason = "SQS moved it: received three times and never settled, so each worker that had it crashed or was cut off"
	}
	return l
}

// origin is the queue a letter came from: as the worker wrote it down, as SQS says, or
// as its body must have.
func (d *deadLetters) origin(l letter) string {
	if from := l.raw.Attributes[middleware.PoisonTopic]; from != "" {
		return from
	}
	if from := l.raw.From; from != "" {
		return from[strings.LastIndex(from, ":")+1:]
	}
	if l.raw.Queue == d.names.Unclaimed() {
		return d.config.UnclaimedQueueURL
	}
	if l.pair != (protocol.Pair{}) && l.raw.Queue == d.names.DLQ(l.pair) {
		return d.names.Input(l.pair)
	}
	return ""
}

func (d *deadLetters) list() error {
	if d.json {
		all := []letter{}
		for _, l := range d.found {
			l.Attrs, l.Body = nil, ""
			all = append(all, l)
		}
		return writeJSON(d.sys.stdout, all)
	}
	if len(d.found) == 0 {
		return d.say("No dead letters; looked into %s.", counted(len(d.empty), "queue"))
	}
	slices.SortStableFunc(d.found, func(a, b letter) int {
		return cmp.Or(strings.Compare(a.Queue, b.Queue), a.Sent.Compare(b.Sent))
	})
	now := time.Now()
	g := &grid{}
	g.head("ID", "PROJECT", "COMMAND", "SENT", "TRIES", "REASON")
	for _, l := range d.found {
		project := l.Queue
		if l.pair != (protocol.Pair{}) {
			project = l.pair.Key()
		}
		g.add(painted(bold, short(l.ID, 8+1)[:min(8, len(l.ID))]), plain(short(project, 40)), plain(short(cmp.Or(l.CommandID, "-"), 30)), plain(ago(now, l.Sent)),
			plain(cmp.Or(l.Attempts, "-")), plain(short(l.Reason, 90)))
	}
	if err := g.write(d.sys.stdout, d.style); err != nil {
		return err
	}
	if d.more {
		return d.say("\nThere are more than these %d. Say --project and --user, or send some back.", len(d.found))
	}
	return nil
}

// one finds a letter by its id, the beginning of it, or its command's id.
func (d *deadLetters) one(id string) (letter, error) {
	var fit []letter
	for _, l := range d.found {
		if l.ID == id || l.CommandID == id || len(id) >= 4 && (strings.HasPrefix(l.ID, id) || strings.HasPrefix(l.CommandID, id)) {
			fit = append(fit, l)
		}
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		more := ""
		if d.more {
			more = fmt.Sprintf(" among the first %d; say --project and --user", len(d.found))
		}
		return letter{}, fmt.Errorf("there is no dead letter %q%s; `webordinary dlq list` shows what there is", id, more)
	}
	return letter{}, fmt.Errorf("%d dead letters fit %q; say more of the id", len(fit), id)
}

func (d *deadLetters) show(id string) error {
	l, err := d.one(id)
	if err != nil {
		return err
	}
	if d.json {
		return writeJSON(d.sys.stdout, l)
	}
	g := &grid{}
	for _, row := range []struct{ name, text string }{
		{"id", l.ID},
		{"queue", l.Queue},
		{"from", l.From},
		{"project", l.ProjectID},
		{"user", l.UserID},
		{"thread", l.ThreadID},
		{"command", l.CommandID},
		{"sent", at(l.Sent)},
		{"given up", at(l.Died)},
		{"tries", l.Attempts},
		{"reason", l.Reason},
	} {
		if row.text != "" {
			g.add(painted(faint, row.name), plain(row.text))
		}
	}
	g.add(painted(faint, "body"), plain(l.Body))
	return g.write(d.sys.stdout, d.style)
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return clock(t)
}
