package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
	"github.com/webordinary/claude-code-container/internal/metric/metrictest"
	"github.com/webordinary/claude-code-container/internal/protocol"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

// workerLog is what the worker logged and measured.
func (w *world) workerLog(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEveryMetricIsSeen: commands that are carried out, interrupted and refused
// measure all that the table has, and nothing else.
func TestEveryMetricIsSeen(t *testing.T) {
	needs := map[metric.Name]string{
		metric.LeaseLosses: "a claim that somebody else took: TestTakeoverAndLossAreMeasured",
		metric.Takeovers:   "a dead owner: TestTakeoverAndLossAreMeasured",
	}
	w := newWorld(t)
	gate := NewGate()
	w.model.Play("first", footer("one"), Say("Done one."))
	w.model.Play("slow", footer("half"), Say("Never said.").Behind(gate))
	w.model.Play("newer", footer("newer"), Say("Done newer."))
	p := w.start(t, "SWEEP_INTERVAL=1s")
	first := p.do(w.message("t-1", "c-1", "first"))
	p.send(w.message("t-1", "c-2", "slow"))
	<-gate.Reached()
	p.send(w.message("t-1", "c-3", "newer"))
	if out := p.answer(); !out.Interrupted {
		t.Errorf("answer %+v", out)
	}
	newer := p.answer()
	refused := w.message("t-1", "c-4", "refuse")
	refused["repoUrl"] = "https://example.com/x.git"
	p.do(refused)
	p.finish()

	all := metrictest.Read(t, w.workerLog(t))
	seen := map[metric.Name]bool{}
	for _, l := range all {
		for _, name := range l.Metrics {
			seen[name] = true
		}
	}
	for _, m := range metric.All() {
		if needs[m.Name] == "" && !seen[m.Name] {
			t.Errorf("%s was not measured", m.Name)
		}
	}
	for _, step := range []string{"claim", "queue_wait", "workspace", "agent", "commit", "build", "deploy", "push"} {
		if !slices.ContainsFunc(all, func(l metrictest.Line) bool { return l.Members[metric.Step] == step }) {
			t.Errorf("the step %s was not measured", step)
		}
	}
	for _, want := range []struct {
		name    metric.Name
		members []string
		sum     float64
	}{
		{metric.Commands, []string{"outcome", metric.Success}, 2},
		{metric.Commands, []string{"outcome", string(protocol.Interrupted)}, 1},
		{metric.Commands, []string{"outcome", string(protocol.RepoNotAllowed)}, 1},
		{metric.Interruptions, nil, 1},
		{metric.DeadLetters, nil, 1},
		{metric.AgentTurns, []string{"command_id", "c-1"}, float64(first.Agent.Turns)},
		{metric.AgentCost, []string{"command_id", "c-3"}, newer.Agent.CostUSD},
		{metric.AgentTokens, []string{"command_id", "c-3"}, float64(newer.Agent.Tokens)},
	} {
		if got := metrictest.Sum(all, want.name, want.members...); got != want.sum {
			t.Errorf("%s %v is %v, want %v", want.name, want.members, got, want.sum)
		}
	}
}

// TestCostIsTheCommandsOwn: the CLI counts a conversation's, which a second command
// resumes.
func TestCostIsTheCommandsOwn(t *testing.T) {
	w := newWorld(t)
	w.model.Play("first", footer("one"), footer("two"), Say("Done one."))
	w.model.Play("second", footer("three"), Say("Done two."))
	w.model.Play("third", footer("three"), Say("Done two."))
	p := w.start(t)
	first, second := p.do(w.message("t-1", "c-1", "first")), p.do(w.message("t-1", "c-2", "second"))
	fresh := p.do(w.message("t-2", "c-3", "third"))
	p.finish()
	if !w.sawConversation("second", "Done one.") {
		t.Fatal("the second command did not resume the conversation")
	}
	turns := []int{first.Agent.Turns, second.Agent.Turns, fresh.Agent.Turns}
	if d := cmp.Diff([]int{3, 2, 2}, turns); d != "" {
		t.Error("turns:", d)
	}
	// The model server says the same of each call.
	a, b, c := first.Agent, second.Agent, fresh.Agent
	if b.Tokens != c.Tokens || a.Tokens*2 != b.Tokens*3 || b.Tokens == 0 {
		t.Errorf("tokens %d, %d, %d", a.Tokens, b.Tokens, c.Tokens)
	}
	if near := func(x, y float64) bool { return x-y < 1e-9 && y-x < 1e-9 }; !near(b.CostUSD, c.CostUSD) || !near(a.CostUSD*2, b.CostUSD*3) || b.CostUSD == 0 {
		t.Errorf("cost %v, %v, %v", a.CostUSD, b.CostUSD, c.CostUSD)
	}
	if b.Model == "" || b.DurationMs == 0 {
		t.Errorf("agent %+v", b)
	}
}

// TestIDsFindEveryLineOfACommand: from its first line to its last, all that the
// worker says of it carries its ids. The log says nothing of what was instructed.
func TestIDsFindEveryLineOfACommand(t *testing.T) {
	w := newWorld(t)
	w.model.Play("velvet", footer("one"), Use("Write", Input{"file_path": "/elsewhere/x.txt", "content": "x"}), Say("Done one."))
	p := w.start(t, "LOG_LEVEL=info")
	m := w.message("t-1", "c-1", "velvet curtains")
	p.do(m)
	p.finish()
	var lines []map[string]any
	for text := range strings.Lines(w.workerLog(t)) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if strings.Contains(text, "curtains") {
			t.Errorf("the instruction is in the log: %s", text)
		}
		lines = append(lines, line)
	}
	isOf := func(l map[string]any) bool { return l["command_id"] == "c-1" }
	first := slices.IndexFunc(lines, isOf)
	last := len(lines) - 1
	for last > 0 && !isOf(lines[last]) {
		last--
	}
	if first < 0 || lines[last]["msg"] != "message handled" {
		t.Fatalf("no lines of the command, or its last one is %v", lines[last])
	}
	said := map[string]int{}
	for _, l := range lines[first : last+1] {
		if _, sweep := l[string(metric.Sweeps)]; sweep {
			continue // of no command
		}
		said[l["msg"].(string)]++
		if l["command_id"] != "c-1" || l["correlation_id"] != "c-1" || l["project_key"] != "amelia#scott" {
			t.Errorf("a line without the ids: %v", l)
		}
	}
	if said["step"] != 7 || said["tool"] == 0 || said["metrics"] != 9 || said["agent was denied a tool"] == 0 {
		t.Errorf("lines: %v", said)
	}
}
