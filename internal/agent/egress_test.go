package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// TestCommandGoesOut checks that a program finds the way out, and that it is closed
// when the run is over.
func TestCommandGoesOut(t *testing.T) {
	c, r := newCommand(t, `echo "$HTTPS_PROXY"`)
	closed := 0
	c.Egress = func(context.Context) (process.Egress, error) {
		return process.Egress{Address: "127.0.0.1:1", Env: []string{"HTTPS_PROXY=http://127.0.0.1:1"}, Close: func() { closed++ }}, nil
	}
	got, err := c.Run(t.Context(), r)
	if err != nil || got.Summary != "http://127.0.0.1:1" || closed != 1 {
		t.Errorf("%+v, %v, closed %d times", got, err, closed)
	}
	broken := errors.New("no port")
	c.Egress = func(context.Context) (process.Egress, error) { return process.Egress{}, broken }
	if _, err := c.Run(t.Context(), r); !errors.Is(err, broken) {
		t.Errorf("error = %v", err)
	}
}

// TestTooMuch checks what is said of an agent that uses more than it may.
func TestTooMuch(t *testing.T) {
	c, r := newCommand(t, `head -c 300m /dev/zero | tail >/dev/null; sleep 60`)
	c.Runner.Limits.Memory = 64 << 20
	_, err := c.Run(t.Context(), r)
	for who, err := range map[string]error{
		"a program": err,
		"Claude":    outcome{err: &process.LimitError{What: process.LimitMemory, Limit: 64 << 20}, stream: &stream{}}.failure(),
	} {
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeFailed || e.Transient || !strings.Contains(e.Message, "more than 64 MB of memory") {
			t.Errorf("%s: %v", who, err)
		}
	}
}
