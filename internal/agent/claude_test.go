package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

// cli is the real Claude Code CLI, as make setup installs it.
func cli(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../.tools/npm/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("the Claude Code CLI is not installed: run make setup")
	}
	return path
}

// fixture is a place to work in, with an agent whose calls go through a real
// gateway to a scripted model.
type fixture struct {
	model  *modelserver.Server
	claude *Claude
	root   string
}

const upstreamKey = "sk-ant-upstream"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{model: modelserver.Start(t), root: t.TempDir()}
	f.claude = &Claude{
		Path: cli(t), Runner: processtest.Runner(t), Env: processtest.Env(t), MaxTurns: 20,
		Model: through(t, f.model.URL(), gateway.Config{}),
	}
	if err := os.MkdirAll(filepath.Join(f.root, "site"), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

// through opens gateways to a model.
func through(t *testing.T, upstream string, c gateway.Config) func(context.Context, int64) (ModelSession, error) {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	return sessions(u, c)
}

func sessions(upstream *url.URL, c gateway.Config) func(context.Context, int64) (ModelSession, error) {
	c.Upstream, c.Signer = upstream, gateway.APIKey(upstreamKey)
	g := gateway.New(c)
	return func(ctx context.Context, maxTokens int64) (ModelSession, error) {
		j, err := g.Open(ctx, maxTokens)
		if err != nil {
			return ModelSession{}, err
		}
		s := ModelSession{Proxy: j.Address, ProxyEnv: j.Env(), BaseURL: j.URL, Token: j.Token, Pause: j.Pause, Tokens: j.Tokens, Close: j.Close}
		if c.Bedrock {
			s.BedrockRegion = "eu-central-1"
		}
		return s, nil
	}
}

func (f *fixture) request(instruction string) Request {
	return Request{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t1", Instruction: instruction, Pair: "amelia#scott",
		Site: filepath.Join(f.root, "site"), Job: filepath.Join(f.root, "job"), Conversations: filepath.Join(f.root, "conversations"),
	}
}

func (f *fixture) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.root, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) transcript(generation int) string {
	return filepath.Join("conversations", ConversationID("amelia", "scott", "t1", generation), transcriptFile)
}

