package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/logging"
	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// callPatience is how long somebody at a terminal waits for one answer of AWS.
const callPatience = 20 * time.Second

var errNoAnswer = fmt.Errorf("AWS gave no answer within %s; `webordinary doctor` tries all that is needed", callPatience)

// operator is what the subcommands have that look at the platform, or repair it. It
// creates nothing.
type operator struct {
	sys    system
	config *config
	aws    aws.Config
	names  protocol.Names
	queues *queue.Queues
	tables *table.Tables
	claims claim.Table

	json  bool
	style style // of stdout
}

// newOperator is readOperator of somebody who has credentials.
func newOperator(ctx context.Context, sys system, output string, required ...string) (*operator, error) {
	o, err := readOperator(ctx, sys, output, required...)
	if err != nil {
		return nil, err
	}
	return o, haveCredentials(ctx, o.aws)
}

// readOperator reads the configuration, the same as the worker's, and makes clients.
// It calls nothing.
func readOperator(ctx context.Context, sys system, output string, required ...string) (*operator, error) {
	c, err := loadConfig(sys.environ, required...)
	if err != nil {
		return nil, err
	}
	o := &operator{sys: sys, config: c, names: c.names(), json: output == outputJSON, style: styleOf(sys.stdout, sys.environ)}
	if o.aws, err = c.awsConfig(ctx); err != nil {
		return nil, err
	}
	o.aws.Logger = logging.Nop{} // it would write between our lines
	o.aws.APIOptions = append(o.aws.APIOptions, (&waiting{after: 3 * time.Second, note: o.note}).add)
	if o.aws.Region == "" {
		return nil, errNoRegion
	}
	o.queues = queue.New(queue.Config{Client: sqs.NewFromConfig(o.aws), PublishTimeout: callPatience})
	o.tables = table.New(dynamodb.NewFromConfig(o.aws), table.Config{Ownership: c.OwnershipTable, Journal: c.JournalTable})
	o.claims = o.tables.Claims()
	return o, nil
}

var errNoRegion = errors.New("AWS_REGION is missing; set it in the environment or in .env.local")

func (o *operator) close() { o.queues.Close() } //nolint:errcheck // it closes idle connections

// say prints a line for people.
func (o *operator) say(format string, args ...any) error {
	_, err := fmt.Fprintf(o.sys.stdout, format+"\n", args...)
	return err
}

// note tells on stderr what goes on beside the result.
func (o *operator) note(format string, args ...any) {
	fmt.Fprintf(o.sys.stderr, format+"\n", args...) //nolint:errcheck // it is not the result
}

// The values of --output.
const (
	outputText = "text"
	outputJSON = "json"
)

// outputFlag adds --output, which is checked before anything is done.
func outputFlag(cmd *cobra.Command, output *string, what string) {
	cmd.Flags().StringVar(output, "output", outputText, "text, or json: "+what)
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputText, outputJSON}, cobra.ShellCompDirectiveNoFileComp)))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if *output != outputText && *output != outputJSON {
			return fmt.Errorf("--output is %q; text or json", *output)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// needs takes just these arguments.
func needs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("it takes %s, and got %s: %s", strings.Join(names, " and "), counted(len(args), "argument"), strings.TrimSpace(cmd.Example))
		}
		return nil
	}
}

// must is for what only a mistake in this program can make fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// writeJSON prints one JSON value on a line.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// pairFlags are --project and --user.
type pairFlags struct{ project, user string }

func (p *pairFlags) add(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&p.project, "project", "", "projectId"+what)
	cmd.Flags().StringVar(&p.user, "user", "", "userId"+what)
	for _, name := range []string{"project", "user"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
}

// pair is checked; false if neither flag is given.
func (p pairFlags) pair(names protocol.Names) (protocol.Pair, bool, error) {
	switch {
	case p.project == "" && p.user == "":
		return protocol.Pair{}, false, nil
	case p.project == "":
		return protocol.Pair{}, false, errors.New("--user is given without --project; give both")
	case p.user == "":
		return protocol.Pair{}, false, errors.New("--project is given without --user; give both")
	}
	pair := protocol.Pair{ProjectID: p.project, UserID: p.user}
	return pair, true, checkPair(pair, names)
}

func checkPair(p protocol.Pair, names protocol.Names) error {
	if err := p.Validate(); err != nil {
		return err
	}
	return names.Check(p)
}

