package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// add is an instruction that the scripted agent carries out.
func add(token string) string { return site.Add{Token: token}.String() }

func (w *world) send(args ...string) []string {
	return append([]string{"send", "--project", "amelia", "--user", "scott", "--repo", w.j.RepoURL}, args...)
}

func TestSendFollowsToTheAnswer(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	w.StartWorker()
	other := `{"type":"response","commandId":"c-of-somebody-else","success":true}`
	for range 3 {
		w.Put(w.j.OutputURL, other, 0)
	}

	out := w.well(w.send("--thread", "t1", "--follow", "--command", "c-1", add("one"))...)
	for _, words := range [][]string{{"done", "c-1"}, {"summary", "Added one."}, {"branch", "thread-t1"}, {"site", "https://"}} {
		if line(out, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, out)
		}
	}

	failed := w.run(w.send("--thread", "t1", "--follow", "not an instruction of the agent")...)
	if failed.code != 1 || line(failed.stdout, "failed", "agent_failed") == "" {
		t.Errorf("a failure ends with %d and says\n%s%s", failed.code, failed.stdout, failed.stderr)
	}
	if strings.Contains(failed.stderr, "webordinary:") {
		t.Errorf("the failure is reported twice: %s", failed.stderr)
	}

	// For a program: the OutputMessage, and it alone.
	o := w.run(w.send("--thread", "t2", "--follow", "--output", "json", add("two"))...)
	var answer protocol.OutputMessage
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil || strings.Count(o.stdout, "\n") != 1 || !answer.Success || answer.Branch != "thread-t2" {
		t.Errorf("stdout is %q, %v", o.stdout, err)
	}
	if line(o.stderr, "sent", answer.CommandID) == "" {
		t.Errorf("stderr is %q", o.stderr)
	}

	// What is not ours can be received at once, was not moved away by SQS, and nothing
	// else is left.
	w.has(w.j.OutputURL, 3)
	w.has(w.j.DLQURL, 0)
	for _, m := range w.take(w.j.OutputURL) {
		if *m.Body != other {
			t.Errorf("left in the output queue: %s", *m.Body)
		}
	}
}

