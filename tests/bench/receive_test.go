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

// The units of what is measured of each of the three.
const (
	rate = "_msg/s"
	cpu  = "_cpu-µs/msg"
)

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
		for _, unit := range []string{"ours" + rate, "raw" + rate, "plain" + rate, "ours" + cpu, "raw" + cpu, "plain" + cpu, "ours/raw", "ours/plain", "calls/msg"} {
			if _, ok := m[unit]; !ok {
				b.Fatalf("%s has no %s in\n%s", name, unit, out)
			}
		}
		results.set(name, row{
			figure: fmt.Sprintf("%.0f/s, %.2f calls and %.0f µs of processor time each", m["ours"+rate], m["calls/msg"], m["ours"+cpu]),
			against: fmt.Sprintf("**%.2f×** the raw loop (%.0f/s, %.0f µs; goal ≥ 0.95×); %.2f× watermill-aws (%.0f/s, %.0f µs)",
				m["ours/raw"], m["raw"+rate], m["raw"+cpu], m["ours/plain"], m["plain"+rate], m["plain"+cpu]),
			runs: fmt.Sprintf("%d × 1,000 messages", receiveRounds),
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