// depth is how many messages a queue has.
type depth struct {
	Queue    string `json:"queue"`
	Waiting  int    `json:"waiting"`
	InFlight int    `json:"inFlight"` // received, and not yet deleted
	Delayed  int    `json:"delayed,omitempty"`
	Missing  bool   `json:"missing,omitempty"` // there is no such queue
}

func (o *operator) depth(ctx context.Context, topic string) (depth, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	a, err := o.queues.Describe(ctx, topic)
	if errors.Is(err, queue.ErrMissing) {
		return depth{Queue: topic, Missing: true}, nil
	}
	return depth{Queue: a.Name, Waiting: a.Visible, InFlight: a.InFlight, Delayed: a.Delayed}, err
}

// String says it in words.
func (d depth) String() string {
	if d.Missing {
		return "no queue"
	}
	text := fmt.Sprintf("%d waiting", d.Waiting)
	if d.InFlight > 0 {
		text += fmt.Sprintf(", %d in work", d.InFlight)
	}
	if d.Delayed > 0 {
		text += fmt.Sprintf(", %d delayed", d.Delayed)
	}
	return text
}

// row reads a claim, consistently; a zero row if there is none.
func (o *operator) row(ctx context.Context, key string) (claim.Row, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	row, err := o.claims.Get(ctx, key)
	if errors.Is(err, claim.ErrNoRow) {
		return claim.Row{}, nil
	}
	return row, err
}

// alive is how young an owner's last activity is for the orchestrator to believe that
// he lives.
const alive = 5 * time.Minute

// requestClaim asks the workers to take a project, unless the row says that somebody
// has it who will see the work. It comes after the work is in the input queue. It
// reports whether it asked.
func (o *operator) requestClaim(ctx context.Context, p protocol.Pair) (bool, error) {
	row, err := o.row(ctx, p.Key())
	if err != nil {
		return false, err
	}
	if row.Status == claim.Active && time.Since(row.LastActivity) < alive {
		return false, nil
	}
	return true, o.sendRequest(ctx, p)
}

func (o *operator) sendRequest(ctx context.Context, p protocol.Pair) error {
	if o.config.UnclaimedQueueURL == "" {
		return errors.New("UNCLAIMED_QUEUE_URL is missing: workers cannot be asked to take " + p.Key())
	}
	body, err := protocol.ClaimRequest{ProjectID: p.ProjectID, UserID: p.UserID}.Encode()
	if err != nil {
		return err
	}
	return o.publish(ctx, o.config.UnclaimedQueueURL, body)
}

func (o *operator) publish(ctx context.Context, topic string, body []byte) error {
	msg := message.NewMessage(watermill.NewUUID(), body)
	msg.SetContext(ctx)
	return o.queues.Publish(topic, msg) //nolint:contextcheck // the message has it
}

// asker asks for workers on behalf of many messages, and not once for each.
type asker struct {
	*operator
	asked map[protocol.Pair]bool
	after map[protocol.Pair]int // messages since the row was last read
}

func newAsker(o *operator) *asker {
	return &asker{operator: o, asked: map[protocol.Pair]bool{}, after: map[protocol.Pair]int{}}
}

// ask is called after each message. It reports whether workers were asked.
func (a *asker) ask(ctx context.Context, p protocol.Pair) (bool, error) {
	a.after[p]++
	if a.asked[p] {
		return true, nil
	}
	asked, err := a.requestClaim(context.WithoutCancel(ctx), p)
	if err != nil {
		delete(a.after, p) // it was told
		return false, notAsked(p, err)
	}
	a.asked[p], a.after[p] = asked, 0
	return asked, nil
}

// settle is called after the last message, whatever happened: whoever was asked may
// have come and gone.
func (a *asker) settle(ctx context.Context) error {
	var errs []error
	for p, n := range a.after {
		if n == 0 {
			continue
		}
		if _, err := a.requestClaim(context.WithoutCancel(ctx), p); err != nil {
			errs = append(errs, notAsked(p, err))
		}
	}
	return errors.Join(errs...)
}

// notAsked tells what became of work that is in the queue.
func notAsked(p protocol.Pair, err error) error {
	return fmt.Errorf("the work is in the queue, but no worker could be asked to take %s; say `webordinary claims request %s` when this is mended: %w", p.Key(), p.Key(), err)
}

// patternOf matches the names that a pattern of names can give.
func patternOf(pattern string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(pattern)
	for _, id := range []string{"projectId", "userId"} {
		quoted = strings.ReplaceAll(quoted, `\{`+id+`\}`, "[A-Za-z0-9-]+")
	}
	return regexp.MustCompile("^" + quoted + "$")
}
