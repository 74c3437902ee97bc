package emulators_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

// queues is a queue with its dead-letter queue.
type queues struct {
	client      *sqs.Client
	input, dead string // URLs
}

func newQueues(t *testing.T) queues {
	t.Helper()
	s := emulators.Shared(t)
	deadName := emulators.Unique(t, "dead")
	dead := s.CreateQueue(t, deadName, "")
	return queues{client: s.SQSClient(t), input: s.CreateQueue(t, emulators.Unique(t, "input"), deadName), dead: dead}
}

func (q queues) send(t *testing.T, url, body string, attributes map[string]types.MessageAttributeValue) {
	t.Helper()
	if _, err := q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, MessageAttributes: attributes}); err != nil {
		t.Fatal(err)
	}
}

// receive receives one message within wait seconds, or fails the test.
func (q queues) receive(t *testing.T, url string, wait, visibility int32) types.Message {
	t.Helper()
	out, err := q.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, WaitTimeSeconds: wait, VisibilityTimeout: visibility, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Messages) != 1 {
		t.Fatalf("received %d messages, want 1", len(out.Messages))
	}
	return out.Messages[0]
}

func TestQueueHasThePlatformsAttributes(t *testing.T) {
	q := newQueues(t)
	if !strings.HasPrefix(q.input, emulators.Shared(t).SQS+"/") {
		t.Errorf("the queue's URL is %s", q.input)
	}
	out, err := q.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.input, AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	dead, err := q.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.dead, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range []string{"VisibilityTimeout", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "RedrivePolicy"} {
		got[name] = out.Attributes[name]
	}
	want := map[string]string{
		"VisibilityTimeout": "300", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20",
		"RedrivePolicy": `{"deadLetterTargetArn":"` + dead.Attributes["QueueArn"] + `","maxReceiveCount":3}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestQueueKeepsBodiesAndAttributes(t *testing.T) {
	q := newQueues(t)
	const body = "Mach den Kopf blau 🎨 👩‍👩‍👧 𝔘"
	q.send(t, q.input, body, map[string]types.MessageAttributeValue{
		"commandId": {DataType: aws.String("String"), StringValue: aws.String("c-1 🎨")},
		"raw":       {DataType: aws.String("Binary"), BinaryValue: []byte{0, 1, 255}},
	})
	m := q.receive(t, q.input, 1, 30)
	if *m.Body != body || *m.MessageAttributes["commandId"].StringValue != "c-1 🎨" || !cmp.Equal(m.MessageAttributes["raw"].BinaryValue, []byte{0, 1, 255}) {
		t.Errorf("received %q with %v", *m.Body, m.MessageAttributes)
	}
	if m.Attributes["ApproximateReceiveCount"] != "1" || m.Attributes["SentTimestamp"] == "" {
		t.Errorf("system attributes %v", m.Attributes)
	}
}

func TestQueueRefusesControlCharacters(t *testing.T) {
	q := newQueues(t)
	_, err := q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.input, MessageBody: aws.String("\x01")})
	if invalid := new(types.InvalidMessageContents); !errors.As(err, &invalid) {
		t.Errorf("a control character: %v, want InvalidMessageContents", err)
	}
}

func TestHungUpLongPollSwallowsNothing(t *testing.T) {
	q := newQueues(t)
	for round := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q.input, WaitTimeSeconds: 20}); err == nil {
			t.Fatalf("received %v from an empty queue", out.Messages)
		}
		cancel()
		body := strconv.Itoa(round)
		q.send(t, q.input, body, nil)
		m := q.receive(t, q.input, 1, 300)
		if *m.Body != body || m.Attributes["ApproximateReceiveCount"] != "1" {
			t.Fatalf("round %d: received %q, receive count %s", round, *m.Body, m.Attributes["ApproximateReceiveCount"])
		}
	}
}

func TestLongPollReceivesWhatIsSentMeanwhile(t *testing.T) {
	q := newQueues(t)
	began, sent := time.Now(), make(chan error, 1)
	timer := time.AfterFunc(300*time.Millisecond, func() {
		_, err := q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.input, MessageBody: aws.String("late")})
		sent <- err
	})
	defer timer.Stop()
	if m := q.receive(t, q.input, 10, 30); *m.Body != "late" {
		t.Errorf("received %q", *m.Body)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// fail receives a message as often as the redrive policy allows, each time
// handing it back at once.
func (q queues) fail(t *testing.T) {
	t.Helper()
	for n := range 3 {
		m := q.receive(t, q.input, 1, 300)
		if got := m.Attributes["ApproximateReceiveCount"]; got != strconv.Itoa(n+1) {
			t.Fatalf("receive %d has count %s", n+1, got)
		}
		if _, err := q.client.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.input, ReceiptHandle: m.ReceiptHandle}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := q.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q.input, WaitTimeSeconds: 1})
	if err != nil || len(out.Messages) != 0 {
		t.Fatalf("the fourth receive: %v, %v", out, err)
	}
}

func TestThirdReceiveIsTheLast(t *testing.T) {
	q := newQueues(t)
	q.send(t, q.input, "poison", nil)
	q.fail(t)
	if m := q.receive(t, q.dead, 1, 30); *m.Body != "poison" {
		t.Errorf("the dead letter is %q", *m.Body)
	}
}

func TestMoveTaskBringsDeadLettersBackToTheirQueue(t *testing.T) {
	s, deadName := emulators.Shared(t), emulators.Unique(t, "dead")
	q := queues{client: s.SQSClient(t), dead: s.CreateQueue(t, deadName, "")}
	s.CreateQueue(t, emulators.Unique(t, "other"), deadName) // the first that names the dead-letter queue
	q.input = s.CreateQueue(t, emulators.Unique(t, "input"), deadName)
	q.send(t, q.input, "poison", nil)
	q.fail(t)

	dead, err := q.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.dead, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	arn := dead.Attributes["QueueArn"]
	task, err := q.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn})
	if err != nil {
		t.Fatal(err)
	}
	if m := q.receive(t, q.input, 1, 30); *m.Body != "poison" || m.Attributes["ApproximateReceiveCount"] != "1" {
		t.Errorf("back came %q with count %s", *m.Body, m.Attributes["ApproximateReceiveCount"])
	}
	list, err := q.client.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: &arn})
	if err != nil || len(list.Results) != 1 || list.Results[0].ApproximateNumberOfMessagesMoved != 1 || aws.ToString(task.TaskHandle) == "" {
		t.Errorf("tasks %+v, %v", list, err)
	}
}

func TestMoveTaskOnlyFromADeadLetterQueue(t *testing.T) {
	q := newQueues(t)
	out, err := q.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.input, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	arn := out.Attributes["QueueArn"]
	if _, err := q.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn}); err == nil {
		t.Error("a queue that is no dead-letter queue was moved")
	}
	_, err = q.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(arn + "-not")})
	if missing := new(types.ResourceNotFoundException); !errors.As(err, &missing) {
		t.Errorf("a queue that is not there: %v", err)
	}
}
