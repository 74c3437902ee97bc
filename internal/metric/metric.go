// Package metric is what the worker measures: a table of all metrics, and lines in
// CloudWatch's Embedded Metric Format, of which CloudWatch Logs makes metrics without
// an agent. The documents, the dashboard and the alarms are made from the table; see
// tests/infra.
package metric

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"
)

// Namespace is that of all metrics.
const Namespace = "WebOrdinary"

// Unit is a unit of CloudWatch's.
type Unit string

// The units that are used.
const (
	Count        Unit = "Count"
	Milliseconds Unit = "Milliseconds"
	None         Unit = "None" // dollars
)

// Name is a metric's.
type Name string

// The metrics of the worker. All has what they mean.
const (
	StepDuration   Name = "step_duration"
	Commands       Name = "commands"
	CommandLatency Name = "command_latency"
	AgentCost      Name = "agent_cost_usd"
	AgentTokens    Name = "agent_tokens"
	AgentTurns     Name = "agent_turns"
	Interruptions  Name = "interruptions"
	DeadLetters    Name = "dead_letters"
	LeaseLosses    Name = "lease_losses"
	Takeovers      Name = "takeovers"
	Sweeps         Name = "sweeps"
	Orphans        Name = "orphans"
)

// The members of a line that are dimensions.
const (
	Step    = "step"
	Outcome = "outcome"
	Model   = "model"
)

// Success is the outcome of a command that was carried out; else it is the answer's
// error code.
const Success = "success"

// Metric is a row of the table.
type Metric struct {
	Name Name
	Unit Unit
	// Dimensions are the sets by which it is kept; an empty set is the sum over
	// all.
	Dimensions [][]string
	Meaning    string // for an operator, in a sentence or two
}

// All returns the table. The last rows are what package middleware measures of each
// message.
func All() []Metric {
	total := [][]string{{}}
	handler := [][]string{{"handler"}, {"handler", Outcome}}
	return []Metric{
		{StepDuration, Milliseconds, [][]string{{Step}}, "How long a step took that had something to do: `claim` (from the request to the open queue), " +
			"`queue_wait` (from sending to the first run), `workspace` (clone or open), `agent`, `install` (of a fresh checkout), `commit`, `build` (with npm), `deploy`, `push`."},
		{Commands, Count, [][]string{{}, {Outcome}}, "Commands that got their answer. The outcome is `success` or the `errorCode`."},
		{CommandLatency, Milliseconds, total, "From sending a command to its answer, with all waiting and trying again."},
		{AgentCost, None, [][]string{{}, {Model}}, "What the model calls of a command cost, in dollars, as the CLI reckons."},
		{AgentTokens, Count, [][]string{{}, {Model}}, "Tokens of a command: input, cache and output."},
		{AgentTurns, Count, total, "Answers of the model that a command took."},
		{Interruptions, Count, total, "Commands that were cut off by a newer one or by an INTERRUPT."},
		{DeadLetters, Count, total, "Messages that went into a dead-letter queue, with the reason. What SQS itself moves there is not among them."},
		{LeaseLosses, Count, total, "Projects that were lost while the worker held them: it could not renew its claim, or was frozen."},
		{Takeovers, Count, total, "Projects that were taken from a dead owner."},
		{Sweeps, Count, total, "Looks for dead owners; one each `SWEEP_INTERVAL` from every worker that lives."},
		{Orphans, Count, total, "Projects of dead owners that no worker has room for, at a look. Autoscaling reads it."},
		{"messages", Count, handler, "Messages handled. The handler is `claim`, `instruction` or `interrupts`; the outcome `ok`, `poisoned`, `handed_back` or `failed`."},
		{"duration", Milliseconds, handler, "How long a message was handled, with all attempts and the pauses between."},
		{"attempt", Count, handler, "The number of the last attempt, from 1 on."},
		{"produced", Count, handler, "Messages that came of a message."},
	}
}

// Value is a measured value.
type Value struct {
	Name  Name
	Value float64
}

// Log writes lines, each with what was measured at one time. Make one with New. It may
// be used by several goroutines.
type Log struct {
	handler slog.Handler
	now     func() time.Time
	table   map[Name]Metric
}

// New returns a log. The handler writes JSON, a line per record; now is the clock,
// nil means time.Now.
func New(h slog.Handler, now func() time.Time) *Log {
	l := &Log{handler: h, now: now, table: map[Name]Metric{}}
	if now == nil {
		l.now = time.Now
	}
	for _, m := range All() {
		l.table[m.Name] = m
	}
	return l
}

// block is the format's own member of a line.
//
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type block struct {
	Timestamp         int64       `json:"Timestamp"` // milliseconds since 1970
	CloudWatchMetrics []directive `json:"CloudWatchMetrics"`
}

type directive struct {
	Namespace  string     `json:"Namespace"`
	Dimensions [][]string `json:"Dimensions"`
	Metrics    []measure  `json:"Metrics"`
}

type measure struct {
	Name Name `json:"Name"`
	Unit Unit `json:"Unit"`
}

// Write writes a line with values of the table and their dimensions; an empty one
// becomes "unknown". What the table lacks is left out. A line that cannot be written
// is lost.
func (l *Log) Write(ctx context.Context, dimensions []slog.Attr, values ...Value) {
	now := l.now()
	line := slog.NewRecord(now, slog.LevelInfo, "metrics", 0)
	for _, d := range dimensions {
		line.AddAttrs(slog.String(d.Key, cmp.Or(d.Value.String(), "unknown")))
	}
	aws := block{Timestamp: now.UnixMilli()}
	for _, v := range values {
		m, known := l.table[v.Name]
		if !known {
			continue
		}
		line.AddAttrs(slog.Float64(string(v.Name), v.Value))
		aws.add(m)
	}
	line.AddAttrs(slog.Any("_aws", aws)) //nolint:sloglint // the format's name
	_ = l.handler.Handle(ctx, line)
}

// add puts a metric beside those with the same dimensions.
func (b *block) add(m Metric) {
	same := func(d directive) bool {
		return slices.EqualFunc(d.Dimensions, m.Dimensions, slices.Equal)
	}
	i := slices.IndexFunc(b.CloudWatchMetrics, same)
	if i < 0 {
		i = len(b.CloudWatchMetrics)
		b.CloudWatchMetrics = append(b.CloudWatchMetrics, directive{Namespace: Namespace, Dimensions: m.Dimensions})
	}
	b.CloudWatchMetrics[i].Metrics = append(b.CloudWatchMetrics[i].Metrics, measure{m.Name, m.Unit})
}
