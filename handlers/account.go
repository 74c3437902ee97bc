package handlers

import (
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// spent is what earlier attempts at the command used. What a crash cut off is not
// known.
func (j *job) spent() agent.Spent {
	if j.out.Agent == nil {
		return agent.Spent{}
	}
	return agent.Spent{Turns: j.out.Agent.Turns, CostUSD: j.out.Agent.CostUSD, Tokens: j.out.Agent.Tokens}
}

// account adds a run of the agent to what the command has cost so far.
func (j *job) account(r agent.Result, took time.Duration) {
	if j.out.Agent == nil {
		j.out.Agent = &protocol.AgentInfo{}
	}
	a := j.out.Agent
	a.Turns += r.Turns
	a.CostUSD += r.CostUSD
	a.Tokens += r.Tokens
	a.DurationMs += took.Milliseconds()
	if r.Model != "" {
		a.Model = r.Model
	}
}
