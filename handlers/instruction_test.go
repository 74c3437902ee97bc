package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

func TestCommandIsCommittedPushedDeployedAndAnswered(t *testing.T) {
	w := newWorld(t)
	w.h.Agent = &agent.Command{Path: "sh", Args: []string{"-eu"}, Runner: w.runner, Env: w.env}
	m := w.message("t-1", "c-1", "echo blue > page.html\n\necho 'It is blue now.'\n")
	out := w.do(m)
	commit := w.head("thread-t-1")
	if out.Timestamp == 0 || out.DeploymentTime == 0 || out.Agent == nil || out.Agent.DurationMs == 0 {
		t.Errorf("answer lacks times: %+v", out)
	}
	out.Timestamp, out.DeploymentTime, out.Agent = 0, 0, nil
	want := protocol.OutputMessage{
		Type: "response", SessionID: "session-1", ProjectID: "amelia", UserID: "scott", CommandID: "c-1",
		Success: true, Summary: "It is blue now.", Branch: "thread-t-1", CommitID: commit,
		FilesChanged: []string{"page.html"}, FilesChangedTotal: 1,
		S3Bucket: "edit.amelia.webordinary.com", S3URL: "https://edit.amelia.webordinary.com", PreviewURL: "https://edit.amelia.webordinary.com",
		BuildSuccess: true, DeploySuccess: true, Attempt: 1,
	}
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
	if w.live() != "blue" {
		t.Errorf("live page %q", w.live())
	}
	wantMessage := "echo blue > page.html\n\necho blue > page.html\n\necho 'It is blue now.'\n\nFiles:\n- page.html\n\n" +
		"Thread-Id: t-1\nSession-Id: session-1\nCommand-Id: c-1\nUser: scott\nFence: " + strconv.FormatInt(w.h.Lease.Fence(), 10)
	if d := cmp.Diff(wantMessage, gitserver.Git(t, w.git.Bare(repoName), "log", "-1", "--format=%B", commit)); d != "" {
		t.Errorf("commit message (-want +got):\n%s", d)
	}
	steps := w.stepped()
	if len(steps) != 7 || cmp.Diff([]string{"workspace", "install", "agent", "commit", "build"}, steps[:5]) != "" {
		t.Errorf("steps %v", steps)
	}
}

