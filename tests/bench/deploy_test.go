package bench

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

const (
	distance  = 20 * time.Millisecond // of AWS
	runsAstro = 5
	runsSmall = 3
	manyFiles = 5000
	warmUp    = 20 // deploys until DynamoDB Local has compiled what it runs
	fewFiles  = manyFiles / 10
)

// steps are what is done with a bucket, one after the other. An edit is a rebuild,
// so that every file has a new time.
func steps() []string { return []string{"first", "no change", "one page edited", "one CSS class"} }

func (b *built) step(name string) (dir string, isRebuilt bool) {
	switch name {
	case "one page edited":
		return b.page, true
	case "one CSS class":
		return b.css, true
	}
	return b.base, false
}

// BenchmarkDeploy deploys to buckets behind a slow proxy, by the worker's code and by
// tools that a user might take instead, in turn.
//
// -tools names the ones beside ours that are measured: new, rclone, s5cmd, aws, s3deploy.
func BenchmarkDeploy(b *testing.B) {
	w := startDeploys(b)
	w.tools = append(w.ours(b), peers(b, w.s3)...)
	for i, t := range w.tools {
		if *onlyTools != "" && i > 0 && !slices.Contains(strings.Split(*onlyTools, ","), t.short) {
			w.tools[i].missing = "left out"
		}
	}
	results.deploys.begun(w.tools)
	astro, many, few := astroSite(b), smallFiles(b, manyFiles), smallFiles(b, fewFiles)
	for _, delay := range []time.Duration{0, distance} {
		results.deploys.add(w.compare(b, astro, delay, runsAstro))
		results.deploys.add(w.compare(b, many, delay, runsSmall))
	}
	w.growth(b, few, many)
}

// BenchmarkInTurn deploys with all that a worker does for it.
func BenchmarkInTurn(b *testing.B) {
	w := startDeploys(b)
	w.ours(b)
	w.inTurn(b, astroSite(b))
}

func startDeploys(b *testing.B) *deployBench {
	b.Helper()
	set := emulators.Shared(b)
	w := &deployBench{set: set, s3: startSlowProxy(b, set.S3), dynamo: startSlowProxy(b, set.DynamoDB), dir: b.TempDir()}
	w.table = emulators.Unique(b, "turns")
	set.CreateClaimTable(b, w.table)
	return w
}

type deployBench struct {
	set        *emulators.Set
	s3, dynamo *slowProxy
	table      string
	dir        string
	worker     *deployerProcess
	tools      []tool // the first two are ours
}

// ours are the worker's way to deploy, and the same of a worker that has just
// started and remembers nothing.
func (w *deployBench) ours(b *testing.B) []tool {
	b.Helper()
	w.worker = startDeployer(b)
	return []tool{
		{name: "ours", deploy: func(dir, name string) (cost, error) {
			return w.worker.cost(deployRequest{S3: w.s3.url, Bucket: name, Dir: dir, Memory: w.memory(name)})
		}},
		{name: "ours, new process", short: "new", deploy: func(dir, name string) (cost, error) {
			request, err := json.Marshal(deployRequest{S3: w.s3.url, Bucket: name, Dir: dir})
			if err != nil {
				return cost{}, err
			}
			return runTool(deployerCommand(b, string(request)))
		}},
	}
}

func (w *deployBench) memory(bucketName string) string {
	return filepath.Join(w.dir, bucketName+".json")
}

// compared are the costs of the tools, by step and tool, run by run.
type compared struct {
	site  *built
	delay time.Duration
	costs map[string][][]cost
}

// compare lets all tools take all steps. They take turns, and each goes first in
// turn.
func (w *deployBench) compare(b *testing.B, site *built, delay time.Duration, runs int) *compared {
	b.Helper()
	c := &compared{site: site, delay: delay, costs: map[string][][]cost{}}
	for _, step := range steps() {
		c.costs[step] = make([][]cost, len(w.tools))
	}
	for run := range runs {
		for i := range w.tools {
			i = (i + run) % len(w.tools)
			t := w.tools[i]
			if t.missing != "" || run > 0 && (t.slow && site.files >= manyFiles || t.slowest) {
				continue
			}
			name := emulators.Unique(b, "deploy")
			w.set.CreateBucket(b, name)
			for _, step := range steps() {
				got := w.take(b, t, site, step, name, delay)
				c.costs[step][i] = append(c.costs[step][i], got)
				b.Logf("%s, %s, %s, %s: %s", site.name, delay, step, t.name, got)
			}
		}
	}
	return c
}

