package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/program"
)

const (
	// patience bounds each wait. The machine decides how much of it is needed.
	patience = 3 * time.Minute

	starts = 10
	settle = 30 * time.Second // until memory is read
)

// defaults are the program's own settings, with a container of the command agent.
func defaults() platform.Options {
	return platform.Options{
		Lease: 45 * time.Second, Renewal: 10 * time.Second, Sweep: 10 * time.Second, Visibility: 45 * time.Second,
		Idle: 5 * time.Minute, Grace: 25 * time.Second, Env: []string{"LOG_LEVEL=info"},
	}
}

// BenchmarkProgram starts the program as it is delivered, again and again, and leaves
// it running idle.
func BenchmarkProgram(b *testing.B) {
	o := defaults()
	o.Program = program.Build(b)
	p := platform.New(b, o)
	var times []time.Duration
	var idle []*platform.Worker
	for range starts + 1 {
		calls := watch(b, p.Set)
		w := p.StartWorker(calls.servers...)
		times, idle = append(times, calls.await(b, "sqs:ReceiveMessage").Sub(w.Started)), append(idle, w)
	}
	b.Logf("from start to poll: %v; the first, which reads the program from the disk, does not count", times)
	platform.Wait(settle)
	var sizes []time.Duration // a byte is a nanosecond
	for _, w := range idle {
		sizes = append(sizes, time.Duration(resident(b, w.Pid())))
	}
	b.Logf("resident bytes: %d", sizes)
	results.set(startUp, row{spread(times[1:], time.Millisecond, 0), "goal ≤ 150 ms", strconv.Itoa(starts)})
	results.set(memory, row{
		fmt.Sprintf("%.1f MB (median)", float64(median(sizes))/1e6), "goal ≤ 40 MB",
		fmt.Sprintf("%d workers, %.0f s old", len(sizes), settle.Seconds()),
	})
}

// resident is VmRSS, in bytes.
func resident(tb testing.TB, pid int) int64 {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	f := strings.Fields(rest)
	if len(f) < 2 || f[1] != "kB" {
		tb.Fatalf("no VmRSS in %s", b)
	}
	kb, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return kb << 10
}
