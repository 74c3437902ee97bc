package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

// The rows of the table, in their order.
const (
	receiveOne    = "Messages received and deleted, one subscription"
	receiveFour   = "Messages received and deleted, four subscriptions"
	claimHandler  = "Claim request sent → first command's handler begun"
	claimAgent    = "Claim request sent → first command's agent started"
	recovery      = "Worker killed (-9) in the agent's step → agent started again elsewhere"
	recoveryReal  = "The same with the default settings (lease 45 s)"
	callsIdle     = "API calls per hour, idle, no project claimed"
	callsClaimed  = "API calls per hour, idle, one project claimed"
	callsMessage  = "API calls per command that changes a page"
	shutdown      = "SIGTERM in a job longer than the grace → worked on elsewhere"
	shutdownAfter = "The same, counted from the cut"
	gitSmall      = "git of a command and of one in another thread, 300 files"
	gitLarge      = "The same, 5,000 files"
	gitIgnored    = "The same, 5,000 files and 25,000 ignored ones"
	wholeNear     = "The whole command on the Astro site, without agent and npm run build"
	wholeFar      = "The same, requests 20 ms away"
	coldNear      = "The same in a cold workspace with kept packages, without the clone"
	coldFar       = "The same in a cold workspace, requests 20 ms away"
	gitHistory    = "git of a command, with ten times the history"
	startUp       = "Start of the program → first ReceiveMessage"
	memory        = "Resident memory, idle"
	deployGrowth  = "Deploy of a site with ten times as many files"
	deployInTurn  = "Deploy of one edited page, with all that a worker does for it"
	interruptGone = "Newer instruction sent → nothing left of the interrupted one's processes"
	interruptNext = "From there → the newer instruction's first request of the model"
)

func order() []string {
	all := []string{
		receiveOne, receiveFour, claimHandler, claimAgent, recovery, recoveryReal,
		callsIdle, callsClaimed, callsMessage, shutdown, shutdownAfter, startUp, memory,
		gitSmall, gitLarge, gitIgnored, gitHistory,
		deployGrowth, deployInTurn,
		wholeNear, wholeFar, coldNear, coldFar,
		interruptGone, interruptNext,
	}
	for _, wall := range process.Walls() {
		all = append(all, overheadRow(wall))
	}
	return all
}

// row is one line of the table. All of it is text.
type row struct {
	figure  string
	against string // a goal, or what was measured beside it
	runs    string
}

// report is filled by the benchmarks, one after the other.
type report struct {
	head    string // when and on what
	when    string // the same, short: when, which commit, and the load
	rows    map[string]row
	deploys deployTable
}

// begun notes what the figures depend on.
func (r *report) begun(now time.Time) {
	date, commit, busy := now.UTC().Format("2006-01-02 15:04 MST"), revision(), load()
	r.head = fmt.Sprintf("%s, %s, %d cores (%s), %s %s/%s; load average at the start %s",
		date, commit, runtime.NumCPU(), processor(), runtime.Version(), runtime.GOOS, runtime.GOARCH, busy)
	r.when = fmt.Sprintf("%s, %s, load %s", date, commit, strings.Fields(busy + " ?")[0])
}

func (r *report) set(name string, measured row) { r.rows[name] = measured }

// markdown is the table. A row that was not measured now is as it was before, with
// its time; one that never was says so.
func (r *report) markdown(before string) string {
	var b strings.Builder
	b.WriteString("| What | Figure | Against | Runs | Measured |\n|---|---|---|---|---|\n")
	for _, name := range order() {
		got, ok := r.rows[name]
		_, rest, had := strings.Cut(before, "\n| "+name+" | ")
		switch {
		case ok:
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, got.figure, got.against, got.runs, r.when)
		case had:
			line, _, _ := strings.Cut(rest, "\n")
			fmt.Fprintf(&b, "| %s | %s\n", name, line)
		default:
			fmt.Fprintf(&b, "| %s | not measured | | | |\n", name)
		}
	}
	return b.String()
}

// compared is the table of deploys.
func (r *report) compared() string {
	return fmt.Sprintf("Measured %s.\n\n%s", r.head, r.deploys.markdown())
}

// The marks of the two tables.
const (
	markBegin    = "<!-- table: begin; written by make bench -->\n"
	markEnd      = "<!-- table: end -->"
	deploysBegin = "<!-- deploys: begin; written by make bench -->\n"
	deploysEnd   = "<!-- deploys: end -->"
)

var errNoMarks = errors.New("there are no two marks to write the table between")

