// Package metrictest reads what a worker measured.
package metrictest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
)

// Line is a line with metrics: its members, and the metrics among them.
type Line struct {
	Members map[string]any
	Metrics []metric.Name
}

// Read returns the lines of a log that hold metrics. What is not as the table says is
// an error of the test: a metric, unit or dimension that it lacks, or a member that is
// missing.
func Read(tb testing.TB, log string) []Line {
	tb.Helper()
	table := map[metric.Name]metric.Metric{}
	for _, m := range metric.All() {
		table[m.Name] = m
	}
	var all []Line
	for text := range strings.Lines(log) {
		if !strings.Contains(text, `"_aws"`) {
			continue
		}
		line := Line{Members: map[string]any{}}
		if err := json.Unmarshal([]byte(text), &line.Members); err != nil {
			tb.Fatalf("%v: %s", err, text)
		}
		var aws struct {
			AWS struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct {
						Name metric.Name
						Unit metric.Unit
					}
				}
			} `json:"_aws"`
		}
		if err := json.Unmarshal([]byte(text), &aws); err != nil || aws.AWS.Timestamp == 0 {
			tb.Fatalf("%v: %s", err, text)
		}
		for _, d := range aws.AWS.CloudWatchMetrics {
			if d.Namespace != metric.Namespace {
				tb.Errorf("namespace %q", d.Namespace)
			}
			for _, name := range slices.Concat(d.Dimensions...) {
				if s, _ := line.Members[name].(string); s == "" {
					tb.Errorf("the dimension %s is missing: %s", name, text)
				}
			}
			for _, m := range d.Metrics {
				row, known := table[m.Name]
				if !known {
					tb.Errorf("the table lacks %s", m.Name)
				}
				if diff := cmp.Diff(row.Dimensions, d.Dimensions); diff != "" || row.Unit != m.Unit {
					tb.Errorf("%s is written as %s, the table has %s; dimensions (-table +line):\n%s", m.Name, m.Unit, row.Unit, diff)
				}
				if v, ok := line.Members[string(m.Name)].(float64); !ok || v < 0 {
					tb.Errorf("the metric %s has no value: %s", m.Name, text)
				}
				line.Metrics = append(line.Metrics, m.Name)
			}
		}
		all = append(all, line)
	}
	return all
}

// Sum adds the values of a metric in lines that have such members, given as name and
// value.
func Sum(all []Line, name metric.Name, members ...string) float64 {
	sum := 0.0
	for _, l := range all {
		matches := slices.Contains(l.Metrics, name)
		for i := 0; i+1 < len(members); i += 2 {
			matches = matches && l.Members[members[i]] == members[i+1]
		}
		if matches {
			v, _ := l.Members[string(name)].(float64)
			sum += v
		}
	}
	return sum
}
