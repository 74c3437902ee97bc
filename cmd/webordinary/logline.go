package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/metric"
)

// logLines shows lines of the worker's log to a person.
type logLines struct {
	out     io.Writer
	options logsOptions
	style   style
	zone    *time.Location
	day     string // of the last line
}

// show prints a line, if it is one of those that are wanted.
func (l *logLines) show(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil
	}
	line, ok := readLogLine(raw)
	if !l.wanted(line) {
		return nil
	}
	var text string
	switch {
	case l.options.output == "json":
		if !ok {
			return nil // it would be no JSON
		}
		text = string(raw)
	case !ok:
		text = inert(string(raw))
	default:
		if text = l.render(line); text == "" {
			return nil
		}
	}
	_, err := fmt.Fprintln(l.out, text)
	return err
}

// logLine is a line of the log, its members in their order.
type logLine struct {
	names  []string
	values map[string]any
}

func readLogLine(raw []byte) (logLine, bool) {
	l := logLine{values: map[string]any{}}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return l, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return logLine{values: map[string]any{}}, false
		}
		var v any
		if err := dec.Decode(&v); err != nil {
			return logLine{values: map[string]any{}}, false
		}
		l.names = append(l.names, fmt.Sprint(name))
		l.values[fmt.Sprint(name)] = v
	}
	return l, true
}

// text returns a member as it is shown; empty if there is none.
func (l logLine) text(name string) string {
	switch v := l.values[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
}

// number returns a measured value.
func (l logLine) number(name metric.Name) (float64, bool) {
	n, ok := l.values[string(name)].(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

func (l *logLines) wanted(line logLine) bool {
	if c := l.options.command; c != "" && line.text("command_id") != c && line.text("correlation_id") != c {
		return false
	}
	p := l.options.project
	return p == "" || line.text("project_id") == p || projectKey(line) == p || strings.HasPrefix(projectKey(line), p+"#")
}

// projectKey is projectId#userId; empty if the line is of no project.
func projectKey(line logLine) string {
	if key := line.text("project_key"); key != "" {
		return key
	}
	if line.text("project_id") == "" {
		return ""
	}
	return line.text("project_id") + "#" + line.text("user_id")
}

// render is a line in columns: time, project, command, what, and how.
//
//	10:02:41  amelia#scott  c-17  agent      Edit, 2 files
//
// It is empty for what is of no interest, such as looks that found nothing.
func (l *logLines) render(line logLine) string {
	what, how, colour := describeLine(line)
	if what == "" {
		return ""
	}
	var b strings.Builder
	if at, err := time.Parse(time.RFC3339Nano, line.text("time")); err == nil {
		at = at.In(l.zone)
		if day := at.Format(time.DateOnly); day != l.day {
			l.day = day
			b.WriteString(l.style.paint(bold, day) + "\n")
		}
		b.WriteString(l.style.paint(faint, at.Format(time.TimeOnly)))
	} else {
		b.WriteString("        ")
	}
	b.WriteString("  " + padded(projectKey(line), 16) + "  " + padded(shortID(line.text("command_id")), 8) + "  ")
	b.WriteString(l.style.paint(colour, padded(what, 10)) + "  " + how)
	return strings.TrimRight(b.String(), " ")
}

// padded makes a text as wide as a column; a longer one is cut.
func padded(text string, width int) string {
	text = short(text, width)
	return text + strings.Repeat(" ", max(0, width-len([]rune(text))))
}

// shortID is what people tell ids by: of a UUID the beginning.
func shortID(id string) string {
	if len(id) == 36 && strings.Count(id, "-") == 4 {
		return id[:8]
	}
	return id
}

// describeLine says what a line tells, and in which colour.
func describeLine(line logLine) (what, how, colour string) {
	switch level := line.text("level"); {
	case line.values["_aws"] != nil && line.text("msg") == "metrics":
		return describeMeasured(line)
	case line.values["_aws"] != nil:
		return describeHandled(line)
	case line.text("msg") == "step":
		return line.text("step"), inert(line.text("text")), bold
	case line.text("msg") == "tool":
		how = line.text("tool")
		if n := line.text("files"); n != "0" && n != "" {
			how += ", " + plural(n, "file") + " touched so far"
		}
		return line.text("step"), inert(how), ""
	case level == "ERROR":
		return "error", inert(line.text("msg")) + rest(line), red
	case level == "WARN":
		return "warning", inert(line.text("msg")) + rest(line), yellow
	case level == "DEBUG":
		return "debug", inert(line.text("msg")) + rest(line), faint
	}
	return "info", inert(line.text("msg")) + rest(line), faint
}

func plural(n, noun string) string {
	if n == "1" {
		return n + " " + noun
	}
	return n + " " + noun + "s"
}

// rest are the other members, in their order.
func rest(line logLine) string {
	shown := []string{
		"time", "level", "msg", "step", "tool", "container_id", "receives", "correlation_id", "command_id", "session_id", "thread_id",
		"project_id", "user_id", "project_key", "stack", "_aws",
	}
	if line.text("command_id") != "" {
		shown = append(shown, "message_id") // the shorter name is enough
	}
	var b strings.Builder
	for _, name := range line.names {
		if !slices.Contains(shown, name) {
			b.WriteString("  " + inert(name) + "=" + short(line.text(name), 300))
		}
	}
	return b.String()
}

// describeMeasured shows what was measured in a few words.
func describeMeasured(line logLine) (what, how, colour string) {
	if d, ok := line.number(metric.StepDuration); ok {
		return line.text(metric.Step), "took " + took(d), faint
	}
	if _, ok := line.number(metric.Commands); ok {
		how = inert(line.text(metric.Outcome))
		if d, ok := line.number(metric.CommandLatency); ok {
			how += " after " + took(d)
		}
		if n, ok := line.number(metric.AgentTurns); ok {
			cost, _ := line.number(metric.AgentCost)
			how += fmt.Sprintf(", %s, %.2f dollars", plural(fmt.Sprint(int(n)), "turn"), cost)
		}
		if line.text(metric.Outcome) == metric.Success {
			return "answer", how, green
		}
		return "answer", how, red
	}
	if n, ok := line.number(metric.Orphans); ok && n > 0 {
		return "orphans", plural(fmt.Sprint(int(n)), "project") + " of dead owners wait for a worker", yellow
	}
	return "", "", "" // the log says it in words, or nothing was found
}

// describeHandled shows how a message ended, if that is not said already.
func describeHandled(line logLine) (what, how, colour string) {
	switch line.text("outcome") {
	case "ok":
		return "", "", ""
	case "handed_back":
		return "handed back", short(line.text("error"), 300), yellow
	}
	return line.text("outcome"), short(line.text("error"), 300), red
}

// took is a duration in milliseconds for people.
func took(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return span(d)
}