// TestWhatIsDeployed runs commands one after the other and looks at what the
// last one made of the bucket.
func TestWhatIsDeployed(t *testing.T) {
	t.Parallel()
	type run struct{ thread, instruction string }
	tests := []struct {
		name  string
		runs  []run
		late  bool // the last command was sent before all others
		want  protocol.OutputMessage
		live  string
		built bool // the last one built
	}{
		{
			"a first command that changes nothing deploys nothing",
			[]run{{"t", "look"}},
			false,
			protocol.OutputMessage{Success: true, Summary: "Did: look\n\nNo files were changed."},
			"", false,
		},
		{
			"a command that changes nothing has what was deployed before",
			[]run{{"t", "page one"}, {"t", "look"}},
			false,
			protocol.OutputMessage{
				Success: true, Summary: "Did: look\n\nNo files were changed.", BuildSuccess: true, DeploySuccess: true,
			},
			"one", false,
		},
		{
			"a failed build is not deployed",
			[]run{{"t", "page one"}, {"t", "page BREAK"}},
			false,
			protocol.OutputMessage{Summary: "Did: page BREAK", ErrorCode: protocol.BuildFailed, FilesChanged: []string{"page.html"}},
			"one", true,
		},
		{
			"a command that changes nothing repeats a failed build",
			[]run{{"t", "page BREAK"}, {"t", "look"}},
			false,
			protocol.OutputMessage{Summary: "Did: look", ErrorCode: protocol.BuildFailed},
			"", true,
		},
		{
			"a command that mends a failed build is deployed",
			[]run{{"t", "page BREAK"}, {"t", "page mended"}},
			false,
			protocol.OutputMessage{
				Success: true, Summary: "Did: page mended", FilesChanged: []string{"page.html"}, BuildSuccess: true, DeploySuccess: true,
			},
			"mended", true,
		},
		{
			"a command that changes nothing deploys its thread",
			[]run{{"a", "page a"}, {"b", "page b"}, {"a", "look"}},
			false,
			protocol.OutputMessage{
				Success: true, Summary: "Did: look\n\nNo files were changed.", BuildSuccess: true, DeploySuccess: true,
			},
			"a", true,
		},
		{
			"an older command does not undo a later one",
			[]run{{"a", "page a"}, {"b", "page b"}},
			true,
			protocol.OutputMessage{
				Success: true, Summary: "Did: page b", FilesChanged: []string{"page.html"}, Superseded: true,
			},
			"a", false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			var got protocol.OutputMessage
			for i, r := range tt.runs {
				m := w.message(r.thread, fmt.Sprint("c-", i), r.instruction)
				if tt.late && i == len(tt.runs)-1 {
					m.Delivery.Sent = m.Delivery.Sent.Add(-time.Hour)
				}
				w.stepped()
				got = w.do(m)
			}
			last := tt.runs[len(tt.runs)-1]
			if (got.Error != "") != (tt.want.ErrorCode != "") || got.Agent == nil || got.Agent.Turns != 2 {
				t.Errorf("answer %+v", got)
			}
			if got.DeploySuccess && (got.DeploymentTime == 0 || got.S3URL != "https://edit.amelia.webordinary.com") {
				t.Errorf("answer does not say where the site is: %+v", got)
			}
			if len(tt.want.FilesChanged) > 0 && got.CommitID != w.head("thread-"+last.thread) {
				t.Error("the work is not on its branch")
			}
			got = protocol.OutputMessage{
				Success: got.Success, Summary: got.Summary, ErrorCode: got.ErrorCode, FilesChanged: got.FilesChanged,
				BuildSuccess: got.BuildSuccess, DeploySuccess: got.DeploySuccess, Superseded: got.Superseded, Interrupted: got.Interrupted,
			}
			if tt.want.FilesChanged == nil {
				tt.want.FilesChanged = []string{}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("answer (-want +got):\n%s", d)
			}
			if w.live() != tt.live {
				t.Errorf("live page %q, want %q", w.live(), tt.live)
			}
			if built := slices.Contains(w.stepped(), "build"); built != tt.built {
				t.Errorf("built %v, want %v", built, tt.built)
			}
		})
	}
}

func TestNoChangeIsNotPushed(t *testing.T) {
	w := newWorld(t)
	out := w.succeed(w.message("t", "c-1", "look"))
	if out.Branch != "thread-t" || out.CommitID != w.head("main") {
		t.Errorf("branch %q at %q, want the branch's head", out.Branch, out.CommitID)
	}
	if slices.ContainsFunc(w.git.Requests(), func(r string) bool { return strings.Contains(r, "receive-pack") }) {
		t.Error("something was pushed")
	}
}

// TestNewThreadDoesNotCarryThePreviousThreadsWork: the replaced system kept one
// checkout, and a new thread began where the one before had ended.
func TestNewThreadDoesNotCarryThePreviousThreadsWork(t *testing.T) {
	w := newWorld(t)
	w.agent.play["add"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{}, write(r, "added.html", "a")
	}
	w.agent.play["fail"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
		return agent.Result{}, errors.Join(write(r, "half.html", "a"), &agent.Error{Code: agent.CodeFailed, Message: "no"})
	}
	w.succeed(w.message("a", "c-1", "add"))
	w.do(w.message("a", "c-2", "fail"))
	out := w.succeed(w.message("b", "c-3", "page b"))
	if d := cmp.Diff([]string{"page.html"}, out.FilesChanged); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"page b"}, w.log("thread-b")); d != "" {
		t.Error("commits of the new thread:", d)
	}
	files := gitserver.Git(t, w.git.Bare(repoName), "ls-tree", "--name-only", "thread-b")
	if strings.Contains(files, "added.html") || strings.Contains(files, "half.html") {
		t.Errorf("the new thread has the files\n%s", files)
	}
	if d := cmp.Diff([]string{"WIP: fail", "add"}, w.log("thread-a")); d != "" {
		t.Error("commits of the first thread:", d)
	}
}

