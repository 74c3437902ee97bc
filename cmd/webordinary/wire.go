package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing/transport/client"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// newInstruction wires what every form of the worker has in common. The journal
// and the bucket are the caller's.
func (c *config) newInstruction(ctx context.Context, environ []string, workspaces string, log *slog.Logger) (*handlers.Instruction, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, which supervises its children: %w", err)
	}
	// The children of a worker that freezes are gone before another one can have
	// the project: within the margin by which trust ends before the lease.
	silence := c.LeaseDuration / 6
	keeper := keeperOf(self)
	runner := &process.Runner{
		Keeper: keeper, Setuid: setuidKeeper(self), Heartbeat: silence / 8, Silence: silence, Log: log,
	}
	// A system-wide configuration of git that is there and cannot be read ends git.
	childEnv := process.With(process.Environ(environ, c.AgentEnv), "GIT_CONFIG_NOSYSTEM=1")
	if err := c.raiseWall(ctx, runner, keeper, settleUsers(workspaces)); err != nil {
		return nil, err
	}
	log.InfoContext(ctx, "wall around agent and npm", slog.String("wall", string(runner.Wall)), slog.String("leaves_open", runner.Wall.Leaves()))
	runner.Read = c.readable(childEnv, workspaces)
	a, err := c.newAgent(ctx, runner, childEnv, log)
	if err != nil {
		return nil, err
	}
	workspace.NoRedirects(client.InstallProtocol)
	return &handlers.Instruction{
		Workspaces: workspace.New(workspace.Config{
			Root: workspaces, Runner: runner, Env: process.Environ(environ, nil), Token: c.GitHubToken, AllowedHosts: c.AllowedRepoHosts,
			AuthorName: c.AuthorName, AuthorEmail: c.AuthorEmail, AllowWorkflowChanges: c.AllowWorkflows, Log: log,
		}),
		Agent:       a,
		Builder:     &build.Builder{Runner: runner, Env: childEnv, Egress: c.openEgress(log), Timeout: c.BuildTimeout, Log: log},
		Names:       c.names(),
		Rules:       protocol.Rules{AllowedRepoHosts: c.AllowedRepoHosts, Names: c.names()},
		MaxAttempts: c.MaxAttempts,
		AssetGrace:  c.AssetGrace,
		Redact:      c.redact(),
		Log:         log,
	}, nil
}

// keeperOf is how the keeper is started: as the small program of its own that an
// image has beside this one, which is there ten times as fast, or as this one.
func keeperOf(self string) []string {
	small := filepath.Join(filepath.Dir(self), "webordinary-keeper")
	if info, err := os.Stat(small); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
		return []string{small}
	}
	return []string{self, keeperArg}
}

// setuidKeeper is where an image has the keeper that is installed setuid.
func setuidKeeper(self string) []string {
	return []string{filepath.Join(filepath.Dir(self), "keeper")}
}

// newAgent returns the agent that is configured. A missing program is found now,
// not when a user waits.
func (c *config) newAgent(ctx context.Context, runner *process.Runner, childEnv []string, log *slog.Logger) (handlers.Agent, error) {
	if c.Agent == "command" {
		path, err := exec.LookPath(c.agentWords[0])
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("AGENT_COMMAND begins with %q, and there is no such program", c.agentWords[0])
		}
		return &agent.Command{
			Path: path, Args: c.agentWords[1:], Runner: runner, Env: childEnv, Egress: c.openEgress(log), Timeout: c.AgentTimeout, Log: log,
		}, nil
	}
	path, err := exec.LookPath(c.ClaudePath)
	if err != nil {
		return nil, fmt.Errorf("CLAUDE_PATH is %q, and there is no such program; install the Claude Code CLI (npm package @anthropic-ai/claude-code), or set AGENT=command", c.ClaudePath)
	}
	model, err := c.openModel(ctx, log)
	if err != nil {
		return nil, err
	}
	return &agent.Claude{
		Path: path, Runner: runner, Env: childEnv, ModelID: c.AnthropicModel, MaxTurns: c.MaxTurns, MaxCostUSD: c.MaxCost, MaxTokens: c.MaxTokens,
		Timeout: c.AgentTimeout, Idle: c.AgentIdle, Log: log, Model: model,
	}, nil
}

// warnings says what is configured and not enforced.
func (c *config) warnings() []string {
	var w []string
	if c.Sandbox == string(process.WallOff) {
		w = append(w, "SANDBOX=off: there is no wall. "+process.WallOff.Leaves())
	}
	if c.usesBedrock() && c.AnthropicModel == "" {
		w = append(w, "ANTHROPIC_MODEL is not set: the CLI chooses a model, and the account may not have it at Bedrock")
	}
	if c.registry != "" && !c.hosts.Allow(c.registry) {
		w = append(w, "AGENT_ALLOWED_HOSTS does not list "+c.registry+": npm cannot install packages")
	}
	return w
}
