package bench

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

// receiveRounds is divided by three: each of the three goes first equally often.
const receiveRounds = 9

// BenchmarkReceive has the queue's own benchmark run, on the same emulators.
func BenchmarkReceive(b *testing.B) {
	cmd := exec.CommandContext(b.Context(), "go", "test", "-run", "^$", "-bench", "^BenchmarkReceive$", "-benchtime", strconv.Itoa(receiveRounds)+"x", "./internal/aws/queue")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), emulators.Variable+"="+emulators.Shared(b).String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	b.Logf("%s", out)
	for name, concurrency := range map[string]int{receiveOne: 1, receiveFour: 4} {
		m := metricsOf(string(out), fmt.Sprintf("BenchmarkReceive/concurrency=%d", concurrency))
		for _, unit := range []string{"ours_msg/s", "raw_msg/s", "plain_msg/s", "ours/raw", "ours/plain", "calls/msg"} {
			if _, ok := m[unit]; !ok {
				b.Fatalf("%s has no %s in\n%s", name, unit, out)
			}
		}
		results.set(name, row{
			figure: fmt.Sprintf("%.0f/s, %.2f calls each", m["ours_msg/s"], m["calls/msg"]),
			against: fmt.Sprintf("**%.2f×** the raw loop's %.0f/s (goal ≥ 0.95×); %.2f× watermill-aws's %.0f/s",
				m["ours/raw"], m["raw_msg/s"], m["ours/plain"], m["plain_msg/s"]),
			runs: fmt.Sprintf("%d × 200 messages", receiveRounds),
		})
	}
}

// metricsOf reads a benchmark's line: values, each before its unit.
func metricsOf(out, name string) map[string]float64 {
	all := map[string]float64{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != name && !strings.HasPrefix(f[0], name+"-") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				all[f[i+1]] = v
			}
		}
	}
	return all
}

func TestMetricsOf(t *testing.T) {
	const out = "goos: linux\nBenchmarkReceive/concurrency=1-2  \t 9 \t 2.000 calls/msg\t 0.97 ours/raw\nBenchmarkReceive/concurrency=16-2 \t 9 \t 3.0 calls/msg\n"
	m := metricsOf(out, "BenchmarkReceive/concurrency=1")
	if len(m) != 2 || m["calls/msg"] != 2 || m["ours/raw"] != 0.97 {
		t.Errorf("got %v", m)
	}
}
