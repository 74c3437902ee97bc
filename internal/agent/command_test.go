package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

func newCommand(t *testing.T, body string) (*Command, Request) {
	t.Helper()
	root := t.TempDir()
	r := Request{
		Instruction: "make it\nblue", Notes: []string{"not for it"},
		Site: filepath.Join(root, "site"), Job: filepath.Join(root, "job"), Conversations: filepath.Join(root, "conversations"),
	}
	if err := os.MkdirAll(r.Site, 0o700); err != nil {
		t.Fatal(err)
	}
	return &Command{Path: script(t, body), Runner: processtest.Runner(t), Env: append(processtest.Env(t), "GREETING=hello")}, r
}

func TestCommand(t *testing.T) {
	c, r := newCommand(t, `cat > instruction; pwd; echo "$GREETING $1|$2"; echo noise >&2`)
	c.Args = []string{"a b", "$HOME"}
	got, err := c.Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Result{Summary: r.Site + "\nhello a b|$HOME", Duration: got.Duration}, got); d != "" {
		t.Error(d)
	}
	b, err := os.ReadFile(filepath.Join(r.Site, "instruction"))
	if err != nil || string(b) != r.Instruction {
		t.Errorf("stdin was %q, %v", b, err)
	}
	if _, err := os.Stat(r.Conversations); err == nil {
		t.Error("it has a conversation")
	}
}

func TestCommandFails(t *testing.T) {
	tests := map[string]struct {
		body, path, code, says string
		transient              bool
		timeout                time.Duration
	}{
		"exit code": {body: "echo out; echo no such luck >&2; exit 7", code: CodeFailed, says: "exit code 7. Its last words: no such luck"},
		"killed":    {body: "kill -KILL $$", code: CodeFailed, says: "killed"},
		"missing":   {path: "/nowhere/agent", code: CodeMissing, transient: true},
		"timeout":   {body: "sleep 1000", timeout: 200 * time.Millisecond, code: CodeTimeout, says: "200ms"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, r := newCommand(t, tt.body)
			c.Timeout = tt.timeout
			if tt.path != "" {
				c.Path = tt.path
			}
			_, err := c.Run(t.Context(), r)
			var e *Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Transient != tt.transient || !strings.Contains(e.Message, tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCommandInterrupted(t *testing.T) {
	c, r := newCommand(t, "sleep 1000")
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(100*time.Millisecond, func() { cancel(errNewer) })
	defer timer.Stop()
	if _, err := c.Run(ctx, r); !errors.Is(err, errNewer) {
		t.Errorf("got %v", err)
	}
}

func TestCommandSummaryIsBounded(t *testing.T) {
	c, r := newCommand(t, "head -c 1000000 /dev/zero | tr '\\0' x")
	got, err := c.Run(t.Context(), r)
	if err != nil || len(got.Summary) != maxSummary {
		t.Errorf("%d bytes, %v", len(got.Summary), err)
	}
}

// Children that the keeper ended since the worker was frozen are not blamed.
func TestFrozenWorker(t *testing.T) {
	frozen := processtest.Runner(t)
	frozen.Silence, frozen.Heartbeat = 100*time.Millisecond, time.Hour
	c, r := newCommand(t, "sleep 1000")
	c.Runner = frozen
	f := newFixture(t)
	f.claude.Runner, f.claude.Path = frozen, script(t, "sleep 1000")
	for name, run := range map[string]func() error{
		"command": func() error { _, err := c.Run(t.Context(), r); return err },
		"claude":  func() error { _, err := f.claude.Run(t.Context(), f.request("thing")); return err },
		"claude, and its time was over on thawing": func() error {
			f.claude.Path, f.claude.Timeout = script(t, "trap '' TERM; while :; do sleep 1; done"), 50*time.Millisecond
			_, err := f.claude.Run(t.Context(), f.request("thing"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := run()
			if e, ok := errors.AsType[*Error](err); ok || !errors.Is(err, process.ErrSilence) {
				t.Errorf("got %v (%v)", err, e)
			}
		})
	}
}
