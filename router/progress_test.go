package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

const progressTopic = "webordinary-progress-amelia-scott"

// countingQueues are queues in memory that count the looks for one.
type countingQueues struct {
	*Memory
	looks   int
	lookErr error
	hang    bool // Publish gives no answer
}

func (q *countingQueues) Exists(ctx context.Context, topic string) (bool, error) {
	q.looks++
	if q.lookErr != nil {
		return false, q.lookErr
	}
	return q.Memory.Exists(ctx, topic)
}

func (q *countingQueues) Publish(topic string, messages ...*message.Message) error {
	if q.hang {
		<-messages[0].Context().Done()
		return context.Cause(messages[0].Context())
	}
	return q.Memory.Publish(topic, messages...)
}

// followed is a tenure whose progress is told, in a bubble whose time is not real.
type followed struct {
	t      *testing.T
	queues *countingQueues
	tenure *tenure
	log    strings.Builder
	at     []time.Duration // since the beginning, when an event came
	got    []protocol.Progress
	began  time.Time
}

func follow(t *testing.T, listen bool, test func(f *followed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &followed{t: t, queues: &countingQueues{Memory: NewMemory(MemoryConfig{})}, began: time.Now()}
		lease, err := (&claim.Claims{Table: &claim.Memory{}}).Acquire(t.Context(), "amelia#scott")
		if err != nil {
			t.Fatal(err)
		}
		r := &Router{config: Config{Queues: f.queues, Log: slog.New(slog.NewJSONHandler(&f.log, nil))}}
		f.tenure = &tenure{r: r, pair: protocol.Pair{ProjectID: "amelia", UserID: "scott"}, lease: lease}
		f.tenure.progress = &progress{t: f.tenure}
		if listen {
			f.listen()
		}
		test(f)
		lease.Abandon()
		if err := f.queues.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (f *followed) listen() {
	messages, err := f.queues.Subscriber(nil, nil).Subscribe(context.WithoutCancel(f.t.Context()), progressTopic)
	if err != nil {
		f.t.Fatal(err)
	}
	go func() {
		for m := range messages {
			var p protocol.Progress
			if err := json.Unmarshal(m.Payload, &p); err != nil {
				f.t.Error(err)
			}
			f.at, f.got = append(f.at, time.Since(f.began)), append(f.got, p)
			m.Ack()
		}
	}()
}

func (f *followed) begin(id string) func() {
	return f.tenure.progress.begin(f.t.Context(), protocol.InputMessage{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t-1", SessionID: "s-1", CommandID: id, Instruction: "secret plans",
	})
}

func (f *followed) step(name string) {
	f.tenure.told(handlers.Step{CommandID: "c-1", Name: name, Text: "doing " + name})
}

func (f *followed) tool(tool, file string) {
	f.tenure.told(handlers.Step{CommandID: "c-1", Name: "agent", Tool: tool, Text: "secret " + file, Files: []string{file}})
}

// lines are the events in short. A queue keeps no order: those of one moment are
// told apart by their numbers.
func (f *followed) lines() []string {
	synctest.Wait()
	var all []string
	order := make([]int, len(f.got))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if f.at[a] != f.at[b] {
			return int(f.at[a] - f.at[b])
		}
		return int(f.got[a].Sequence - f.got[b].Sequence)
	})
	for _, i := range order {
		p := f.got[i]
		all = append(all, strings.TrimSpace(fmt.Sprintf("%v %d %s %s %v", f.at[i].Round(100*time.Millisecond), p.Sequence, p.Step, p.Tool, p.Files)))
	}
	return all
}

