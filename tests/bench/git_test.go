package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/internal/workspace"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

const gitRounds = 7

// gitSteps are what a command needs of git, in their order.
func gitSteps() []string { return []string{"open", "status", "commit", "push", "switch"} }

// gitSize is a repository to work in.
type gitSize struct {
	row            string
	files, ignored int // ignored files lie in node_modules
}

// BenchmarkGit has a command's git work done by the workspace and by the git
// program, in turn, on two checkouts of one repository.
func BenchmarkGit(b *testing.B) {
	for _, size := range []gitSize{{gitSmall, 300, 0}, {gitLarge, 5000, 0}, {gitIgnored, 5000, 25000}} {
		b.Run(fmt.Sprintf("files=%d,ignored=%d", size.files, size.ignored), func(b *testing.B) {
			for b.Loop() {
				measureGit(b, size)
			}
		})
	}
}

func gitFiles(n int) map[string]string {
	files := map[string]string{".gitignore": "node_modules/\n"}
	for i := range n {
		files[fmt.Sprintf("src/d%03d/page%04d.astro", i/50, i)] = strings.Repeat(fmt.Sprintf("<p>line of page %d</p>\n", i), 40)
	}
	return files
}

func measureGit(b *testing.B, size gitSize) {
	b.Helper()
	server := gitserver.Start(b)
	url := server.Create(b, "site.git", gitFiles(size.files))
	ours, theirs := openOurs(b, url), openTheirs(b, url)
	for _, site := range []string{ours.site(), theirs.dir} {
		for i := range size.ignored {
			write(b, filepath.Join(site, fmt.Sprintf("node_modules/p%03d/lib/f%05d.js", i/100, i)), "module.exports = 1\n")
		}
	}
	took := map[string]map[string][]time.Duration{"ours": {}, "theirs": {}}
	for round := range gitRounds {
		for _, who := range []string{"ours", "theirs"} {
			var g gitUser = ours
			if who == "theirs" {
				g = theirs
			}
			// A round is one command that edits one page, and one of another thread.
			for _, step := range gitSteps() {
				if step == "open" && round > 0 {
					g.do(b, "back", round) // to the first thread; not measured
				}
				if step == "status" {
					write(b, filepath.Join(g.site(), "src/d000/page0001.astro"), fmt.Sprintf("<p>%s round %d</p>\n", who, round))
				}
				began := time.Now()
				g.do(b, step, round)
				took[who][step] = append(took[who][step], time.Since(began))
			}
		}
	}
	reportGit(b, size, took)
}

