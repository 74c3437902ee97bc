package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// dead is a letter as `dlq list` prints it for programs.
type dead struct {
	ID, Queue, CommandID, ThreadID, Reason, From, Attempts, Body string
}

func (w *world) dead() []dead {
	w.t.Helper()
	var all []dead
	w.read(&all, "dlq", "list", "--project", "amelia", "--user", "scott")
	return all
}

// kill sends a command whose repository is not there, and waits for its answer.
func (w *world) kill(id string) {
	w.t.Helper()
	o := w.run("send", "--project", "amelia", "--user", "scott", "--thread", "t1", "--command", id,
		"--repo", w.Git.URL+"/later.git", "--follow", "--output", "json", add(id))
	if o.code != 1 || !strings.Contains(o.stdout, `"errorCode":"repo_unreachable"`) {
		w.t.Fatalf("send ended with %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

func TestDLQIsReadAndSentBack(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	w.StartWorker("GITHUB_TOKEN="+gitserver.Token, "ALLOWED_REPO_HOSTS="+w.Git.Host)
	if out := w.well("dlq", "list"); !strings.HasPrefix(out, "No dead letters") {
		t.Error(out)
	}
	if o := w.run("dlq", "redrive", "--all", "--output", "json"); o.code != 0 || o.stdout != "" || o.stderr != "No dead letters; nothing was sent.\n" {
		t.Errorf("with nothing to send back it ended with %d: %q, %q", o.code, o.stdout, o.stderr)
	}
	w.kill("c-1")
	w.Put(w.j.DLQURL, "no message at all", 0)
	w.Put(w.url(w.Names.UnclaimedDLQ), `{"type":"claim_request"}`, 0)

	// Looked at as often as one likes, all is there, for all, at once.
	for range 5 {
		if all := w.dead(); len(all) != 2 {
			t.Fatalf("dead letters %+v", all)
		}
		w.has(w.j.DLQURL, 2)
	}
	list := w.well("dlq", "list")
	for _, words := range [][]string{
		{"amelia#scott", "c-1", "repo_unreachable: ", "knows no such repository"},
		{"SQS moved it", "not a message"},
		{w.Names.UnclaimedDLQ, "SQS moved it"},
	} {
		if line(list, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, list)
		}
	}
	show := w.well("dlq", "show", "c-1")
	for _, words := range [][]string{{"from", w.Names.Input(w.j.Pair)}, {"tries", "1"}, {"thread", "t1"}, {"body", add("c-1")}} {
		if line(show, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, show)
		}
	}
	w.fails(`no dead letter "c-9"`, "dlq", "show", "c-9")
	w.fails("no such queue", "dlq", "list", "--project", "nobody", "--user", "scott")

	// The cause is mended: the command runs again, and is answered once more.
	w.Git.Create(t, "later.git", site.Files())
	o := w.run("dlq", "redrive", "c-1", "--output", "json")
	var one struct{ To, Error string }
	if err := json.Unmarshal([]byte(o.stdout), &one); err != nil || o.code != 0 || one.To != w.Names.Input(w.j.Pair) || one.Error != "" {
		t.Errorf("redrive ended with %d and printed %q", o.code, o.stdout)
	}
	answer := w.answer()
	if !answer.Success || answer.Attempt != 2 || answer.CommandID != "c-1" {
		t.Errorf("answer %+v", answer)
	}
	if all := w.dead(); len(all) != 1 {
		t.Errorf("dead letters %+v", all)
	}

	// Where nobody knows where one came from, it stays.
	kept := w.fails("1 of 2 dead letters could not be sent back", "dlq", "redrive", "--all")
	if line(kept.stdout, "kept", "say --to") == "" || line(kept.stdout, "sent", "unclaimed") == "" {
		t.Errorf("redrive prints\n%s", kept.stdout)
	}
	w.has(w.j.DLQURL, 1)
	w.well("dlq", "redrive", "--all", "--project", "amelia", "--user", "scott", "--to", w.Names.Output(w.j.Pair))
	w.has(w.j.DLQURL, 0)
	w.has(w.j.OutputURL, 1)
}

// answer waits for the one message of the output queue, and takes it.
func (w *world) answer() protocol.OutputMessage {
	w.t.Helper()
	w.await("an answer", func() bool {
		q, err := w.Queue(w.j.OutputURL)
		return err == nil && q.Visible > 0
	})
	var out protocol.OutputMessage
	all := w.take(w.j.OutputURL)
	if err := json.Unmarshal([]byte(*all[0].Body), &out); err != nil || len(all) != 1 {
		w.t.Fatalf("%d answers, %v", len(all), err)
	}
	return out
}

// TestRedriveKilledHalfway ends the program between sending and deleting: the letter is
// in both queues, and the command is carried out once.
func TestRedriveKilledHalfway(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	worker := w.StartWorker("GITHUB_TOKEN="+gitserver.Token, "ALLOWED_REPO_HOSTS="+w.Git.Host)
	w.kill("c-1")
	w.kill("c-2")
	w.Git.Create(t, "later.git", site.Files())
	worker.Terminate()
	worker.Exit(patience)
	w.take(w.UnclaimedURL)

	deleting := make(chan struct{}, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "dlq", "redrive", "--all")
	cmd.Env = append(append([]string{}, w.env...), "AWS_ENDPOINT_URL_SQS="+stall(t, w.Set.SQS, "AmazonSQS.DeleteMessage", deleting))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-deleting
	cancel()
	cmd.Wait() //nolint:errcheck // it was killed

	w.has(w.j.InputURL, 1)
	w.await("the letters are visible again", func() bool { return len(w.dead()) == 2 })
	w.StartWorker("GITHUB_TOKEN="+gitserver.Token, "ALLOWED_REPO_HOSTS="+w.Git.Host)
	w.well("dlq", "redrive", "--all")
	w.await("all is answered, and done", func() bool {
		in, err := w.Queue(w.j.InputURL)
		out, oerr := w.Queue(w.j.OutputURL)
		return err == nil && oerr == nil && in == platform.Queue{} && out.Visible >= 2
	})
	platform.Wait(time.Second)
	for _, m := range w.take(w.j.OutputURL) {
		var out protocol.OutputMessage
		if err := json.Unmarshal([]byte(*m.Body), &out); err != nil || !out.Success || out.Attempt != 2 {
			t.Errorf("answer %s", *m.Body)
		}
	}
	runs := map[string]int{}
	for _, r := range w.Runs() {
		if r.Kind == "agent" && r.Event == "start" {
			runs[r.Token]++
		}
	}
	if runs["c-1"] != 1 || runs["c-2"] != 1 {
		t.Errorf("the agent ran %v", runs)
	}
	w.has(w.j.DLQURL, 0)
}

// stall is a proxy in which one operation never ends, and says so.
func stall(t *testing.T, emulator, target string, tell chan<- struct{}) string {
	t.Helper()
	end := make(chan struct{})
	url := before(t, emulator, func(_ http.ResponseWriter, r *http.Request) bool {
		stalled := r.Header.Get("X-Amz-Target") == target
		if stalled {
			tell <- struct{}{}
			<-end
		}
		return stalled
	})
	t.Cleanup(func() { close(end) }) // before the server is closed
	return url
}