func TestClaudeEdits(t *testing.T) {
	f := newFixture(t)
	f.write(t, "site/index.html", "<h1>red</h1>")
	f.write(t, "site/CLAUDE.md", "Headings are h1.")
	f.model.Play("make it blue",
		modelserver.Use("Read", modelserver.Input{"file_path": filepath.Join(f.root, "site/index.html")}),
		modelserver.Use("Edit", modelserver.Input{"file_path": "index.html", "old_string": "red", "new_string": "blue"}),
		modelserver.Bash("env > env.txt; cat index.html"),
		modelserver.Say("It is \x1b[1mblue\x1b[0m now."))
	var events []Event
	r := f.request("make it blue")
	r.Progress = func(e Event) { events = append(events, e) }
	r.Notes = []string{"Tread lightly."}
	got, err := f.claude.Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{
		Summary: "It is blue now.", Turns: 4, CostUSD: got.CostUSD, Model: got.Model, Duration: got.Duration,
		SessionID: ConversationID("amelia", "scott", "t1", 0), Tokens: 4 * 120,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.CostUSD <= 0 || got.Model == "" || got.Duration <= 0 {
		t.Errorf("result %+v", got)
	}
	if page := f.read(t, "site/index.html"); page != "<h1>blue</h1>" {
		t.Errorf("page %q", page)
	}
	if d := cmp.Diff([]Event{{Tool: "Read", Detail: "index.html"}, {Tool: "Edit", Detail: "index.html", File: "index.html"}, {Tool: "Bash", Detail: "env > env.txt; cat index.html"}}, events); d != "" {
		t.Error(d)
	}
	first := f.model.Requests()[0]
	for _, part := range []string{"Note: Tread lightly.", "Headings are h1.", "The instruction:\nmake it blue"} {
		if !first.Says(part) {
			t.Errorf("the prompt does not say %q", part)
		}
	}
	if first.Says("Co-Authored-By") {
		t.Error("it is told how to sign commits, which are not its business")
	}
	if first.Header.Get("X-Api-Key") != upstreamKey {
		t.Error("the gateway did not sign")
	}
	if env := f.read(t, "site/env.txt"); strings.Contains(env, upstreamKey) || !strings.Contains(env, "HOME="+f.root+"/job/home") {
		t.Errorf("environment of Bash: %s", env)
	}
}

func TestClaudeContinuesTheConversation(t *testing.T) {
	f := newFixture(t)
	f.model.Play("first thing", modelserver.Bash("echo forty-two"), modelserver.Say("first done"))
	f.model.Play("second thing", modelserver.Say("second done"))
	first, err := f.claude.Run(t.Context(), f.request("first thing"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.root, "job")); err != nil { // as before each job
		t.Fatal(err)
	}
	f.model.Forget()
	f.claude.Model = through(t, f.model.URL(), gateway.Config{})
	second, err := f.claude.Run(t.Context(), f.request("second thing"))
	if err != nil {
		t.Fatal(err)
	}
	if first.Resumed || !second.Resumed || first.SessionID != second.SessionID {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if second.Turns != 1 || second.CostUSD >= first.CostUSD {
		t.Errorf("the second run's turns and cost are not its own: %+v after %+v", second, first)
	}
	req := f.model.Requests()[0]
	for _, part := range []string{"first thing", "forty-two", "first done", "second thing"} {
		if !req.Says(part) {
			t.Errorf("the second run's first request does not hold %q", part)
		}
	}

	other := f.request("second thing")
	other.ThreadID = "t2"
	f.model.Forget()
	if _, err := f.claude.Run(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if f.model.Requests()[0].Says("forty-two") {
		t.Error("another thread knows this one's conversation")
	}
}

var errNewer = errors.New("a newer message came")

func TestClaudeInterrupted(t *testing.T) {
	gate := modelserver.NewGate()
	tests := map[string][]modelserver.Turn{
		"thinking":       {modelserver.Bash("echo forty-two"), modelserver.Say("never").Behind(gate)},
		"a tool running": {modelserver.Bash("echo forty-two"), modelserver.Bash("sleep 1000")},
	}
	for name, turns := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.model.Play("first", turns...)
			f.model.Play("second", modelserver.Say("done"))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			r := f.request("first")
			if name == "thinking" {
				go func() { <-gate.Reached(); cancel(errNewer) }()
			} else {
				r.Progress = func(e Event) {
					if strings.Contains(e.Detail, "sleep") {
						cancel(errNewer)
					}
				}
			}
			_, err := f.claude.Run(ctx, r)
			if !errors.Is(err, errNewer) {
				t.Fatalf("got %v", err)
			}
			if _, failed := errors.AsType[*Error](err); failed {
				t.Fatalf("an interruption is no failure: %v", err)
			}

			if err := Remember(f.request("").Conversations, "amelia", "scott", "t1", "The previous instruction was cut off."); err != nil {
				t.Fatal(err)
			}
			f.model.Forget()
			got, err := f.claude.Run(t.Context(), f.request("second"))
			if err != nil || !got.Resumed {
				t.Fatalf("got %+v, %v", got, err)
			}
			req := f.model.Requests()[0]
			for _, part := range []string{"first", "forty-two", "Note: The previous instruction was cut off.", "second"} {
				if !req.Says(part) {
					t.Errorf("the newer run's request does not hold %q", part)
				}
			}
			f.model.Forget()
			if _, err := f.claude.Run(t.Context(), f.request("second again")); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(f.model.Requests()[0].Last(), "cut off") {
				t.Error("the note is given twice")
			}
		})
	}
}