func TestSendFollowsWhereAnotherTakesTheAnswer(t *testing.T) {
	w := newWorld(t, platform.Options{}) // the platform's own consumer reads the queue
	w.StartWorker()
	o := w.run(w.send("--thread", "t1", "--follow", add("one"))...)
	if o.code != 0 || line(o.stdout, "summary", "Added one.") == "" || line(o.stderr, "committed") == "" {
		t.Errorf("it ended with %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

func TestSendShowsProgress(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	progress := w.Set.CreateQueue(t, w.Names.Progress(w.j.Pair), "")
	w.StartWorker()
	event := func(id, tool string) string {
		return fmt.Sprintf(`{"type":"progress","commandId":%q,"step":"agent","tool":%q,"text":"src/Header.astro","timestamp":%d}`, id, tool, time.Now().Add(time.Minute).UnixMilli()) // newer than the worker's own
	}
	w.Put(progress, event("c-1", "Edit"), 0)
	w.Put(progress, event("c-2", "Read"), 0)
	o := w.run(w.send("--thread", "t1", "--command", "c-1", "--follow", site.Add{Token: "one", Work: 3 * time.Second}.String())...)
	if o.code != 0 || line(o.stderr, "agent", "Edit", "src/Header.astro") == "" || strings.Contains(o.stderr, "Read") {
		t.Errorf("it ended with %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	for _, m := range w.take(progress) {
		if strings.Contains(*m.Body, "c-2") {
			return
		}
	}
	t.Error("the progress of another command is gone")
}

func TestSendSendsBatches(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	batch := strings.Join([]string{
		`{"commandId":"c-1","threadId":"t1","instruction":"` + add("one") + `"}`,
		``,
		`{"commandId":"c-2","chatThreadId":"t2","text":"` + add("two") + `","unknown":{"stays":true}}`,
		`{"commandId":"c-3","threadId":"t1","instruction":"` + add("three") + `","type":"work"}`,
	}, "\n")

	// What is wrong is named with its line, and nothing is sent.
	wrong := w.run(w.send("--file", w.file(batch+"\n{\"threadId\":\"t1\"}\nno json\n"+`{"commandId":"c-1","threadId":"t1","instruction":"again"}`), "--output", "json")...)
	for _, words := range [][]string{{"nothing was sent"}, {"line 5", "instruction is missing"}, {"line 6", "not a message"}, {"line 7", "line 1"}} {
		if line(wrong.stderr, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, wrong.stderr)
		}
	}
	if wrong.code != 1 || wrong.stdout != "" {
		t.Errorf("a wrong batch ended with %d and printed %q", wrong.code, wrong.stdout)
	}
	w.has(w.j.InputURL, 0)
	w.has(w.UnclaimedURL, 0)

	// Without --follow, what was sent is told.
	sent := w.well(w.send("--file", w.file(batch), "--output", "json")...)
	if n := strings.Count(sent, "\n"); n != 3 || !strings.Contains(line(sent, "c-2"), `"threadId":"t2"`) || !strings.Contains(line(sent, "c-1"), `"claimRequested":true`) {
		t.Errorf("%d lines:\n%s", n, sent)
	}
	bodies := ""
	for _, m := range w.take(w.j.InputURL) {
		bodies += *m.Body
	}
	if !strings.Contains(bodies, `"unknown":{"stays":true}`) || !strings.Contains(bodies, `"sessionId":"cli-`) {
		t.Errorf("sent %s", bodies)
	}

	// With it, each answer is a line, and one failure is a failure.
	w.StartWorker()
	o := w.runWith(batch+`
{"commandId":"c-4","threadId":"t1","instruction":"what the agent cannot do"}`, nil, w.send("--follow", "--output", "json")...)
	answered := map[string]bool{}
	for l := range strings.Lines(o.stdout) {
		var answer protocol.OutputMessage
		if err := json.Unmarshal([]byte(l), &answer); err != nil {
			t.Errorf("%q is no answer: %v", l, err)
		}
		answered[answer.CommandID] = answer.Success
	}
	want := map[string]bool{"c-1": true, "c-2": true, "c-3": true, "c-4": false}
	if o.code != 1 || fmt.Sprint(answered) != fmt.Sprint(want) {
		t.Errorf("it ended with %d, answers %v\n%s", o.code, answered, o.stderr)
	}
	w.has(w.j.OutputURL, 0)
}

func TestSendAsksForAWorkerIfNobodyHasTheProject(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	for _, tt := range []struct {
		name     string
		row      func()
		requests int
	}{
		{"no row", func() {}, 1},
		{"active and fresh", func() { w.PutRow(w.j, "active", time.Now()) }, 0},
		{"active and old", func() { w.PutRow(w.j, "active", time.Now().Add(-6*time.Minute)) }, 1},
		{"released", func() { w.PutRow(w.j, "released", time.Now()) }, 1},
	} {
		tt.row()
		w.well(w.send("--thread", "t1", add("one"))...)
		if n := len(w.take(w.UnclaimedURL)); n != tt.requests {
			t.Errorf("%s: %d claim requests, want %d", tt.name, n, tt.requests)
		}
	}
	w.has(w.j.InputURL, 4)
}

func TestSendSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	w.fails("has no input queue", "send", "--project", "nobody", "--user", "scott", "--thread", "t1", "x")
	w.fails("say --follow too", w.send("--thread", "t1", "--timeout", "1s", add("one"))...)
	w.fails("not one of", "send", "--project", "amelia", "--user", "scott", "--thread", "t1", "--repo", "https://example.com/a.git", "x")
	o := w.fails("not all is answered within 1s", w.send("--thread", "t1", "--command", "c-1", "--follow", "--timeout", "1s", add("one"))...)
	if !strings.Contains(o.stderr, "unanswered: c-1") {
		t.Error(o.stderr)
	}
}
