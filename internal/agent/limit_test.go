package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

func TestClaudeModelAndLimits(t *testing.T) {
	f := newFixture(t)
	f.claude.ModelID, f.claude.MaxCostUSD = "claude-test-1", 0.25
	f.model.Play("thing", modelserver.Say("done"))
	got, err := f.claude.Run(t.Context(), f.request("thing"))
	if err != nil || got.Model != "claude-test-1" || f.model.Requests()[0].Model != "claude-test-1" {
		t.Errorf("got %+v, %v", got, err)
	}
	conv, err := openConversation(f.request(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conv.close()
	args := f.claude.args(conv, limits{turns: 20, costUSD: 0.25})
	for _, want := range [][]string{{"--model", "claude-test-1"}, {"--max-budget-usd", "0.25"}, {"--max-turns", "20"}, {"--resume", got.SessionID}} {
		i := slices.Index(args, want[0])
		if i < 0 || args[i+1] != want[1] {
			t.Errorf("%v not in %v", want, args)
		}
	}
}

// TestTokenLimit checks that a run ends when its tokens are used up, and that
// what it had done counts.
func TestTokenLimit(t *testing.T) {
	for name, c := range map[string]gateway.Config{"Anthropic": {}, "Bedrock": {Bedrock: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.claude.Model = through(t, f.model.URL(), c)
			f.claude.MaxTokens = 500
			f.model.Play("thing", slices.Repeat([]modelserver.Turn{modelserver.Bash("true")}, 20)...)
			r := f.request("thing")
			r.Spent.Tokens = 200
			got, err := f.claude.Run(t.Context(), r)
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeCostLimit || e.Transient || !strings.Contains(e.Message, "tokens") {
				t.Fatalf("got %+v, %v", got, err)
			}
			// 300 are left, and an answer costs 120: the one that passes the limit is
			// finished.
			if n := len(f.model.Requests()); n != 3 || got.Tokens != 360 || got.Turns != 3 {
				t.Errorf("asked %d times, got %+v", n, got)
			}
		})
	}
}

func TestNothingLeft(t *testing.T) {
	c := &Claude{MaxTurns: 10, MaxCostUSD: 1, MaxTokens: 1000}
	for name, tt := range map[string]struct {
		spent Spent
		code  string // empty if a run may begin
		left  limits
	}{
		"nothing spent": {Spent{}, "", limits{10, 1, 1000}},
		"some spent":    {Spent{Turns: 4, CostUSD: 0.25, Tokens: 999}, "", limits{6, 0.75, 1}},
		"turns":         {Spent{Turns: 10}, CodeTurnLimit, limits{}},
		"cost":          {Spent{CostUSD: 1}, CodeCostLimit, limits{}},
		"tokens":        {Spent{Tokens: 1200}, CodeCostLimit, limits{}},
	} {
		left, err := c.left(tt.spent)
		var e *Error
		switch {
		case tt.code == "" && (err != nil || left != tt.left):
			t.Errorf("%s: got %+v, %v", name, left, err)
		case tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code || e.Message == ""):
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left, err := (&Claude{}).left(Spent{5, 5, 5}); err != nil || left != (limits{}) {
		t.Errorf("without limits: got %+v, %v", left, err)
	}
	if _, err := c.Run(t.Context(), Request{Spent: Spent{Turns: 10}}); err == nil { // it would need a Runner
		t.Error("it ran")
	}
}