// TestDeployGoesToTheBucketOfTheProject: the replaced system deployed to one
// bucket, whatever the project.
func TestDeployGoesToTheBucketOfTheProject(t *testing.T) {
	w := newWorld(t)
	w.h.Pair = protocol.Pair{ProjectID: "bernard", UserID: "scott"}
	w.h.Lease = w.acquire()
	m := w.message("t", "c-1", "page of bernard")
	m.ProjectID = "bernard"
	out := w.succeed(m)
	if out.S3Bucket != "edit.bernard.webordinary.com" || out.PreviewURL != "https://edit.bernard.webordinary.com" {
		t.Errorf("answer %+v", out)
	}
	buckets, err := os.ReadDir(w.sites)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range buckets {
		names = append(names, b.Name())
	}
	if d := cmp.Diff([]string{"edit.bernard.webordinary.com", "edit.bernard.webordinary.com.meta"}, names); d != "" {
		t.Error("buckets:", d)
	}
}

// TestMessageWithoutTypeIsWork: the replaced system dropped what had no type.
func TestMessageWithoutTypeIsWork(t *testing.T) {
	w := newWorld(t)
	body, err := json.Marshal(map[string]string{
		"sessionId": "s", "threadId": "t", "projectId": "amelia", "userId": "scott", "instruction": "page typeless", "repoUrl": w.url,
	})
	if err != nil {
		t.Fatal(err)
	}
	in, err := protocol.DecodeInput(body, protocol.Delivery{MessageID: "m-1", Sent: w.sent})
	if err != nil || in.Command == nil {
		t.Fatalf("decoded %+v, %v", in, err)
	}
	if out := w.succeed(*in.Command); out.CommandID != "sqs-m-1" || w.live() != "typeless" {
		t.Errorf("answer %+v, live page %q", out, w.live())
	}
}

// TestSecretsAreRedacted: what the agent says may hold a secret it has seen.
func TestSecretsAreRedacted(t *testing.T) {
	w := newWorld(t)
	w.h.Redact = func(s string) string { return strings.ReplaceAll(s, "hunter2", "[redacted]") }
	w.agent.play["tell"] = func(context.Context, agent.Request) (agent.Result, error) {
		return agent.Result{Summary: "It is hunter2."}, nil
	}
	w.agent.play["fail"] = func(context.Context, agent.Request) (agent.Result, error) {
		return agent.Result{}, &agent.Error{Code: agent.CodeFailed, Message: "hunter2 was refused."}
	}
	if out := w.do(w.message("t", "c-1", "tell")); !strings.HasPrefix(out.Summary, "It is [redacted].") {
		t.Errorf("summary %q", out.Summary)
	}
	if out := w.do(w.message("t", "c-2", "fail")); out.Error != "[redacted] was refused." {
		t.Errorf("error %q", out.Error)
	}
}

// TestForbiddenFilesAreNamed: what must not be committed is said in the summary,
// also if there was nothing else.
func TestForbiddenFilesAreNamed(t *testing.T) {
	t.Parallel()
	for _, also := range []bool{false, true} {
		t.Run(fmt.Sprint("beside another change: ", also), func(t *testing.T) {
			w := newWorld(t)
			w.agent.play["automate"] = func(_ context.Context, r agent.Request) (agent.Result, error) {
				err := write(r, ".github/workflows/x.yml", "on: push")
				if also {
					err = errors.Join(err, write(r, "page.html", "other"))
				}
				return agent.Result{Summary: "Done."}, err
			}
			out := w.succeed(w.message("t", "c-1", "automate"))
			if !strings.Contains(out.Summary, ".github/workflows/x.yml") || slices.Contains(out.FilesChanged, ".github/workflows/x.yml") {
				t.Errorf("answer %+v", out)
			}
		})
	}
}

// TestLockFileBelongsToTheCommit: what installing writes is no commit of its
// own, and the answer has every file that the command changed.
func TestLockFileBelongsToTheCommit(t *testing.T) {
	w := newWorld(t)
	w.git.Commit(t, repoName, "main", "no lock file", map[string]string{"package-lock.json": ""})
	out := w.succeed(w.message("t", "c-1", "page locked"))
	if d := cmp.Diff([]string{"package-lock.json", "page.html"}, out.FilesChanged); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"page locked"}, w.log("thread-t")); d != "" {
		t.Error(d)
	}
	if out.CommitID != w.head("thread-t") {
		t.Error("the answer names another commit")
	}
}
