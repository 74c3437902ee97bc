package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// Command is one instruction that was sent, or will be.
type Command struct {
	Project *Project
	Thread  string
	ID      string
	Session string
	Add     site.Add
	Body    string // the InputMessage

	// Under the platform's lock, set when it is sent:
	Sent time.Time
	// Late says that its delivery was delayed: others may overtake it.
	Late bool
}

// freshness is how young an owner's last activity must be for the orchestrator to
// believe that he lives.
const freshness = 5 * time.Minute

// callTime bounds each call of the orchestrator.
const callTime = 20 * time.Second

// Command makes a command with an id and a token of its own. The token in add is
// replaced.
func (p *Platform) Command(j *Project, thread string, add site.Add) *Command {
	p.mu.Lock()
	p.numbers[j.Key()]++
	n := p.numbers[j.Key()]
	p.mu.Unlock()
	add.Token = fmt.Sprintf("%s-%s-%03d", j.ProjectID, j.UserID, n)
	c := &Command{Project: j, Thread: thread, ID: "c-" + add.Token, Session: "s-" + add.Token, Add: add}
	body, err := json.Marshal(map[string]any{
		"type": "work", "sessionId": c.Session, "projectId": j.ProjectID, "userId": j.UserID, "repoUrl": j.RepoURL,
		"threadId": c.Thread, "commandId": c.ID, "instruction": add.String(), "timestamp": time.Now().UnixMilli(),
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	c.Body = string(body)
	return c
}

// Send sends a command as the orchestrator does: the work first, then, unless the
// row says that somebody lives who will see it, a claim request. A command that is
// sent again is a duplicate.
func (p *Platform) Send(c *Command) { p.SendLate(c, 0) }

// SendLate is Send of a message that SQS delivers only after a delay (of whole
// seconds).
func (p *Platform) SendLate(c *Command, delay time.Duration) {
	p.history.sent(c, delay > 0)
	p.Put(c.Project.InputURL, c.Body, delay)
	p.RequestClaim(c.Project, 0)
}

// SendUnclaimed sends a command by the unclaimed queue: a claim request that
// carries its work.
func (p *Platform) SendUnclaimed(c *Command) {
	p.history.sent(c, true)
	p.Put(p.UnclaimedURL, c.Body, 0)
}

// RequestClaim sends a claim request, delayed, unless the row, as an eventually
// consistent read has it, is active and fresh.
func (p *Platform) RequestClaim(j *Project, delay time.Duration) {
	row, err := p.Row(j)
	if err != nil {
		p.tb.Errorf("read the row of %s: %v", j.Key(), err)
		return
	}
	if row.Status == "active" && time.Since(row.LastActivity) < freshness {
		return
	}
	body, err := json.Marshal(map[string]any{
		"type": "claim_request", "projectId": j.ProjectID, "userId": j.UserID, "queueUrl": j.InputURL, "timestamp": time.Now().UnixMilli(),
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	p.Put(p.UnclaimedURL, string(body), delay)
}

// Interrupt stops what runs for a project, by the interrupts queue.
func (p *Platform) Interrupt(j *Project, reason string) {
	body, err := json.Marshal(map[string]string{"type": "INTERRUPT", "reason": reason})
	if err != nil {
		panic(err) // strings always encode
	}
	p.Put(j.InterruptsURL, string(body), 0)
}

// Put sends a message of any kind to a queue, delayed by whole seconds, or fails
// the test.
func (p *Platform) Put(url, body string, delay time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	_, err := p.sqs.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, DelaySeconds: int32(delay / time.Second)})
	if err != nil {
		p.tb.Errorf("send to %s: %v", url, err)
	}
}

// Row is what the platform reads of a claim; zero if there is none.
type Row struct {
	Status       string
	ContainerID  string
	LastActivity time.Time
	Fence, Rev   int64
}

// Row reads a claim row as the orchestrator does.
func (p *Platform) Row(j *Project) (Row, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	out, err := p.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &p.Table, Key: map[string]dynamodbtypes.AttributeValue{"projectKey": &dynamodbtypes.AttributeValueMemberS{Value: j.Key()}},
	})
	if err != nil {
		return Row{}, err
	}
	return Row{
		Status: text(out.Item["status"]), ContainerID: text(out.Item["containerId"]),
		LastActivity: time.UnixMilli(number(out.Item["lastActivity"])), Fence: number(out.Item["fence"]), Rev: number(out.Item["rev"]),
	}, nil
}

func text(v dynamodbtypes.AttributeValue) string {
	if s, ok := v.(*dynamodbtypes.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

func number(v dynamodbtypes.AttributeValue) int64 {
	s, ok := v.(*dynamodbtypes.AttributeValueMemberN)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s.Value, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Owner returns the worker that a row names, or nil.
func (p *Platform) Owner(j *Project) *Worker {
	row, err := p.Row(j)
	if err != nil || row.ContainerID == "" {
		return nil
	}
	for _, w := range p.Workers() {
		if w.Name == row.ContainerID {
			return w
		}
	}
	return nil
}

// Workers returns those started so far, the ended ones too.
func (p *Platform) Workers() []*Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*Worker{}, p.workers...)
}

// Dead is a message in a dead-letter queue.
type Dead struct {
	Queue      string // its name
	Body       string
	Attributes map[string]string
	CommandID  string // empty if it is no command
}

// TakeDead takes all messages out of the dead-letter queues.
func (p *Platform) TakeDead() []Dead {
	urls := []string{p.unclaimedDLQ}
	for _, j := range p.Projects() {
		urls = append(urls, j.DLQURL)
	}
	var dead []Dead
	for _, url := range urls {
		p.drain(url, func(body string, attributes map[string]string) {
			d := Dead{Queue: queueName(url), Body: body, Attributes: attributes}
			if in, err := protocol.DecodeInput([]byte(body), protocol.Delivery{}); err == nil && in.Command != nil {
				d.CommandID = in.Command.CommandID
			}
			dead = append(dead, d)
		})
	}
	return dead
}

// drain takes messages out of a queue until it has none.
func (p *Platform) drain(url string, take func(body string, attributes map[string]string)) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	for {
		if q, err := p.Queue(url); err == nil && q.Visible == 0 {
			return
		}
		out, err := p.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, // zero is the queue's own
			VisibilityTimeout: 60, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			p.tb.Errorf("receive from %s: %v", url, err)
			return
		}
		if len(out.Messages) == 0 {
			return
		}
		for _, m := range out.Messages {
			take(aws.ToString(m.Body), attributesOf(m))
			if _, err := p.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				p.tb.Errorf("delete from %s: %v", url, err)
			}
		}
	}
}

// PutRow writes a claim row as a worker might have left it that knows nothing of
// ours.
func (p *Platform) PutRow(j *Project, status string, lastActivity time.Time) {
	p.tb.Helper()
	s := func(v string) dynamodbtypes.AttributeValue { return &dynamodbtypes.AttributeValueMemberS{Value: v} }
	n := func(v int64) dynamodbtypes.AttributeValue {
		return &dynamodbtypes.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
	}
	_, err := p.db.PutItem(p.tb.Context(), &dynamodb.PutItemInput{TableName: &p.Table, Item: map[string]dynamodbtypes.AttributeValue{
		"projectKey": s(j.Key()), "containerId": s("somebody"), "status": s(status), "lastActivity": n(lastActivity.UnixMilli()),
		"claimedAt": n(lastActivity.UnixMilli()), "ttl": n(time.Now().Add(time.Hour).Unix()),
	}})
	if err != nil {
		p.tb.Fatal(err)
	}
}
