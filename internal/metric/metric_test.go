package metric_test

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/metric"
)

// TestLine is a line as CloudWatch reads it: metrics with the same dimensions are
// together, and each dimension is a member that is not empty.
func TestLine(t *testing.T) {
	var out strings.Builder
	at := time.UnixMilli(1760000000000).UTC()
	l := metric.New(slog.NewJSONHandler(&out, nil), func() time.Time { return at })
	l.Write(t.Context(), []slog.Attr{slog.String(metric.Outcome, "success"), slog.String(metric.Model, "")},
		metric.Value{Name: metric.Commands, Value: 1}, metric.Value{Name: metric.AgentCost, Value: 0.25},
		metric.Value{Name: metric.AgentTokens, Value: 1200}, metric.Value{Name: "unknown to the table", Value: 1})
	const want = `{"time":"2025-10-09T08:53:20Z","level":"INFO","msg":"metrics","outcome":"success","model":"unknown",` +
		`"commands":1,"agent_cost_usd":0.25,"agent_tokens":1200,"_aws":{"Timestamp":1760000000000,"CloudWatchMetrics":[` +
		`{"Namespace":"WebOrdinary","Dimensions":[[],["outcome"]],"Metrics":[{"Name":"commands","Unit":"Count"}]},` +
		`{"Namespace":"WebOrdinary","Dimensions":[[],["model"]],"Metrics":[{"Name":"agent_cost_usd","Unit":"None"},{"Name":"agent_tokens","Unit":"Count"}]}]}}` + "\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestTable(t *testing.T) {
	seen := map[metric.Name]bool{}
	for _, m := range metric.All() {
		if seen[m.Name] || !regexp.MustCompile(`^[a-z][a-z_]*$`).MatchString(string(m.Name)) || m.Unit == "" || len(m.Dimensions) == 0 || !strings.HasSuffix(m.Meaning, ".") {
			t.Errorf("row %+v", m)
		}
		seen[m.Name] = true
	}
}
