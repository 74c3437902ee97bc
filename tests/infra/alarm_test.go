package infra

import (
	"cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// alarm is a row of the alarms that are written to infra/cloudwatch/alarms.json. Each
// has a heading of its name in docs/operations.md, under which is said what to do.
type alarm struct {
	name    string
	meaning string
	metric  metric.Name
	by      []pair // dimensions
	stat    string
	at      float64
	below   bool // it alarms below the threshold, and if nothing is measured
	period  int  // seconds
	periods int  // of which all are bad; zero means 1
}

// alarms has what somebody should look at. A user's own failures, such as a build that
// does not build, are not among them.
func alarms() []alarm {
	outcome := func(c protocol.ErrorCode) []pair { return []pair{{metric.Outcome, string(c)}} }
	step := func(name string) []pair { return []pair{{metric.Step, name}} }
	return []alarm{
		{name: "no-worker", meaning: "No worker has looked for dead owners for five minutes: none lives.", metric: metric.Sweeps, stat: "Sum", at: 1, below: true, period: 300},
		{name: "orphans", meaning: "Projects of dead owners wait for a worker with room.", metric: metric.Orphans, stat: "Maximum", at: 1, period: 60, periods: 5},
		{name: "queue-wait", meaning: "Commands wait for more than five minutes before they are begun.", metric: metric.StepDuration, by: step("queue_wait"), stat: "p90", at: 5 * 60 * 1000, period: 300, periods: 2},
		{name: "slow-commands", meaning: "Commands take more than half an hour from sending to the answer.", metric: metric.CommandLatency, stat: "p90", at: 30 * 60 * 1000, period: 900},
		{name: "dead-letters", meaning: "Messages were given up and lie in dead-letter queues.", metric: metric.DeadLetters, stat: "Sum", at: 1, period: 300},
		{name: "lease-losses", meaning: "Workers lost projects that they were working on.", metric: metric.LeaseLosses, stat: "Sum", at: 1, period: 300},
		{name: "takeovers", meaning: "Workers die: their projects were taken over.", metric: metric.Takeovers, stat: "Sum", at: 3, period: 900},
		{name: "model-auth", meaning: "The model's service does not accept our credentials.", metric: metric.Commands, by: outcome(protocol.ModelAuth), stat: "Sum", at: 1, period: 300},
		{name: "model-credit", meaning: "There is no credit for model calls.", metric: metric.Commands, by: outcome(protocol.ModelCredit), stat: "Sum", at: 1, period: 300},
		{name: "model-overloaded", meaning: "Commands fail because the model's service is overloaded or out of reach.", metric: metric.Commands, by: outcome(protocol.ModelOverloaded), stat: "Sum", at: 3, period: 900},
		{name: "repo-auth", meaning: "A remote does not accept the token.", metric: metric.Commands, by: outcome(protocol.RepoAuth), stat: "Sum", at: 1, period: 300},
		{name: "push-failed", meaning: "Work could not be pushed.", metric: metric.Commands, by: outcome(protocol.PushFailed), stat: "Sum", at: 1, period: 300},
		{name: "deploy-failed", meaning: "A site could not be uploaded.", metric: metric.Commands, by: outcome(protocol.DeployFailed), stat: "Sum", at: 1, period: 300},
		{name: "internal", meaning: "Commands failed by a fault of the worker.", metric: metric.Commands, by: outcome(protocol.Internal), stat: "Sum", at: 1, period: 300},
		{name: "cost", meaning: "Model calls cost more than 50 dollars in an hour.", metric: metric.AgentCost, stat: "Sum", at: 50, period: 3600},
	}
}

// input is what `aws cloudwatch put-metric-alarm --cli-input-json` takes.
type alarmInput struct {
	AlarmName          string
	AlarmDescription   string
	Namespace          string
	MetricName         metric.Name
	Dimensions         []pair
	Statistic          string `json:",omitempty"`
	ExtendedStatistic  string `json:",omitempty"`
	Unit               metric.Unit
	Period             int
	EvaluationPeriods  int
	DatapointsToAlarm  int
	Threshold          float64
	ComparisonOperator string
	TreatMissingData   string
	AlarmActions       []string
	OKActions          []string
}

func (a alarm) input(unit metric.Unit) alarmInput {
	in := alarmInput{
		AlarmName: "webordinary-edit-" + a.name, AlarmDescription: a.meaning + " See docs/operations.md, " + a.name + ".",
		Namespace: metric.Namespace, MetricName: a.metric, Dimensions: a.by, Unit: unit, Period: a.period, EvaluationPeriods: cmp.Or(a.periods, 1),
		DatapointsToAlarm: cmp.Or(a.periods, 1), Threshold: a.at, ComparisonOperator: "GreaterThanOrEqualToThreshold", TreatMissingData: "notBreaching",
		AlarmActions: []string{"${ALARM_TOPIC_ARN}"}, OKActions: []string{"${ALARM_TOPIC_ARN}"},
	}
	if in.Dimensions == nil {
		in.Dimensions = []pair{}
	}
	if a.below {
		in.ComparisonOperator, in.TreatMissingData = "LessThanThreshold", "breaching"
	}
	if a.stat[0] == 'p' {
		in.ExtendedStatistic = a.stat
	} else {
		in.Statistic = a.stat
	}
	return in
}
