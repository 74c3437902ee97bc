package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

// footer adds a paragraph to every page.
func footer(text string) Turn {
	return Bash(`printf '<p>` + text + `</p>\n' >> src/components/Footer.astro`)
}

func TestEditAndDeploy(t *testing.T) {
	w := newWorld(t)
	w.model.Play("blue", Bash(`sed -i 's/#7a3b1d/#1d4ed8/' src/components/Header.astro`), Say("The header is blue now."))
	p := w.start(t)
	out := p.do(w.message("t-1", "c-1", "Make the header blue\n\nas the sky is."))
	p.finish()
	commit := w.head(t, "thread-t-1")
	if out.Timestamp == 0 || out.Agent == nil || out.Agent.Turns == 0 || out.Agent.CostUSD == 0 || out.Agent.DurationMs == 0 || out.Agent.Model == "" {
		t.Errorf("answer lacks what the agent did: %+v", out)
	}
	if out.DeploymentTime == 0 {
		t.Error("answer lacks the time of the deploy")
	}
	out.Timestamp, out.DeploymentTime, out.Agent = 0, 0, nil
	want := protocol.OutputMessage{
		Type: "response", SessionID: "session-1", ProjectID: "amelia", UserID: "scott", CommandID: "c-1",
		Success: true, Summary: "The header is blue now.", Branch: "thread-t-1", CommitID: commit,
		FilesChanged: []string{"src/components/Header.astro"}, FilesChangedTotal: 1,
		S3Bucket: "edit.amelia.webordinary.com", S3URL: "https://edit.amelia.webordinary.com", PreviewURL: "https://edit.amelia.webordinary.com",
		BuildSuccess: true, DeploySuccess: true, Attempt: 1,
	}
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
	if !strings.Contains(w.page(), "Bakery") {
		t.Error("the site is not live")
	}
	if d := cmp.Diff([]string{"Make the header blue"}, w.log(t, "thread-t-1")); d != "" {
		t.Error(d)
	}
	body := w.commitMessage(t, commit)
	for _, part := range []string{
		"as the sky is.", "Thread-Id: t-1", "Session-Id: session-1", "Command-Id: c-1", "User: scott", "src/components/Header.astro",
		"WebOrdinary <noreply@webordinary.com>",
	} {
		if !strings.Contains(body, part) {
			t.Errorf("commit message lacks %q:\n%s", part, body)
		}
	}
}

func TestTwoCommandsAccumulate(t *testing.T) {
	w := newWorld(t)
	w.model.Play("first", footer("one"), Say("Done one."))
	w.model.Play("second", footer("two"), Say("Done two."))
	p := w.start(t)
	first, second := p.do(w.message("t-1", "c-1", "first")), p.do(w.message("t-1", "c-2", "second"))
	p.finish()
	if !first.Success || !second.Success {
		t.Fatalf("answers %+v, %+v", first, second)
	}
	if d := cmp.Diff([]string{"second", "first"}, w.log(t, "thread-t-1")); d != "" {
		t.Error(d)
	}
	if page := w.page(); !strings.Contains(page, ">one</p>") || !strings.Contains(page, ">two</p>") {
		t.Error("the live page lacks one of the changes")
	}
	if !w.sawConversation("second", "Done one.") {
		t.Error("the second command did not continue the conversation of the first")
	}
}

func TestThreadsStayIsolated(t *testing.T) {
	w := newWorld(t)
	w.model.Play("a-one", footer("a-one"), Say("Done a-one."))
	w.model.Play("b-one", footer("b-one"), Say("Done b-one."))
	w.model.Play("a-two", footer("a-two"), Say("Done a-two."))
	p := w.start(t)
	for _, m := range []map[string]any{w.message("a", "c-1", "a-one"), w.message("b", "c-2", "b-one"), w.message("a", "c-3", "a-two")} {
		if out := p.do(m); !out.Success {
			t.Fatalf("answer %+v", out)
		}
	}
	p.finish()
	if d := cmp.Diff([]string{"a-two", "a-one"}, w.log(t, "thread-a")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"b-one"}, w.log(t, "thread-b")); d != "" {
		t.Error("a new thread carries the previous thread's work:", d)
	}
	page := w.page()
	if !strings.Contains(page, "a-one") || !strings.Contains(page, "a-two") || strings.Contains(page, "b-one") {
		t.Error("the live page is not that of thread a")
	}
	if w.sawConversation("b-one", "Done a-one.") || !w.sawConversation("a-two", "Done a-one.") || w.sawConversation("a-two", "Done b-one.") {
		t.Error("conversations are mixed")
	}
}