// TestProgressIsToldOnceASecond: the newest use of a tool wins, and no step is lost.
func TestProgressIsToldOnceASecond(t *testing.T) {
	follow(t, true, func(f *followed) {
		end := f.begin("c-1")
		f.step("workspace")
		<-time.After(10 * time.Millisecond)
		f.step("agent")
		for i := range 30 { // three seconds
			f.tool("Edit", fmt.Sprintf("%d.txt", i%3))
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(5 * time.Second)
		f.tenure.told(handlers.Step{CommandID: "c-1", Name: "commit", Files: []string{"0.txt", "other.txt"}})
		f.step("build")
		<-time.After(1100 * time.Millisecond)
		f.step("deploy")
		f.step("push")
		f.tenure.told(handlers.Step{CommandID: "c-2", Name: "workspace"}) // of another command
		end()
		f.step("late")
		want := []string{
			"0s 1 workspace  []", "1s 2 agent Edit [0.txt 1.txt 2.txt]", "2s 3 agent Edit [0.txt 1.txt 2.txt]", "3s 4 agent Edit [0.txt 1.txt 2.txt]",
			"8s 5 commit  [0.txt other.txt]", "9s 6 build  [0.txt other.txt]",
			"9.1s 7 deploy  [0.txt other.txt]", "9.1s 8 push  [0.txt other.txt]",
		}
		if d := cmp.Diff(want, f.lines()); d != "" {
			t.Error(d)
		}
		if p := f.got[0]; p.Type != "progress" || p.ThreadID != "t-1" || p.SessionID != "s-1" || p.ProjectID != "amelia" || p.Text != "doing workspace" || p.Timestamp != f.began.UnixMilli() {
			t.Errorf("event %+v", p)
		}
		if f.queues.looks != 1 {
			t.Errorf("looked %d times for the queue", f.queues.looks)
		}
		if log := f.log.String(); strings.Contains(log, "secret") || strings.Count(log, `"msg":"step"`) != 6 || strings.Count(log, `"msg":"tool"`) != 3 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestProgressGoesOnWhenACommandRunsAgain and begins anew with another one.
func TestProgressGoesOnWhenACommandRunsAgain(t *testing.T) {
	follow(t, true, func(f *followed) {
		for range 2 {
			end := f.begin("c-1")
			f.step("workspace")
			end()
			<-time.After(time.Second)
		}
		end := f.begin("c-2")
		f.tenure.told(handlers.Step{CommandID: "c-2", Name: "workspace"})
		end()
		if d := cmp.Diff([]string{"0s 1 workspace  []", "1s 2 workspace  []", "2s 1 workspace  []"}, f.lines()); d != "" {
			t.Error(d)
		}
	})
}

// TestProgressWithoutAQueue is no error, and costs one look in a tenure.
func TestProgressWithoutAQueue(t *testing.T) {
	follow(t, false, func(f *followed) {
		for range 3 {
			end := f.begin("c-1")
			f.step("workspace")
			end()
		}
		if f.queues.looks != 1 || f.queues.Waiting(progressTopic) != 0 {
			t.Errorf("%d looks, %d events", f.queues.looks, f.queues.Waiting(progressTopic))
		}
		if log := f.log.String(); strings.Contains(log, "WARN") || strings.Contains(log, "ERROR") {
			t.Errorf("log:\n%s", log)
		}
		f.tenure.r.config.CreateProgress = true
		end := f.begin("c-1")
		f.step("workspace")
		end()
		if f.queues.Waiting(progressTopic) != 1 {
			t.Error("no event where queues are made")
		}
	})
}

// TestProgressDoesNotHoldUp a command whose queue does not answer.
func TestProgressDoesNotHoldUp(t *testing.T) {
	follow(t, true, func(f *followed) {
		f.queues.hang = true
		began := time.Now()
		end := f.begin("c-1")
		for range 1000 {
			f.step("workspace")
			f.tool("Edit", "a.txt")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("telling took %v", took)
		}
		end()
		if took := time.Since(began); took > progressEnd {
			t.Errorf("the command was held up for %v", took)
		}
		f.queues.hang, f.queues.lookErr = false, errors.New("SQS is down")
		f.tenure.progress.looked = false
		end = f.begin("c-1")
		f.step("workspace")
		end()
		f.queues.lookErr = nil
		end = f.begin("c-1")
		f.step("agent")
		end()
		synctest.Wait()
		if d := cmp.Diff([]string{"agent"}, steps(f.got[max(0, len(f.got)-1):])); d != "" {
			t.Error(d, f.lines())
		}
	})
}

// TestProgressEndsWithTheLease: nothing is published for what is somebody else's.
func TestProgressEndsWithTheLease(t *testing.T) {
	follow(t, true, func(f *followed) {
		end := f.begin("c-1")
		f.step("workspace")
		<-time.After(time.Millisecond)
		f.step("agent")
		f.tenure.lease.Abandon()
		<-time.After(time.Minute) // trust ends
		f.step("commit")
		end()
		synctest.Wait()
		if got := steps(f.got); slices.Contains(got, "commit") {
			t.Errorf("events %v", got)
		}
	})
}

func steps(all []protocol.Progress) []string {
	var names []string
	for _, p := range all {
		names = append(names, p.Step)
	}
	return names
}
