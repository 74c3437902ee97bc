package soak

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/platform"
)

// The parts of the commands that are compared: after the warm-up, and at the end.
const (
	earlyFrom, earlyTo = 0.3, 0.55
	lateFrom, lateTo   = 0.8, 1.01
)

// row compares a figure after the warm-up with one at the end.
type row struct {
	name        string
	early, late int64
	// The late one may be the early one and this part of it more, and this.
	part  float64
	more  int64
	scale float64
	unit  string
}

func (r row) bound() int64 { return int64(float64(r.early)*(1+r.part)) + r.more }

func (s *soak) rows() []row {
	const mb, kb = 1 << 20, 1 << 10
	both := func(of func(sample) int64) (int64, int64) {
		return s.window(earlyFrom, earlyTo, of), s.window(lateFrom, lateTo, of)
	}
	m1, m2 := both(func(x sample) int64 { return x.resident })
	t1, t2 := both(func(x sample) int64 { return x.threads })
	d1, d2 := both(func(x sample) int64 { return x.descriptors })
	f1, f2 := both(func(x sample) int64 { return x.temporary })
	return []row{
		{"Resident memory of a worker", m1, m2, 0.15, 6 * mb, mb, "MB"},
		{"Threads of a worker", t1, t2, 0.1, 4, 1, ""},
		{"Descriptors of a worker", d1, d2, 0.2, 12, 1, ""},
		{"Home and temporary files of a worker", f1, f2, 0, 64 * kb, kb, "KB"},
		{"Directory of a project and user, without its repository", s.directory(earlyFrom, earlyTo), s.directory(lateFrom, lateTo), 0.1, s.written(), kb, "KB"},
	}
}

// directory is the median of what the pairs' directories held, but for git.
func (s *soak) directory(from, to float64) int64 {
	var all []int64
	for _, d := range s.disk {
		if part := float64(d.answered) / float64(s.commands); part >= from && part < to {
			all = append(all, d.rest)
		}
	}
	return median(all)
}

// written is what the sites themselves may have grown by: each command adds a line of
// 60 bytes, which is in the source, in two pages and a style sheet.
func (s *soak) written() int64 { return int64(s.commands/len(s.projects)+inTurn) * 60 * 4 }

// perCommand is what a command adds to a repository, in bytes.
func (s *soak) perCommand() int64 {
	var most int64
	for _, d := range s.disk {
		most = max(most, d.git)
	}
	return most * int64(len(s.projects)) / int64(s.commands)
}

// restSockets is how many more sockets a worker at rest may have than a fresh one:
// connections that it keeps for a while, most of them the bucket's.
const restSockets = 64

// grown says what grows.
func (s *soak) grown() (all []string) {
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, r := range s.rows() {
		if r.early == 0 && r.name != s.rows()[3].name {
			say("%s: nothing was measured", r.name)
		}
		if r.late > r.bound() {
			say("%s grows: %d after the warm-up, %d at the end; want at most %d", r.name, r.early, r.late, r.bound())
		}
	}
	for by, n := range s.rested.goroutines {
		if n > s.fresh.goroutines[by] {
			say("a worker at rest has %d goroutines of %s, a fresh one %d", n, by, s.fresh.goroutines[by])
		}
	}
	if n := s.rested.files(); n > s.fresh.files() {
		say("a worker at rest has %d descriptors beside sockets, a fresh one %d", n, s.fresh.files())
	}
	if n := s.rested.sockets; n > s.fresh.sockets+restSockets {
		say("a worker at rest has %d sockets, a fresh one %d", n, s.fresh.sockets)
	}
	return all
}

// compare fails the test for what grows.
func (s *soak) compare() {
	for _, text := range s.grown() {
		s.t.Error(text)
	}
	for _, kind := range kinds() {
		if s.trimmed[kind] == 0 {
			s.t.Errorf("%s: never planted, or never trimmed", kind)
		}
	}
}

// kinds are what is planted.
func kinds() []string {
	return []string{
		"conversations of 30 days", "packages of 30 days", "packages above 2 trees or 2 GB", "npm's downloads of 30 days", "npm's downloads above 2 GB",
		"files of a crash of a day", "directories set aside a day ago", "merged side branches of 30 days", "more than 1000 loose objects",
	}
}

// markdown is the table.
func (s *soak) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s.\n\n", s.head)
	fmt.Fprintf(&b, "%d commands over %d projects by %d workers, `SANDBOX=%s`, in %s (%.1f a second), and %d more in projects where things were planted. ",
		s.commands, len(s.projects), workers, s.sandbox, s.took.Round(time.Second), float64(s.commands)/s.took.Seconds(), s.report.Commands-s.commands)
	fmt.Fprintf(&b, "Projects were claimed %d times. Each command has one answer and one commit", s.claimed())
	if !s.Options.Unlogged {
		b.WriteString(", and the agent ran once for it")
	}
	b.WriteString(".\n\n")
	b.WriteString("| What | After the warm-up | At the end | Allowed |\n|---|---|---|---|\n")
	for _, r := range s.rows() {
		f := func(n int64) string { return strings.TrimSpace(fmt.Sprintf("%.0f %s", float64(n)/r.scale, r.unit)) }
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, f(r.early), f(r.late), f(r.bound()))
	}
	fmt.Fprintf(&b, "| Goroutines at rest, without those of connections | %d (a fresh worker) | %d | the same |\n", s.fresh.running(), s.rested.running())
	fmt.Fprintf(&b, "| Descriptors at rest, without sockets | %d (a fresh worker) | %d | the same |\n", s.fresh.files(), s.rested.files())
	fmt.Fprintf(&b, "| Sockets at rest: connections that are kept for a while | %d (a fresh worker) | %d | %d |\n", s.fresh.sockets, s.rested.sockets, s.fresh.sockets+restSockets)
	fmt.Fprintf(&b, "| Bytes that a command adds to a repository, whole | – | %d | – |\n", s.perCommand())
	fmt.Fprintf(&b, "| Items in DynamoDB, each of which ends within 30 days | – | %d (%.1f for each command) | – |\n", s.items, float64(s.items)/float64(s.report.Commands))
	b.WriteString("\n| Planted, and gone when the next command was answered and the project released | Times |\n|---|---|\n")
	for _, kind := range slices.Sorted(maps.Keys(s.trimmed)) {
		fmt.Fprintf(&b, "| %s | %d |\n", kind, s.trimmed[kind])
	}
	return b.String()
}

