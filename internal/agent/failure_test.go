package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

// failureTest is one way in which the agent's step fails.
type failureTest struct {
	turns     []modelserver.Turn
	script    string // instead of the CLI, a shell script
	configure func(*Claude)
	code      string
	transient bool
	after     time.Duration // RetryAfter
	says      string        // part of the message
	within    time.Duration // how soon it must be known
	requests  int           // how often the model may be asked at most
}

func errorTurn(status int, kind string) []modelserver.Turn {
	return []modelserver.Turn{modelserver.Fail(status, kind, "as the service words it")}
}

func faultTurn(f modelserver.Fault) []modelserver.Turn {
	return []modelserver.Turn{modelserver.Break(f)}
}

const tooLong = "prompt is too long: 250000 tokens > 200000 maximum"

// modelFailures are those the model's service causes.
func modelFailures() map[string]failureTest {
	impatient := func(c *Claude) { c.Idle = 2 * time.Second }
	return map[string]failureTest{
		"400": {turns: errorTurn(400, "invalid_request_error"), code: CodeFailed, says: "as the service words it", within: 10 * time.Second, requests: 10},
		"401": {turns: errorTurn(401, "authentication_error"), code: CodeModelAuth, transient: true, within: 10 * time.Second, requests: 3},
		"403": {turns: errorTurn(403, "permission_error"), code: CodeModelAuth, transient: true, within: 10 * time.Second, requests: 3},
		"404": {turns: errorTurn(404, "not_found_error"), code: CodeFailed, within: 10 * time.Second, requests: 10},
		"413": {turns: errorTurn(413, "request_too_large"), code: CodePromptTooLong, within: 10 * time.Second, requests: 3},
		"429": {turns: errorTurn(429, "rate_limit_error"), code: CodeModelOverloaded, transient: true, within: 10 * time.Second, requests: 3},
		"429, a short pause": {
			turns: []modelserver.Turn{modelserver.Fail(429, "rate_limit_error", "slow down").With("Retry-After", "1")},
			code:  CodeModelOverloaded, transient: true, after: time.Second, within: 15 * time.Second, requests: 3,
		},
		"429, a long pause": {
			turns: []modelserver.Turn{modelserver.Fail(429, "rate_limit_error", "slow down").With("Retry-After", "90")},
			code:  CodeModelOverloaded, transient: true, after: 90 * time.Second, within: 10 * time.Second, requests: 1,
		},
		"429, a very long pause": {
			turns: []modelserver.Turn{modelserver.Fail(429, "rate_limit_error", "slow down").With("Retry-After", "7200")},
			code:  CodeModelOverloaded, transient: true, after: 2 * time.Hour, within: 10 * time.Second, requests: 3,
		},
		"500":     {turns: errorTurn(500, "api_error"), code: CodeModelOverloaded, transient: true, within: 10 * time.Second, requests: 3},
		"529":     {turns: errorTurn(529, "overloaded_error"), code: CodeModelOverloaded, transient: true, within: 10 * time.Second, requests: 3},
		"refusal": {turns: []modelserver.Turn{modelserver.Refuse(), modelserver.Refuse(), modelserver.Refuse()}, code: CodeRefused, within: 10 * time.Second, requests: 3},
		"prompt too long": {
			turns: []modelserver.Turn{modelserver.Fail(400, "invalid_request_error", tooLong)},
			code:  CodePromptTooLong, within: 10 * time.Second, requests: 5,
		},
		"credit exhausted": {
			turns: []modelserver.Turn{modelserver.Fail(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.")},
			code:  CodeModelCredit, transient: true, within: 10 * time.Second, requests: 3,
		},
		"credit exhausted, 402": {turns: errorTurn(402, "billing_error"), code: CodeModelCredit, transient: true, within: 10 * time.Second, requests: 3},
		"answers cut by their length": {
			turns: slices.Repeat([]modelserver.Turn{{Text: "and so on", StopReason: "max_tokens"}}, 10),
			code:  CodeFailed, says: "output token maximum", within: 10 * time.Second, requests: 10,
		},
		"no answer":    {turns: faultTurn(modelserver.Silence), configure: impatient, code: CodeStalled, says: "2s", within: 10 * time.Second, requests: 1},
		"stream hangs": {turns: faultTurn(modelserver.Hang), configure: impatient, code: CodeStalled, within: 10 * time.Second, requests: 1},
		"only pings":   {turns: faultTurn(modelserver.Pings), configure: impatient, code: CodeStalled, within: 10 * time.Second, requests: 1},
		"stream cut":   {turns: faultTurn(modelserver.Cut), code: CodeModelOverloaded, transient: true, within: 15 * time.Second, requests: 6},
		"garbage":      {turns: faultTurn(modelserver.Garbage), code: CodeModelOverloaded, transient: true, within: 15 * time.Second, requests: 6},
	}
}

// agentFailures are those of the CLI and of our limits.
func agentFailures() map[string]failureTest {
	bash := modelserver.Bash("true")
	costly := modelserver.Bash("true")
	costly.OutputTokens = 10_000_000
	return map[string]failureTest{
		"turn limit": {
			turns: []modelserver.Turn{bash, bash, bash, bash}, configure: func(c *Claude) { c.MaxTurns = 2 },
			code: CodeTurnLimit, within: 10 * time.Second, requests: 3,
		},
		"cost limit": {
			turns: []modelserver.Turn{costly, costly, costly}, configure: func(c *Claude) { c.MaxCostUSD = 1 },
			code: CodeCostLimit, within: 10 * time.Second, requests: 1,
		},
		"timeout": {
			turns: []modelserver.Turn{modelserver.Bash("sleep 1000")}, configure: func(c *Claude) { c.Timeout = 3 * time.Second },
			code: CodeTimeout, says: "3s", within: 10 * time.Second, requests: 1,
		},
		"CLI missing": {
			configure: func(c *Claude) { c.Path = "/nowhere/claude" },
			code:      CodeMissing, transient: true, within: 5 * time.Second,
		},
		"CLI not in PATH": {
			configure: func(c *Claude) { c.Path = "no-such-claude" },
			code:      CodeMissing, transient: true, within: 5 * time.Second,
		},
		"CLI exits 1": {
			script: "printf '\\033[31mEACCES: no such luck\\033[0m' >&2; exit 1",
			code:   CodeFailed, says: "exit code 1. Its last words: EACCES: no such luck", within: 5 * time.Second,
		},
		"CLI exits 0 and says nothing": {script: "exit 0", code: CodeFailed, within: 5 * time.Second},
		"CLI is killed":                {script: "kill -KILL $$", code: CodeFailed, says: "killed", within: 5 * time.Second},
		"CLI is terminated":            {script: "kill -TERM $$", code: CodeFailed, says: "signal", within: 5 * time.Second},
		"CLI prints half a line": {
			script: `printf '{"type":"result","subtype":"success","is_error":false,"result":"do'`,
			code:   CodeFailed, within: 5 * time.Second,
		},
		"CLI succeeds and is killed": {
			script: `echo '{"type":"result","subtype":"success","is_error":false,"result":"done"}'; kill -KILL $$`,
			code:   CodeFailed, within: 5 * time.Second,
		},
		"the token in a message": {
			script: `echo "key $ANTHROPIC_API_KEY and sk-ant-abc_DEF-123." >&2; exit 3`,
			code:   CodeFailed, says: "key [redacted] and [redacted].", within: 5 * time.Second,
		},
	}
}

func TestFailures(t *testing.T) {
	for _, table := range []map[string]failureTest{modelFailures(), agentFailures()} {
		for name, tt := range table {
			t.Run(name, func(t *testing.T) { tt.run(t) })
		}
	}
}

func (tt failureTest) run(t *testing.T) {
	t.Helper()
	tt.runOn(t, newFixture(t))
}

func (tt failureTest) runOn(t *testing.T, f *fixture) {
	t.Helper()
	f.model.Play("thing", tt.turns...)
	if tt.script != "" {
		f.claude.Path = script(t, tt.script)
	}
	if tt.configure != nil {
		tt.configure(f.claude)
	}
	began := time.Now()
	_, err := f.claude.Run(t.Context(), f.request("thing"))
	took := time.Since(began)

	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	asked := len(f.model.Requests())
	t.Logf("%s, transient %v, again after %s, %d requests, %s: %s", e.Code, e.Transient, e.RetryAfter, asked, took.Round(10*time.Millisecond), e.Message)
	if e.Code != tt.code || e.Transient != tt.transient || e.RetryAfter != tt.after {
		t.Errorf("got %s, transient %v, after %s; want %s, %v, %s", e.Code, e.Transient, e.RetryAfter, tt.code, tt.transient, tt.after)
	}
	if e.Message == "" || !strings.Contains(e.Message, tt.says) || strings.ContainsAny(e.Message, "\x1b\x00") {
		t.Errorf("message %q does not say %q", e.Message, tt.says)
	}
	if took > tt.within {
		t.Errorf("known after %s, want %s", took, tt.within)
	}
	if asked > tt.requests {
		t.Errorf("the model was asked %d times, want at most %d", asked, tt.requests)
	}
}

// script is a program that does what a shell script says.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeniedToolsAreToldInASuccess(t *testing.T) {
	f := newFixture(t)
	outside := filepath.Join(f.root, "outside.txt")
	f.model.Play("thing",
		modelserver.Use("Write", modelserver.Input{"file_path": outside, "content": "x"}),
		modelserver.Use("WebFetch", modelserver.Input{"url": "http://127.0.0.1/"}),
		modelserver.Say("done"))
	got, err := f.claude.Run(t.Context(), f.request("thing"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Write " + outside}, got.Denials); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("it was written")
	}
}

// TestHiccupsAreTheCLIsToRetry checks that a single failure in a run does not
// end it.
func TestHiccupsAreTheCLIsToRetry(t *testing.T) {
	f := newFixture(t)
	f.model.Play("thing",
		modelserver.Bash("true"),
		modelserver.Fail(529, "overloaded_error", "Overloaded").First(1),
		modelserver.Bash("true"),
		modelserver.Break(modelserver.Cut).First(1),
		modelserver.Say("done"))
	got, err := f.claude.Run(t.Context(), f.request("thing"))
	if err != nil || got.Summary != "done" || got.Turns != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestFailedRunKeepsItsConversation checks that what a failed run said is known
// to the next one.
func TestFailedRunKeepsItsConversation(t *testing.T) {
	f := newFixture(t)
	f.model.Play("first", modelserver.Bash("echo forty-two"), modelserver.Fail(500, "api_error", "x"))
	f.model.Play("second", modelserver.Say("done"))
	got, err := f.claude.Run(t.Context(), f.request("first"))
	var e *Error
	if !errors.As(err, &e) || got.Turns != 1 || got.CostUSD <= 0 {
		t.Fatalf("got %+v, %v", got, err)
	}
	f.model.Forget()
	if got, err := f.claude.Run(t.Context(), f.request("second")); err != nil || !got.Resumed {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !f.model.Requests()[0].Says("forty-two") {
		t.Error("the conversation is lost")
	}
}

func TestCancelledBeforeItBegan(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errNewer)
	if _, err := f.claude.Run(ctx, f.request("thing")); !errors.Is(err, errNewer) {
		t.Errorf("got %v", err)
	}
}

func TestModelCannotBeOpened(t *testing.T) {
	f := newFixture(t)
	broken := errors.New("no port left")
	f.claude.Model = func(context.Context, int64) (ModelSession, error) { return ModelSession{}, broken }
	_, err := f.claude.Run(t.Context(), f.request("thing"))
	var e *Error
	if !errors.Is(err, broken) || errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func TestError(t *testing.T) {
	e := missing(fmt.Errorf("x: %w", process.ErrNotFound))
	if !errors.Is(e, process.ErrNotFound) || !strings.HasPrefix(e.Error(), "agent_missing: ") {
		t.Errorf("got %v", e)
	}
}
