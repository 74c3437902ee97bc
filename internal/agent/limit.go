package agent

import (
	"fmt"
)

// Spent is what a command has used before this run, in earlier attempts. Limits
// are the command's: a run gets what is left of them.
type Spent struct {
	Turns   int
	CostUSD float64
	Tokens  int64
}

// limits are those of one run; zero means no limit.
type limits struct {
	turns   int
	costUSD float64
	tokens  int64
}

// left returns what a command may still use, or the *Error that says it may use
// nothing.
func (c *Claude) left(s Spent) (limits, error) {
	l := limits{turns: c.MaxTurns - s.Turns, costUSD: c.MaxCostUSD - s.CostUSD, tokens: c.MaxTokens - s.Tokens}
	before := fmt.Errorf("spent in earlier attempts: %d turns, %.2f USD, %d tokens", s.Turns, s.CostUSD, s.Tokens)
	switch {
	case c.MaxTurns > 0 && l.turns <= 0:
		return l, usedUp(CodeTurnLimit, "number of turns it may take", before)
	case c.MaxCostUSD > 0 && l.costUSD <= 0:
		return l, usedUp(CodeCostLimit, "money it may spend", before)
	case c.MaxTokens > 0 && l.tokens <= 0:
		return l, usedUp(CodeCostLimit, "tokens it may spend", before)
	}
	return limits{turns: max(0, l.turns), costUSD: max(0, l.costUSD), tokens: max(0, l.tokens)}, nil
}

// usedUp is the failure of a run that met a limit.
func usedUp(code, what string, cause error) *Error {
	return &Error{Code: code, Err: cause, Message: "The agent used up the " + what + " for one instruction. What it had changed is kept. Please ask for less at once."}
}