// write replaces what is between the marks of a document.
func (r *report) write(name string) error {
	doc, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	_, before, _ := strings.Cut(string(doc), markBegin)
	before, _, _ = strings.Cut(before, markEnd)
	if doc, err = replace(doc, markBegin, markEnd, r.markdown(before)); err == nil && len(r.deploys.rows) > 0 {
		doc, err = replace(doc, deploysBegin, deploysEnd, r.compared())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, doc, 0o644)
}

func replace(doc []byte, begin, end, text string) ([]byte, error) {
	before, rest, ok := bytes.Cut(doc, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, errNoMarks
	}
	return slices.Concat(before, []byte(begin+text+end), after), nil
}

// revision is the commit that is measured.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude", "*").Output() //nolint:noctx // it ends at once
	if err != nil {
		return "no commit (git says " + err.Error() + ")"
	}
	return "commit " + strings.TrimSpace(string(out))
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	_, rest, _ := strings.Cut(string(b), "model name\t: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// median is that of a copy.
func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// spread is the median, with the least and the most.
func spread(all []time.Duration, unit time.Duration, decimals int) string {
	f := func(d time.Duration) string { return fmt.Sprintf("%.*f", decimals, float64(d)/float64(unit)) }
	name := map[time.Duration]string{time.Millisecond: "ms", time.Second: "s"}[unit]
	if len(all) == 1 {
		return f(all[0]) + " " + name
	}
	return fmt.Sprintf("%s %s (%s to %s)", f(median(all)), name, f(slices.Min(all)), f(slices.Max(all)))
}

func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	r := report{head: "today", when: "today", rows: map[string]row{}}
	if err := os.WriteFile(file, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.write(file); !errors.Is(err, errNoMarks) {
		t.Errorf("a document without marks: %v", err)
	}
	if err := os.WriteFile(file, []byte("above\n"+markBegin+"| What |\n| "+receiveOne+" | 1 | 2 | 3 | yesterday |\n| gone | 1 | 2 | 3 | yesterday |\n"+markEnd+"\nbetween\n"+deploysBegin+deploysEnd+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.set(memory, row{"30 MB", "40 MB", "2"})
	for range 2 { // what it wrote, it finds again
		if err := r.write(file); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		"above\n" + markBegin, markEnd + "\nbetween\n" + deploysBegin + deploysEnd + "\nbelow\n",
		"| " + memory + " | 30 MB | 40 MB | 2 | today |\n", "| " + startUp + " | not measured",
		"| " + receiveOne + " | 1 | 2 | 3 | yesterday |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "gone") {
		t.Errorf("a row without a benchmark stays in\n%s", text)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		all  []time.Duration
		want time.Duration
	}{
		{nil, 0}, {[]time.Duration{5}, 5}, {[]time.Duration{9, 1, 5}, 5}, {[]time.Duration{9, 1, 5, 7}, 6},
	} {
		if got := median(tt.all); got != tt.want {
			t.Errorf("median of %v is %d, want %d", tt.all, got, tt.want)
		}
	}
	if got := spread([]time.Duration{1500 * time.Millisecond, time.Second, 4 * time.Second}, time.Second, 1); got != "1.5 s (1.0 to 4.0)" {
		t.Errorf("spread %q", got)
	}
	if got := spread([]time.Duration{58 * time.Millisecond}, time.Millisecond, 0); got != "58 ms" {
		t.Errorf("of one: %q", got)
	}
}

// TestDocument: the document has the marks, and a table of today's rows.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), markBegin)
	table, _, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		t.Fatal(errNoMarks)
	}
	if _, deploys, _ := strings.Cut(string(b), deploysBegin); !strings.Contains(deploys, "\n| Site, latency | Step | ours |") {
		t.Error("no table of deploys; make bench writes it")
	}
	for _, name := range order() {
		if !strings.Contains(table, "\n| "+name+" | ") {
			t.Errorf("no row %q; make bench writes it", name)
		}
	}
}

// TestDeployTable: the best of the others is found, and what is missing named.
func TestDeployTable(t *testing.T) {
	costs := map[string][][]cost{}
	for _, step := range steps() {
		costs[step] = [][]cost{{{wall: 9}, {wall: 10}, {wall: 11}}, {{wall: 30}}, {{wall: 35}}, {{wall: 25}}, nil}
	}
	table := deployTable{tools: []tool{{name: "ours"}, {name: "new"}, {name: "a"}, {name: "b"}, {name: "c", missing: "not here"}}}
	table.add(&compared{site: &built{name: "Site", files: 2}, delay: distance, costs: costs})
	got := table.markdown()
	for _, want := range []string{"| ours | new | a | b | Best", "| Site (2 files, 0.0 KB), 20ms | one page edited |", "| **2.5×** ours (b) |\n", "**Not measured:** c: not here."} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}
