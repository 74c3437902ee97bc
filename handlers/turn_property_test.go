package handlers

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// fataler is a test, or one of rapid's runs of it.
type fataler interface {
	Fatalf(format string, args ...any)
}

// turnWorld is one project whose users' workers deploy to one bucket.
type turnWorld struct {
	t interface {
		Fatalf(format string, args ...any)
	}
	dir    string
	table  claim.Memory
	store  *memoryStore
	bucket *memoryBucket

	mu   sync.Mutex
	fail string // what must not be and was seen
	last journal.Site
}

func newTurnWorld(t fataler, dir string) *turnWorld {
	w := &turnWorld{t: t, dir: dir, bucket: &memoryBucket{}}
	w.store = &memoryStore{table: &w.table}
	w.bucket.wrote = func() {
		if lacks := broken(w.bucket.bodies); lacks != "" {
			w.failed(lacks)
		}
	}
	return w
}

// saw looks at what the journal says of the bucket: an older command never begins
// where a later one's whole site is.
func (w *turnWorld) saw(ctx context.Context) {
	site, _, err := (&journal.Journal{Store: w.store}).LoadSite(context.WithoutCancel(ctx), "edit.amelia.webordinary.com")
	if err != nil {
		w.failed(err.Error())
	}
	w.mu.Lock()
	before := w.last
	w.last = site
	w.mu.Unlock()
	if before.Complete && before.Sent.After(site.Sent) {
		w.failed(fmt.Sprintf("%s is deployed over %s, which was sent later", site.CommandID, before.CommandID))
	}
}

func (w *turnWorld) failed(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == "" {
		w.fail = text
	}
}

// turnCommand is a command that is committed; its build takes a while.
type turnCommand struct {
	user   string
	number int // also the order in which they were sent
	site   map[string]string
	takes  time.Duration
	begins time.Duration
	faults []fault // of the workers that carry it out one after the other
}

// String is what a failure shows.
func (c turnCommand) String() string { return fmt.Sprintf("c-%d of %s", c.number, c.user) }

func drawCommand(rt *rapid.T, user string, number int, faults []string) turnCommand {
	c := turnCommand{
		user: user, number: number, site: drawBuild(rt, number),
		takes:  time.Duration(rapid.SampledFrom([]int{0, 1, 30}).Draw(rt, "build takes")) * time.Second,
		begins: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 2, 60}).Draw(rt, "begins")) * time.Second,
	}
	for range rapid.IntRange(0, 2).Draw(rt, "faults") {
		c.faults = append(c.faults, fault{
			of: []string{"bucket", "bucket", "journal", "claims"}[evenly(rt, 4, "of")],
			at: 1 + evenly(rt, 8, "at"), what: faults[evenly(rt, len(faults), "what")],
		})
	}
	return c
}

// evenly draws a number below n. What rapid draws itself is mostly near the
// beginning.
func evenly(rt *rapid.T, n int, label string) int {
	return rapid.Custom(func(rt *rapid.T) int {
		low, high := 0, n
		for high-low > 1 {
			if middle := (low + high) / 2; rapid.Bool().Draw(rt, "upper") {
				low = middle
			} else {
				high = middle
			}
		}
		return low
	}).Draw(rt, label)
}

// drawBuild draws a build that is another than those of other commands.
func drawBuild(rt *rapid.T, number int) map[string]string {
	site := map[string]string{"robots.txt": fmt.Sprint(rapid.IntRange(0, 1).Draw(rt, "robots"))}
	pages := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.html", "b/index.html", "c.html"}), 0, 3, rapid.ID).Draw(rt, "pages")
	for _, page := range append(pages, "index.html") {
		content := fmt.Sprintf("text %d\n", rapid.IntRange(0, 1).Draw(rt, "text"))
		if page == "index.html" {
			content = fmt.Sprintf("number %d\n", number)
		}
		for _, v := range rapid.SliceOfNDistinct(rapid.IntRange(0, 4), 0, 2, rapid.ID).Draw(rt, "assets") {
			name := fmt.Sprintf("_astro/asset.VERSION%d.css", v)
			content += name + "\n"
			site[name] = name
		}
		site[page] = content
	}
	return site
}

// carryOut is what workers do with a command, one after the other as each is killed
// or loses its claim. It reports whether the command was deployed, at last.
func (w *turnWorld) carryOut(ctx context.Context, c turnCommand) (out protocol.OutputMessage, done bool) {
	<-time.After(c.begins)
	for i := range len(c.faults) + 1 {
		d := &deployer{w: w, calls: map[string]int{}}
		if i < len(c.faults) {
			d.fault = c.faults[i]
		}
		if out, err := d.work(ctx, c); err == nil {
			return out, true
		}
	}
	return out, false
}

// work carries a command out as Handle does, and again if it fails transiently.
func (d *deployer) work(ctx context.Context, c turnCommand) (protocol.OutputMessage, error) {
	claims := &claim.Claims{Table: faultyTable{Table: &d.w.table, d: d}, ContainerID: c.user}
	in := protocol.InputMessage{ProjectID: "amelia", UserID: c.user, CommandID: fmt.Sprintf("c-%d", c.number)}
	in.Delivery.Sent = time.Unix(int64(c.number), 0)
	l, err := claims.Await(ctx, in.Pair().Key())
	if err != nil {
		return protocol.OutputMessage{}, err
	}
	defer l.Abandon() // the next one finds it released, or waits
	h := &Instruction{
		Pair: in.Pair(), Lease: l, Journal: &journal.Journal{Store: faultyStore{d}}, Buckets: claims,
		Bucket: func(string) (deploy.Bucket, error) { return faultyBucket{d}, nil },
	}
	for range 3 {
		e, found, lerr := h.Journal.Load(ctx, l.Key(), in.CommandID)
		if err = lerr; err != nil {
			continue
		}
		if !found {
			e = journal.Entry{ProjectKey: l.Key(), CommandID: in.CommandID, Base: "base", Commit: in.CommandID + "-commit"}
		}
		j, jerr := newJob(h, in, e)
		if jerr != nil {
			return protocol.OutputMessage{}, jerr
		}
		if err = d.steps(ctx, j, c); err == nil {
			return j.out, l.Release(ctx)
		}
		if d.isDead() || l.Check() != nil {
			break
		}
	}
	return protocol.OutputMessage{}, err
}