func TestNoChange(t *testing.T) {
	w := newWorld(t)
	w.model.Play("look", Say("There is nothing to do."))
	p := w.start(t)
	out := p.do(w.message("t-1", "c-1", "look around"))
	p.finish()
	if !out.Success || len(out.FilesChanged) != 0 || !strings.Contains(out.Summary, "No files were changed.") {
		t.Errorf("answer %+v", out)
	}
	if out.Branch != "thread-t-1" || out.CommitID != w.head(t, "main") {
		t.Errorf("branch %q at %q, want the branch's head", out.Branch, out.CommitID)
	}
	if w.page() != "" {
		t.Error("a first command that changes nothing was deployed")
	}
	if slices.ContainsFunc(w.git.Requests(), func(r string) bool { return strings.Contains(r, "receive-pack") }) {
		t.Error("something was pushed")
	}
}

func TestFailingBuildThenAFix(t *testing.T) {
	w := newWorld(t)
	w.model.Play("break", Bash(`printf '<p>{ nope( </p>\n' >> src/components/Footer.astro`), Say("Broken."))
	w.model.Play("mend", Bash(`sed -i '$d' src/components/Footer.astro`), footer("mended"), Say("Mended."))
	p := w.start(t)
	out := p.do(w.message("t-1", "c-1", "break it"))
	if out.Success || out.ErrorCode != protocol.BuildFailed || out.BuildSuccess || out.DeploySuccess || out.Interrupted {
		t.Errorf("answer %+v", out)
	}
	if lines := strings.Count(out.Error, "\n") + 1; !strings.Contains(out.Error, "Footer.astro") || lines > 12 || strings.Contains(out.Error, w.dir) {
		t.Errorf("the error is not for a person:\n%s", out.Error)
	}
	if out.CommitID != w.head(t, "thread-t-1") || w.page() != "" {
		t.Error("want the work on its branch and nothing deployed")
	}
	out = p.do(w.message("t-1", "c-2", "mend it"))
	p.finish()
	if !out.Success || !out.BuildSuccess || !out.DeploySuccess || !strings.Contains(w.page(), "mended") {
		t.Errorf("answer %+v", out)
	}
}

func TestRefusedMessages(t *testing.T) {
	w := coldWorld(t)
	with := func(key string, value any) map[string]any {
		m := w.message("t-1", "c-"+key, "refuse")
		if m[key] = value; value == nil {
			delete(m, key)
		}
		return m
	}
	tests := []struct {
		name    string
		message map[string]any
		want    protocol.ErrorCode
	}{
		{"empty instruction", with("instruction", ""), protocol.InvalidMessage},
		{"another host", with("repoUrl", "https://example.com/x.git"), protocol.RepoNotAllowed},
		{"file of another place", with("repoUrl", "ssh://github.com/x.git"), protocol.RepoNotAllowed},
		{"no repository", with("repoUrl", nil), protocol.RepoMissing},
		{"no such repository", with("repoUrl", w.git.URL+"/none.git"), protocol.RepoUnreachable},
	}
	p := w.start(t, "MAX_ATTEMPTS=1")
	for i, tt := range tests {
		tt.message["commandId"] = tt.name
		if out := p.do(tt.message); out.Success || out.ErrorCode != tt.want || out.Error == "" {
			t.Errorf("%d %s: answer %+v, want %s", i, tt.name, out, tt.want)
		}
	}
	p.send("this is not JSON", `{"projectId":"../..","userId":"x","instruction":"escape"}`)
	p.finish() // nobody can be answered
	if n := strings.Count(p.said(), "dead "); n < len(tests)+2 {
		t.Errorf("%d messages in dead-letter queues, want %d:\n%s", n, len(tests)+2, p.said())
	}
	if n := len(w.model.Requests()); n > 0 {
		t.Errorf("%d model calls for refused messages", n)
	}
}

func (w *world) sawConversation(script, text string) bool {
	return slices.ContainsFunc(w.model.Requests(), func(r Request) bool { return r.Script == script && r.Says(text) })
}