func (s *soak) claimed() (n int) {
	for _, w := range s.slots {
		n += strings.Count(w.Log(), `"msg":"project claimed"`)
	}
	return n
}

// machine is what the figures depend on.
func machine() string {
	commit := "no commit"
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude", "*").Output(); err == nil { //nolint:noctx // it ends at once
		commit = "commit " + strings.TrimSpace(string(out))
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte(err.Error())
	}
	return fmt.Sprintf("%s, %s, %d cores, %s %s/%s; load average at the start %s", time.Now().UTC().Format("2006-01-02 15:04 MST"), commit,
		runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(strings.Fields(string(load))[:3], " "))
}

// The marks of the table.
const (
	markBegin = "<!-- soak: begin; written by make soak -->\n"
	markEnd   = "<!-- soak: end -->"
)

var errNoMarks = errors.New("there are no two marks to write the table between")

// write replaces what is between the marks of a document.
func write(name, text string) error {
	doc, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(doc, []byte(markBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(markEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s: %w", name, errNoMarks)
	}
	return os.WriteFile(name, slices.Concat(before, []byte(markBegin+text+markEnd), after), 0o644)
}

// TestGrownIsNamed: of what is looked at in a soak, each growth beyond its bound, and
// nothing else.
func TestGrownIsNamed(t *testing.T) {
	run := func(change func(s *soak, x *sample)) []string {
		s := &soak{
			commands: 100, projects: make([]*platform.Project, 4),
			fresh:  figures{descriptors: 20, sockets: 8, goroutines: map[string]int{"main": 2}},
			rested: figures{descriptors: 20 + restSockets, sockets: 8 + restSockets, goroutines: map[string]int{"main": 2}},
		}
		for n := range 100 {
			x := sample{answered: n, figures: figures{resident: 60 << 20, threads: 12, descriptors: 40}, temporary: 1000}
			if n > 60 { // the window of the end
				x.resident, x.threads, x.descriptors = x.resident+14<<20, x.threads+5, x.descriptors+19 // as much as may be
				change(s, &x)
			}
			s.samples = append(s.samples, x)
			s.disk = append(s.disk, disk{answered: n, git: int64(n) << 20, rest: 1 << 20})
		}
		return s.grown()
	}
	for name, tt := range map[string]struct {
		change func(s *soak, x *sample)
		want   string
	}{
		"nothing":     {func(*soak, *sample) {}, ""},
		"memory":      {func(_ *soak, x *sample) { x.resident += 2 << 20 }, "Resident memory of a worker grows"},
		"threads":     {func(_ *soak, x *sample) { x.threads++ }, "Threads of a worker grows"},
		"descriptors": {func(_ *soak, x *sample) { x.descriptors += 2 }, "Descriptors of a worker grows"},
		"files":       {func(_ *soak, x *sample) { x.temporary += 65 << 10 }, "Home and temporary files of a worker grows"},
		"directories": {func(s *soak, _ *sample) { s.disk[len(s.disk)-1].rest += 1 << 20 }, "Directory of a project and user"},
		"at rest":     {func(s *soak, _ *sample) { s.rested.descriptors = 20 + restSockets + 1 }, "a worker at rest has 13 descriptors"},
		"sockets":     {func(s *soak, _ *sample) { s.rested.descriptors, s.rested.sockets = 300, 288 }, "a worker at rest has 288 sockets"},
		"goroutines":  {func(s *soak, _ *sample) { s.rested.goroutines["main"] = 3 }, "a worker at rest has 3 goroutines of main"},
	} {
		got := run(tt.change)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if got := (&soak{commands: 1, projects: make([]*platform.Project, 1)}).grown(); len(got) != 4 || !strings.Contains(got[0], "nothing was measured") {
		t.Errorf("nothing at all: %q", got)
	}
}

func TestWrite(t *testing.T) {
	file := t.TempDir() + "/doc.md"
	if err := os.WriteFile(file, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(file, "new\n"); !errors.Is(err, errNoMarks) {
		t.Errorf("a document without marks: %v", err)
	}
	if err := os.WriteFile(file, []byte("above\n"+markBegin+"old\n"+markEnd+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(file, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if d := cmp.Diff("above\n"+markBegin+"new\n"+markEnd+"\nbelow\n", string(got)); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestDocument: the document has the table.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), markBegin)
	table, _, ok := strings.Cut(rest, markEnd)
	if !ok || !strings.Contains(table, "| Resident memory of a worker |") {
		t.Error("docs/benchmarks.md has no table of the soak; make soak writes it")
	}
}
