package infra

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
)

var update = flag.Bool("update", false, "write infra/cloudwatch and the tables of docs/operations.md anew")

// golden compares a file of the repository with what it is made from, or writes it.
func golden(t *testing.T, name string, want []byte) {
	t.Helper()
	file := filepath.Join(root, filepath.FromSlash(name))
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./tests/infra -update writes it", err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not what go test ./tests/infra -update writes (-want +got):\n%s", name, d)
	}
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAlarms(t *testing.T) {
	var all []alarmInput
	for _, a := range alarms() {
		i := slices.IndexFunc(metric.All(), func(m metric.Metric) bool { return m.Name == a.metric })
		if i < 0 {
			t.Fatalf("%s watches %s, which nobody measures", a.name, a.metric)
		}
		var by []string
		for _, d := range a.by {
			by = append(by, d.Name)
		}
		m := metric.All()[i]
		if !slices.ContainsFunc(m.Dimensions, func(set []string) bool { return slices.Equal(set, by) }) {
			t.Errorf("%s watches %s by %v, which is kept by %v", a.name, m.Name, by, m.Dimensions)
		}
		all = append(all, a.input(m.Unit))
	}
	golden(t, "infra/cloudwatch/alarms.json", indented(t, all))
}

// TestRunbook: each alarm has its heading, and each heading its alarm; under each is
// said what it means, what to look at and what to do.
func TestRunbook(t *testing.T) {
	text := guide(t)
	_, runbook, ok := strings.Cut(text, "\n## Alarms\n")
	if !ok {
		t.Fatal("docs/operations.md has no section Alarms")
	}
	runbook, _, _ = strings.Cut(runbook, "\n## ")
	parts := strings.Split(runbook, "\n### ")[1:]
	var names []string
	for _, part := range parts {
		name, body, _ := strings.Cut(part, "\n")
		names = append(names, name)
		for _, word := range []string{"**Means.**", "**Look at.**", "**Do.**"} {
			if !strings.Contains(body, word) {
				t.Errorf("the runbook of %s lacks %s", name, word)
			}
		}
	}
	var want []string
	for _, a := range alarms() {
		want = append(want, a.name)
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("alarms, and the headings of the runbook:\n%s", d)
	}
}

func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMetricsTable of the documents is the one in the code.
func TestMetricsTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("| metric | unit | by | meaning |\n|---|---|---|---|\n")
	for _, m := range metric.All() {
		var by []string
		for _, set := range m.Dimensions {
			if len(set) == 0 {
				by = append(by, "all")
			} else {
				by = append(by, strings.Join(set, " and "))
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Unit, strings.Join(by, "; "), m.Meaning)
	}
	const begin, end = "<!-- metrics: written by go test ./tests/infra -update -->\n", "<!-- metrics end -->"
	between := regexp.MustCompile("(?s)" + regexp.QuoteMeta(begin) + ".*?" + regexp.QuoteMeta(end))
	text := guide(t)
	if !between.MatchString(text) {
		t.Fatal("docs/operations.md has no place for the metrics")
	}
	golden(t, "docs/operations.md", []byte(between.ReplaceAllLiteralString(text, begin+b.String()+end)))
}

// widget is a graph of the dashboard.
type widget struct {
	Type       string     `json:"type"`
	X          int        `json:"x"`
	Y          int        `json:"y"`
	Width      int        `json:"width"`
	Height     int        `json:"height"`
	Properties properties `json:"properties"`
}

type properties struct {
	Title   string  `json:"title"`
	Region  string  `json:"region"`
	View    string  `json:"view"`
	Stacked bool    `json:"stacked,omitempty"`
	Period  int     `json:"period"`
	Stat    string  `json:"stat"`
	Metrics [][]any `json:"metrics"`
}

// TestDashboard has a graph for each metric and each way in which it is kept, and one
// of what waits in the queues.
func TestDashboard(t *testing.T) {
	var all []widget
	for _, m := range metric.All() {
		stat := "Sum"
		if m.Unit == metric.Milliseconds {
			stat = "p90"
		}
		if m.Name == metric.Orphans {
			stat = "Maximum"
		}
		for _, set := range m.Dimensions {
			title := fmt.Sprintf("%s, %s", m.Name, stat)
			if len(set) > 0 {
				title += " by " + strings.Join(set, " and ")
			}
			all = append(all, graph(title, stat, series(m, set)))
		}
	}
	search := `SEARCH('{AWS/SQS,QueueName} webordinary MetricName="%s"', 'Maximum', 60)`
	for _, name := range []string{"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"} {
		all = append(all, graph("SQS "+name, "Maximum", []any{map[string]any{"expression": fmt.Sprintf(search, name), "id": "queues"}}))
	}
	for i := range all {
		all[i].X, all[i].Y = i%3*8, i/3*6
	}
	golden(t, "infra/cloudwatch/dashboard.json", indented(t, map[string]any{"widgets": all}))
}

// series is a metric in a graph: itself, or all values of its dimensions.
func series(m metric.Metric, set []string) []any {
	if len(set) == 0 {
		return []any{metric.Namespace, string(m.Name)}
	}
	names := strings.Join(append([]string{metric.Namespace}, set...), ",")
	stat := "Sum"
	if m.Unit == metric.Milliseconds {
		stat = "p90"
	}
	return []any{map[string]any{"expression": fmt.Sprintf(`SEARCH('{%s} MetricName="%s"', '%s', 300)`, names, m.Name, stat), "id": "all"}}
}

func graph(title, stat string, series []any) widget {
	return widget{Type: "metric", Width: 8, Height: 6, Properties: properties{
		Title: title, Region: "${AWS_REGION}", View: "timeSeries", Period: 300, Stat: stat, Metrics: [][]any{series},
	}}
}

// TestCloudWatchPlaceholders are explained, and so is each file.
func TestCloudWatchPlaceholders(t *testing.T) {
	text := guide(t)
	files, err := filepath.Glob(filepath.Join(root, "infra", "cloudwatch", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\$\{(\w+)\}`).FindAllSubmatch(body, -1) {
			if !strings.Contains(text, "`"+string(m[1])+"`") {
				t.Errorf("docs/operations.md does not say what %s is", m[1])
			}
		}
		if !strings.Contains(text, filepath.Base(file)) {
			t.Errorf("docs/operations.md does not say what %s is for", filepath.Base(file))
		}
	}
}