// steps are the last two of a command.
func (d *deployer) steps(ctx context.Context, j *job, c turnCommand) error {
	j.dist, j.cache = filepath.Join(d.w.dir, fmt.Sprint("dist-", c.number)), filepath.Join(d.w.dir, c.user)
	work, unbind := j.h.Lease.Bind(ctx)
	defer unbind()
	defer j.endTurn(ctx)
	wanted, err := j.deployWanted(work)
	if err != nil || !wanted {
		return err
	}
	j.askTurn(work)
	select {
	case <-time.After(c.takes):
	case <-work.Done():
		return context.Cause(work)
	}
	return j.deploy(work)
}

func (w *turnWorld) write(c turnCommand) {
	for name, content := range c.site {
		path := filepath.Join(w.dir, fmt.Sprint("dist-", c.number), filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(w.dir, c.user), 0o700)
		}
		if err != nil {
			w.t.Fatalf("write a build: %v", err)
		}
	}
}

// wantSite wants a command's build in the bucket, and nothing else but assets.
func (w *turnWorld) wantSite(c turnCommand, when string) {
	got := w.bucket.content()
	maps.DeleteFunc(got, func(key, _ string) bool { return c.site[key] == "" && strings.HasPrefix(key, "_astro/") })
	if diff := cmp.Diff(c.site, got); diff != "" {
		w.t.Fatalf("%s: %s is not what the bucket holds (-want +got):\n%s", when, c, diff)
	}
}

// Whatever two users' workers do at the same time, and wherever they are killed or
// frozen: the later command's site is the one that stays, and each page that is
// served finds its assets.
func TestDeployersTakeTurns(t *testing.T) {
	dir := t.TempDir()
	n := 0
	synctest.Test(t, func(t *testing.T) {
		// rapid would look at the deadline of the test, by the clock of the bubble.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			n++
			w := newTurnWorld(rt, filepath.Join(dir, fmt.Sprint(n)))
			w.check(t.Context(), rt)
		})
	})
}

// What a frozen worker had sent takes effect when others have deployed since.
func TestLateUploadsAreHealed(t *testing.T) {
	dir := t.TempDir()
	for at := 1; at <= 6; at++ {
		synctest.Test(t, func(t *testing.T) {
			w := newTurnWorld(t, filepath.Join(dir, fmt.Sprint(at)))
			site := func(number, a string) map[string]string {
				return map[string]string{"index.html": "number " + number, "a.html": "text " + a}
			}
			commands := []turnCommand{
				{user: "scott", number: 0, site: site("0", "same")},
				{user: "scott", number: 1, site: site("1", "other"), faults: []fault{{of: "bucket", at: at, what: late}}},
				{user: "zelda", number: 2, site: site("2", "same"), begins: time.Second},
				{user: "zelda", number: 3, site: site("3", "same"), begins: 2 * time.Minute},
			}
			var frozen sync.WaitGroup
			for _, c := range commands {
				w.write(c)
				if len(c.faults) > 0 {
					frozen.Go(func() { w.carryOut(t.Context(), c) })
					continue
				}
				if _, done := w.carryOut(t.Context(), c); !done {
					t.Errorf("%s was not deployed", c)
				}
			}
			w.wantSite(commands[3], "after a last deploy")
			frozen.Wait()
		})
	}
}

func (w *turnWorld) check(ctx context.Context, rt *rapid.T) {
	users := rapid.SliceOfN(rapid.SampledFrom([]string{"scott", "zelda"}), 2, 5).Draw(rt, "users")
	faults := []string{killedBefore, killedAfter, noAnswer, frozen}
	someLate := rapid.Bool().Draw(rt, "late effects")
	if someLate {
		faults = append(faults, late)
	}
	commands := make([]turnCommand, len(users))
	for i, user := range users {
		commands[i] = drawCommand(rt, user, i, faults)
		w.write(commands[i])
	}
	var outs sync.Map
	var all sync.WaitGroup
	for _, user := range []string{"scott", "zelda"} {
		all.Go(func() { // a user's commands come one after the other
			for _, c := range commands {
				if c.user != user {
					continue
				}
				if out, done := w.carryOut(ctx, c); done {
					outs.Store(c.number, out)
				}
			}
		})
	}
	all.Wait()
	newest := commands[len(commands)-1]
	if out, done := outs.Load(newest.number); done && !someLate {
		if out, _ := out.(protocol.OutputMessage); !out.DeploySuccess || out.Superseded {
			rt.Fatalf("%s says deployed %v, superseded %v", newest, out.DeploySuccess, out.Superseded)
		}
		w.wantSite(newest, "at rest")
	}
	final := drawCommand(rt, rapid.SampledFrom(slices.Sorted(slices.Values(users))).Draw(rt, "last user"), len(commands), faults)
	final.faults = nil
	w.write(final)
	if _, done := w.carryOut(ctx, final); !done {
		rt.Fatalf("%s was not deployed although nothing was wrong", final)
	}
	w.wantSite(final, "after a last deploy")
	if w.fail != "" {
		rt.Fatal(w.fail)
	}
}