// take takes one step.
func (w *deployBench) take(b *testing.B, t tool, site *built, step, bucketName string, delay time.Duration) cost {
	b.Helper()
	dir, isRebuilt := site.step(step)
	if isRebuilt {
		if err := rebuilt(dir); err != nil {
			b.Fatal(err)
		}
	}
	w.s3.reset(delay)
	w.dynamo.reset(delay)
	got, err := t.deploy(dir, bucketName)
	if err != nil {
		b.Fatalf("%s, %s: %v", site.name, step, err)
	}
	got.requests, got.sent = w.s3.requests.Load(), w.s3.sent.Load()
	return got
}

// growth compares a site with one of ten times as many files, both in turn.
func (w *deployBench) growth(b *testing.B, few, many *built) {
	b.Helper()
	own := *w
	own.tools = w.tools[:1]
	small, large := map[string][]cost{}, map[string][]cost{}
	for range runsAstro {
		a, z := own.compare(b, few, distance, 1), own.compare(b, many, distance, 1)
		for _, step := range steps() {
			small[step], large[step] = append(small[step], a.costs[step][0]...), append(large[step], z.costs[step][0]...)
		}
	}
	var figures []string
	for _, step := range steps() {
		was, is := medianCost(small[step]), medianCost(large[step])
		text := fmt.Sprintf("%s: **%.2f×** wall time per file", step, is.wall.Seconds()/was.wall.Seconds()*float64(few.files)/float64(many.files))
		if step != steps()[0] {
			text += fmt.Sprintf(", requests %d → %d, sent %s → %s", was.requests, is.requests, size(was.sent), size(is.sent))
		}
		figures = append(figures, text)
	}
	results.set(deployGrowth, row{
		strings.Join(figures, "; "),
		fmt.Sprintf("%d files → %d, at %s; goals ≤ 1.0×, and for an edit's requests and bytes ≤ 1.3×", few.files, many.files, distance), fmt.Sprint(runsAstro),
	})
}

// inTurn measures what else a worker does for a deploy: its turn at the bucket, and
// the journal.
func (w *deployBench) inTurn(b *testing.B, site *built) {
	b.Helper()
	t := tool{name: "in turn", deploy: func(dir, name string) (cost, error) {
		return w.worker.cost(deployRequest{S3: w.s3.url, DynamoDB: w.dynamo.url, Table: w.table, Bucket: name, Dir: dir, Memory: w.memory(name)})
	}}
	warm := emulators.Unique(b, "deploy")
	w.set.CreateBucket(b, warm)
	for range warmUp {
		w.take(b, t, site, "no change", warm, 0)
	}
	var figures []string
	for _, delay := range []time.Duration{0, distance} {
		var walls []time.Duration
		var calls int64
		for range runsAstro {
			name := emulators.Unique(b, "deploy")
			w.set.CreateBucket(b, name)
			w.take(b, t, site, "first", name, 0)
			walls = append(walls, w.take(b, t, site, "one page edited", name, delay).wall)
			calls = w.dynamo.requests.Load()
		}
		figures = append(figures, fmt.Sprintf("%s at %s (%d calls of DynamoDB)", spread(walls, time.Millisecond, 0), delay, calls))
	}
	results.set(deployInTurn, row{strings.Join(figures, "; "), "the deploy, its turn at the bucket and the journal, also what a worker does of these while the site builds", fmt.Sprint(runsAstro)})
}

// String is for the log and the table.
func (c cost) String() string {
	return fmt.Sprintf("%s, CPU %s, %.0f MB, %d req, %s", milliseconds(c.wall), milliseconds(c.cpu), float64(c.rss)/1e6, c.requests, size(c.sent))
}

func milliseconds(d time.Duration) string {
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
}

func size(n int64) string {
	if n < 1e5 {
		return fmt.Sprintf("%.1f KB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// medianCost is the median of each figure.
func medianCost(all []cost) cost {
	middle := func(of func(c cost) int64) int64 {
		var values []int64
		for _, c := range all {
			values = append(values, of(c))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return cost{
		wall:     time.Duration(middle(func(c cost) int64 { return int64(c.wall) })),
		cpu:      time.Duration(middle(func(c cost) int64 { return int64(c.cpu) })),
		rss:      middle(func(c cost) int64 { return c.rss }),
		requests: middle(func(c cost) int64 { return c.requests }),
		sent:     middle(func(c cost) int64 { return c.sent }),
	}
}