// TestClaudeRunsAgain is a run that crashed: the same instruction, the
// conversation still in the job's directory.
func TestClaudeRunsAgain(t *testing.T) {
	f := newFixture(t)
	f.model.Play("thing", modelserver.Bash("echo forty-two"), modelserver.Say("done"))
	if _, err := f.claude.Run(t.Context(), f.request("thing")); err != nil {
		t.Fatal(err)
	}
	id := ConversationID("amelia", "scott", "t1", 0)
	home := filepath.Join(f.root, f.transcript(0))
	lent := filepath.Join(f.root, "job", lentDir, id+".jsonl")
	if err := os.Rename(home, lent); err != nil {
		t.Fatal(err)
	}
	f.write(t, "conversations/"+runningFile, id)
	f.model.Forget()
	got, err := f.claude.Run(t.Context(), f.request("thing"))
	if err != nil || !got.Resumed || got.Summary != "done" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !f.model.Requests()[0].Says("forty-two") {
		t.Error("the conversation is lost")
	}
}

func TestClaudeIgnoresTheRepositorysSettings(t *testing.T) {
	f := newFixture(t)
	f.model.Play("thing", modelserver.Bash("true"), modelserver.Say("done"))
	hook := filepath.Join(f.root, "hooked")
	settings := map[string]any{
		"env": map[string]string{"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"},
		"hooks": map[string]any{"PreToolUse": []any{map[string]any{
			"matcher": "*", "hooks": []any{map[string]string{"type": "command", "command": "touch " + hook}},
		}}},
	}
	b, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(f.root, "site/.claude"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write(t, "site/.claude/settings.json", string(b))
	f.write(t, "site/.claude/settings.local.json", string(b))
	f.write(t, "site/.mcp.json", `{"mcpServers":{"x":{"command":"touch","args":["`+hook+`"]}}}`)
	if _, err := f.claude.Run(t.Context(), f.request("thing")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(hook); err == nil {
		t.Error("the repository's hook ran")
	}
}

// TestClaudeInstructionIsText holds texts that the CLI would take for more.
func TestClaudeInstructionIsText(t *testing.T) {
	f := newFixture(t)
	f.write(t, "secret.txt", "forty-two")
	for _, instruction := range []string{"/help", "@" + f.root + "/secret.txt what is it?", "--version", "$(touch x) `touch x` 'quoted\"", "!touch x", "# remember"} {
		f.model.Play(instruction, modelserver.Say("done"))
		f.model.Forget()
		if _, err := f.claude.Run(t.Context(), f.request(instruction)); err != nil {
			t.Fatalf("%q: %v", instruction, err)
		}
		last := f.model.Requests()[0].Last()
		if !strings.Contains(last, "The instruction:\n"+instruction) || strings.Contains(last, "forty-two") {
			t.Errorf("%q became %q", instruction, last)
		}
	}
	if _, err := os.Stat(filepath.Join(f.root, "site/x")); err == nil {
		t.Error("a part of an instruction was run")
	}
}

// TestClaudeLargeInstruction is larger than an argument of a program may be, and its
// answer than the worker keeps.
func TestClaudeLargeInstruction(t *testing.T) {
	f := newFixture(t)
	f.model.Play("the end of it", modelserver.Bash("head -c 3000000 /dev/zero | tr '\\0' x"), modelserver.Say(strings.Repeat("y", 3<<20)))
	got, err := f.claude.Run(t.Context(), f.request(strings.Repeat("much text ", 20000)+"the end of it"))
	if err != nil || len(got.Summary) != maxText {
		t.Errorf("%d bytes, %v", len(got.Summary), err)
	}
}

// TestClaudeBoundsBash checks that a command does not outlast the time that the
// model may be silent, and that its end is the model's to deal with.
func TestClaudeBoundsBash(t *testing.T) {
	f := newFixture(t)
	f.claude.Idle = 5 * time.Second // the CLI's start is in it
	f.model.Play("thing", modelserver.Bash("sleep 1000"), modelserver.Say("done"))
	if got, err := f.claude.Run(t.Context(), f.request("thing")); err != nil || got.Summary != "done" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !f.model.Requests()[1].Says("timed out") {
		t.Errorf("the model was told %q", f.model.Requests()[1].Last())
	}
}

// TestAccessIsThePairs: the workspace says whose the agent is, and not the ids.
func TestAccessIsThePairs(t *testing.T) {
	r := Request{ProjectID: "amelia", UserID: "scott", Pair: "amelia#scott~1"}
	if got := r.access("").Pair; got != r.Pair {
		t.Errorf("the agent is of %s, want %s", got, r.Pair)
	}
}
