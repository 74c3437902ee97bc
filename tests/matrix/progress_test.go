package matrix

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/metric/metrictest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// progressTold: where there is a progress queue, each step is in it before the answer
// comes, and what the worker measures on its standard output is what the table has.
func progressTold(t *testing.T) {
	w := newWorld(t, platform.Options{})
	queue := w.Set.CreateQueue(t, w.Names.Progress(w.j.Pair), w.Names.DLQ(w.j.Pair))
	worker := w.StartWorker()
	c := w.Command(w.j, "1", site.Add{Build: 2 * time.Second})
	w.well(c)
	answered := time.Now()

	client, steps, last := w.Set.SQSClient(t), []string{}, int64(0)
	events := map[int64]protocol.Progress{}
	w.await(patience, "all steps are in the progress queue", func() bool {
		out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Messages {
			var e protocol.Progress
			if err := json.Unmarshal([]byte(aws.ToString(m.Body)), &e); err != nil {
				t.Fatal(err)
			}
			if e.CommandID != c.ID || e.ProjectID != "amelia" || e.UserID != "scott" || aws.ToString(m.MessageAttributes["commandId"].StringValue) != c.ID {
				t.Errorf("event %+v", e)
			}
			events[e.Sequence] = e
			last = max(last, e.Sequence)
		}
		return len(out.Messages) == 0
	})
	for n := int64(1); n <= last; n++ {
		e, ok := events[n]
		if !ok {
			t.Errorf("event %d of %d is missing", n, last)
		}
		if at := time.UnixMilli(e.Timestamp); at.After(answered) {
			t.Errorf("event %d is of %v, and the answer came at %v", n, at, answered)
		}
		if len(steps) == 0 || steps[len(steps)-1] != e.Step {
			steps = append(steps, e.Step)
		}
	}
	slices.Sort(steps) // deploy and push go on side by side
	if d := cmp.Diff([]string{"agent", "build", "commit", "deploy", "install", "push", "workspace"}, steps); d != "" {
		t.Error(d)
	}
	if e := events[last]; !slices.Contains(e.Files, site.Content) || e.FilesTotal == 0 {
		t.Errorf("the last event holds the files %v", e.Files)
	}
	all := metrictest.Read(t, worker.Log())
	if n := metrictest.Sum(all, metric.Commands, metric.Outcome, metric.Success, "command_id", c.ID); n != 1 {
		t.Errorf("%v commands were measured", n)
	}
}
