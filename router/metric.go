package router

import (
	"context"
	"log/slog"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// took measures a step.
func (r *Router) took(ctx context.Context, step string, d time.Duration, failed bool) {
	if r.config.Instruction.Took != nil {
		r.config.Instruction.Took(ctx, step, d, failed)
	}
	r.metrics.Write(ctx, []slog.Attr{slog.String(metric.Step, step)}, metric.Value{Name: metric.StepDuration, Value: milliseconds(d)})
}

// claimed measures a project that was taken.
func (r *Router) claimed(ctx context.Context, p protocol.Pair, took time.Duration, unclean bool) {
	ctx = middleware.WithLogAttrs(ctx, slog.String("project_id", p.ProjectID), slog.String("user_id", p.UserID), slog.String("project_key", p.Key()))
	r.took(ctx, handlers.StepClaimed, took, false)
	if unclean {
		r.count(ctx, metric.Takeovers, 1)
	}
}

// concluded measures a command that has its answer.
func (r *Router) concluded(ctx context.Context, in protocol.InputMessage, out protocol.OutputMessage) {
	outcome := metric.Success
	if out.ErrorCode != "" {
		outcome = string(out.ErrorCode)
	}
	dimensions := []slog.Attr{slog.String(metric.Outcome, outcome)}
	values := []metric.Value{{Name: metric.Commands, Value: 1}}
	if sent := in.Delivery.Sent; !sent.IsZero() {
		values = append(values, metric.Value{Name: metric.CommandLatency, Value: milliseconds(max(time.Since(sent), 0))})
	}
	if a := out.Agent; a != nil {
		dimensions = append(dimensions, slog.String(metric.Model, a.Model))
		values = append(values, metric.Value{Name: metric.AgentCost, Value: a.CostUSD},
			metric.Value{Name: metric.AgentTokens, Value: float64(a.Tokens)}, metric.Value{Name: metric.AgentTurns, Value: float64(a.Turns)})
	}
	if out.Interrupted {
		values = append(values, metric.Value{Name: metric.Interruptions, Value: 1})
	}
	r.metrics.Write(ctx, dimensions, values...)
}

func (r *Router) count(ctx context.Context, name metric.Name, n int) {
	r.metrics.Write(ctx, nil, metric.Value{Name: name, Value: float64(n)})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
