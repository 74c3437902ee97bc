package bench

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

const claims = 10

// BenchmarkClaim sends claim requests for projects that nobody has and in whose queue
// a command waits, to a worker that is there already; in turn with them it makes the
// calls by hand that this needs.
func BenchmarkClaim(b *testing.B) {
	o := defaults()
	p := platform.New(b, o)
	env := append(straight(p.Set), fmt.Sprintf("MAX_CLAIMS=%d", claims+2)) // it polls on
	w := p.StartWorker(env...)
	hand := &byHand{b: b, sqs: p.Set.SQSClient(b), db: p.Set.DynamoDBClient(b), table: p.Table, queue: emulators.Unique(b, "bare")}
	hand.input, hand.unclaimed = p.Set.CreateQueue(b, hand.queue, ""), p.Set.CreateQueue(b, hand.queue+"-unclaimed", "")
	var handler, agent, bare []time.Duration
	for i := range claims + 1 {
		j := p.AddProject(fmt.Sprintf("p%d", i), "scott")
		c := p.Command(j, "1", site.Add{})
		hand.send(j.InputURL, c.Body)
		sent := time.Now()
		hand.send(p.UnclaimedURL, requestOf(j))
		p.AwaitAnswers(patience, c)
		toHandler, toAgent := firstStep(b, w, c).Sub(sent), agents(p, c)[0].At.Sub(sent)
		byHand := hand.claim(fmt.Sprintf("bare%d#scott", i))
		if i == 0 {
			continue // it opens the connections
		}
		handler, agent, bare = append(handler, toHandler), append(agent, toAgent), append(bare, byHand)
	}
	b.Logf("to the handler %v\nto the agent %v\nby hand %v", handler, agent, bare)
	runs := fmt.Sprintf("%d projects", claims)
	results.set(claimHandler, row{
		spread(handler, time.Millisecond, 0),
		fmt.Sprintf("**%.1f×** the bare calls' %s", float64(median(handler))/float64(median(bare)), spread(bare, time.Millisecond, 0)), runs,
	})
	results.set(claimAgent, row{spread(agent, time.Millisecond, 0), "with the clone and the start of the processes", runs})
}

func requestOf(j *platform.Project) string {
	body, err := json.Marshal(map[string]any{"type": "claim_request", "projectId": j.ProjectID, "userId": j.UserID, "queueUrl": j.InputURL})
	if err != nil {
		panic(err) // strings always encode
	}
	return string(body)
}

// firstStep is when the worker logged the first step of a command: its entry in the
// journal is written then.
func firstStep(b *testing.B, w *platform.Worker, c *platform.Command) time.Time {
	b.Helper()
	for line := range strings.Lines(w.Log()) {
		var step struct {
			Time      time.Time `json:"time"`
			Msg       string    `json:"msg"`
			CommandID string    `json:"command_id"`
		}
		if err := json.Unmarshal([]byte(line), &step); err == nil && step.Msg == "step" && step.CommandID == c.ID {
			return step.Time
		}
	}
	b.Fatalf("worker %s logged no step of %s", w.Name, c.ID)
	return time.Time{}
}

// byHand makes the round trips that a claim cannot do without, one after the other.
type byHand struct {
	b                *testing.B
	sqs              *sqs.Client
	db               *dynamodb.Client
	table            string
	queue            string // the input queue's name
	input, unclaimed string // URLs
}

func (h *byHand) send(url, body string) {
	h.b.Helper()
	_, err := h.sqs.SendMessage(h.b.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	h.ok(err)
}

func (h *byHand) ok(err error) {
	h.b.Helper()
	if err != nil {
		h.b.Fatal(err)
	}
}

// receive takes one message and leaves it invisible for long enough.
func (h *byHand) receive(url string) error {
	out, err := h.sqs.ReceiveMessage(h.b.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, WaitTimeSeconds: 5, VisibilityTimeout: 600, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"SentTimestamp", "ApproximateReceiveCount"},
	})
	if err == nil && len(out.Messages) != 1 {
		err = fmt.Errorf("%d messages in %s", len(out.Messages), url)
	}
	return err
}

// claim returns how long it takes: a request is sent to somebody who polls for it,
// the row is read and taken, the input queue found and received from, the command
// looked up in the journal and entered.
func (h *byHand) claim(key string) time.Duration {
	h.b.Helper()
	ctx := h.b.Context()
	h.send(h.input, strings.Repeat("work", 100))
	polled := make(chan error, 1)
	go func() { polled <- h.receive(h.unclaimed) }()
	platform.Wait(200 * time.Millisecond) // the poll is there
	start := time.Now()
	h.send(h.unclaimed, `{"type":"claim_request"}`)
	h.ok(<-polled)
	s := func(v string) ddbtypes.AttributeValue { return &ddbtypes.AttributeValueMemberS{Value: v} }
	row, entry := map[string]ddbtypes.AttributeValue{"projectKey": s(key)}, map[string]ddbtypes.AttributeValue{"projectKey": s("cmd#" + key)}
	_, err := h.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &h.table, Key: row, ConsistentRead: aws.Bool(true)})
	h.ok(err)
	_, err = h.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &h.table, Key: row, UpdateExpression: aws.String("SET fence = :one"), ConditionExpression: aws.String("attribute_not_exists(fence)"),
		ExpressionAttributeValues: map[string]ddbtypes.AttributeValue{":one": s("1")},
	})
	h.ok(err)
	_, err = h.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &h.queue})
	h.ok(err)
	h.ok(h.receive(h.input))
	_, err = h.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &h.table, Key: entry, ConsistentRead: aws.Bool(true)})
	h.ok(err)
	entry["body"] = s(strings.Repeat("draft", 100))
	_, err = h.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []ddbtypes.TransactWriteItem{
		{Put: &ddbtypes.Put{TableName: &h.table, Item: entry}},
		{ConditionCheck: &ddbtypes.ConditionCheck{
			TableName: &h.table, Key: row, ConditionExpression: aws.String("fence = :one"),
			ExpressionAttributeValues: map[string]ddbtypes.AttributeValue{":one": s("1")},
		}},
	}})
	h.ok(err)
	return time.Since(start)
}
