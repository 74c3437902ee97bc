package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// TestLogsReadsCloudWatch from a service that has one line; cmd/webordinary tests the
// rest of it.
func TestLogsReadsCloudWatch(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	service := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		rw.Write([]byte(`{"events":[{"eventId":"1","timestamp":1,"message":"{\"level\":\"INFO\",\"msg\":\"one line\"}"}]}`)) //nolint:errcheck // the client may be gone
	}))
	t.Cleanup(service.Close)
	w.env = append(w.env, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+calls.Proxy(t, service.URL))
	if out := w.well("logs"); line(out, "one line") == "" {
		t.Errorf("logs prints\n%s", out)
	}
}

// ofNoMessage are the lines that a worker writes about no message.
var ofNoMessage = []string{
	"wall around agent and npm", "configuration", "worker started", "Subscribing to queue", "gate closed",
}

// TestOneIDFindsAllLinesOfACommand, which came by the unclaimed queue with an id of its
// sender's, and which the queue keeps badly: it does not extend it, nor delete it at
// first, so that it comes again.
func TestOneIDFindsAllLinesOfACommand(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true, Visibility: 3 * time.Second, Idle: time.Minute})
	queue := before(t, w.Set.SQS, w.refuseOnce("DeleteMessage", "ChangeMessageVisibility"))
	worker := w.StartWorker("AWS_ENDPOINT_URL_SQS="+queue, "MAX_CLAIMS=2")
	c := w.Command(w.j, "t1", site.Add{Work: 2 * time.Second})
	w.sendAs("mail-7", c.Body)
	w.sendAs("mail-8", "no message")
	w.await("the command comes again, and the other is given up", func() bool {
		return strings.Count(worker.Log(), `"handler":"instruction"`) == 2 && strings.Count(worker.Log(), `"handler":"claim"`) == 2
	})

	log := worker.Log()
	file := w.file(log)
	found := w.well("logs", file, "--command", "mail-7", "--output", "json")
	for _, words := range []string{"message not kept invisible", "message not deleted", "project claimed", `"step":"agent"`, "message handled", "message sent"} {
		if line(found, words) == "" {
			t.Errorf("no line with %q about the command in\n%s", words, log)
		}
	}
	unreadable := w.well("logs", file, "--command", "mail-8", "--output", "json")
	for text := range strings.Lines(log) {
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		_, sweep := l["sweeps"]
		if sweep || slices.Contains(ofNoMessage, l["msg"].(string)) || strings.Contains(unreadable, text) && l["message_id"] != "" {
			continue
		}
		if !strings.Contains(found, text) || l["project_key"] != "amelia#scott" || l["command_id"] != c.ID {
			t.Errorf("a line about the command without its ids: %s", text)
		}
	}
}

// sendAs sends a message to the unclaimed queue with a correlation id.
func (w *world) sendAs(id, body string) {
	w.t.Helper()
	_, err := w.sqs.SendMessage(w.t.Context(), &sqs.SendMessageInput{
		QueueUrl: &w.UnclaimedURL, MessageBody: &body, MessageAttributes: map[string]types.MessageAttributeValue{
			"correlation_id": {DataType: aws.String("String"), StringValue: &id},
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// refuseOnce refuses the first call of each operation on the input queue.
func (w *world) refuseOnce(operations ...string) func(http.ResponseWriter, *http.Request) bool {
	refused := make([]atomic.Bool, len(operations))
	return func(rw http.ResponseWriter, r *http.Request) bool {
		i := slices.Index(operations, strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."))
		if i < 0 {
			return false
		}
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err != nil || !bytes.Contains(body, []byte(w.Names.Input(w.j.Pair))) || refused[i].Swap(true) {
			return false
		}
		rw.Header().Set("Content-Type", "application/x-amz-json-1.0")
		rw.WriteHeader(http.StatusForbidden)
		rw.Write([]byte(`{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"not now"}`)) //nolint:errcheck // the client may be gone
		return true
	}
}