func reportGit(b *testing.B, size gitSize, took map[string]map[string][]time.Duration) {
	b.Helper()
	sums := map[string][]time.Duration{}
	var parts []string
	for who, steps := range took {
		sums[who] = make([]time.Duration, gitRounds)
		for _, all := range steps {
			for i, d := range all {
				sums[who][i] += d
			}
		}
	}
	for _, step := range gitSteps() {
		parts = append(parts, fmt.Sprintf("%s %.0f/%.0f", step, ms(median(took["ours"][step])), ms(median(took["theirs"][step]))))
		b.Logf("%s ours %v git %v", step, took["ours"][step], took["theirs"][step])
	}
	ratios := make([]float64, gitRounds)
	for i := range ratios {
		ratios[i] = float64(sums["ours"][i]) / float64(sums["theirs"][i])
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[gitRounds/2], "ours/git")
	results.set(size.row, row{
		figure:  spread(sums["ours"], time.Millisecond, 0),
		against: fmt.Sprintf("**%.2f×** the git program's %s (goal ≤ 1.0×); ms, ours/git: %s", ratios[gitRounds/2], spread(sums["theirs"], time.Millisecond, 0), strings.Join(parts, ", ")),
		runs:    fmt.Sprint(gitRounds),
	})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// gitUser does one step of a command's git work.
type gitUser interface {
	site() string
	do(b *testing.B, step string, round int)
}

// oursGit works as the worker does.
type oursGit struct {
	store *workspace.Store
	ws    *workspace.Workspace
	url   string
	sha   string
}

func openOurs(b *testing.B, url string) *oursGit {
	b.Helper()
	o := &oursGit{url: url, store: workspace.New(workspace.Config{
		Root: b.TempDir(), Runner: processtest.Runner(b), Env: processtest.Env(b), Token: gitserver.Token,
		AllowedHosts: []string{strings.Split(url, "/")[2]},
	})}
	for _, thread := range []string{"b", "a"} {
		o.open(b, thread, "first-"+thread)
		write(b, filepath.Join(o.site(), "src/d000/page0000.astro"), "<p>of thread "+thread+"</p>\n")
		o.do(b, "commit", -1)
		o.do(b, "push", -1)
	}
	return o
}

func (o *oursGit) site() string { return o.ws.Site() }

func (o *oursGit) open(b *testing.B, thread, owner string) {
	b.Helper()
	ws, err := o.store.Open(b.Context(), workspace.Request{
		ProjectID: "amelia", UserID: "scott", Dir: "amelia-scott", RepoURL: o.url, Branch: "thread-" + thread, Owner: owner,
		Wip: func(owner string) string { return "WIP: " + owner },
	})
	if err != nil {
		b.Fatal(err)
	}
	o.ws = ws
}

func (o *oursGit) do(b *testing.B, step string, round int) {
	b.Helper()
	switch step {
	case "back":
		o.open(b, "a", fmt.Sprint("back-", round))
	case "open":
		o.open(b, "a", fmt.Sprint("command-", round))
	case "switch":
		o.open(b, "b", fmt.Sprint("other-", round))
	case "status": // part of the commit
	case "commit":
		c, err := o.ws.Commit(b.Context(), workspace.CommitRequest{Message: func([]string) string { return "Edit a page\n" }})
		if err != nil {
			b.Fatal(err)
		}
		o.sha = c.SHA
	case "push":
		if _, err := o.ws.Push(b.Context(), workspace.PushRequest{SHA: o.sha, CommandID: fmt.Sprint("command-", round)}); err != nil {
			b.Fatal(err)
		}
	default:
		b.Fatal(errors.New("no step " + step))
	}
}

// theirsGit does the same by the git program, in an ordinary clone.
type theirsGit struct {
	dir string
}

func openTheirs(b *testing.B, url string) *theirsGit {
	b.Helper()
	t := &theirsGit{dir: b.TempDir()}
	withToken := strings.Replace(url, "http://", "http://x-access-token:"+gitserver.Token+"@", 1)
	gitserver.Git(b, t.dir, "clone", "--quiet", withToken, ".")
	gitserver.Git(b, t.dir, "config", "user.name", "Other")
	gitserver.Git(b, t.dir, "config", "user.email", "other@example.com")
	for _, thread := range []string{"y", "x"} {
		gitserver.Git(b, t.dir, "checkout", "--quiet", "-b", "thread-"+thread, "origin/main")
		write(b, filepath.Join(t.dir, "src/d000/page0000.astro"), "<p>of thread "+thread+"</p>\n")
		t.do(b, "commit", -1)
		gitserver.Git(b, t.dir, "push", "--quiet", "--set-upstream", "origin", "thread-"+thread)
	}
	return t
}

func (t *theirsGit) site() string { return t.dir }

func (t *theirsGit) do(b *testing.B, step string, _ int) {
	b.Helper()
	git := func(args ...string) { gitserver.Git(b, t.dir, args...) }
	switch step {
	case "back":
		git("checkout", "--quiet", "thread-x")
	case "open":
		git("fetch", "--quiet", "--no-tags", "origin", "thread-x")
		git("reset", "--quiet", "--hard", "FETCH_HEAD")
		git("clean", "-ffdq")
	case "switch":
		git("fetch", "--quiet", "--no-tags", "origin", "thread-y")
		git("checkout", "--quiet", "thread-y")
		git("reset", "--quiet", "--hard", "FETCH_HEAD")
		git("clean", "-ffdq")
	case "status":
		git("status", "--porcelain")
	case "commit":
		git("add", "--all")
		git("commit", "--quiet", "--message", "Edit a page")
	case "push":
		git("push", "--quiet", "origin", "HEAD")
	default:
		b.Fatal(errors.New("no step " + step))
	}
}

func write(b *testing.B, path, text string) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}
