package bench

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/gitserver"
)

const (
	historyRounds = 15
	shortHistory  = 300 // commits
	longHistory   = 10 * shortHistory
)

// withHistory is a workspace of a repository with a history, and what its git costs.
type withHistory struct {
	*oursGit
	remote *slowProxy
	walls  map[string][]time.Duration // by step; a command has all but the clone
	all    []time.Duration            // of a command
}

// BenchmarkHistory has the git work of commands done in two repositories in turn,
// one with ten times the commits of the other. Both have all of their history in the
// workspace, as if it had been made there.
func BenchmarkHistory(b *testing.B) {
	short, long := openHistory(b, shortHistory), openHistory(b, longHistory)
	figures := map[*withHistory]string{}
	for _, h := range []*withHistory{short, long} {
		h.remote.reset(0)
	}
	for round := range historyRounds {
		for i := range 2 {
			h := []*withHistory{short, long}[(round+i)%2]
			h.command(b, round)
		}
	}
	for _, h := range []*withHistory{short, long} {
		figures[h] = fmt.Sprintf("open %.0f, commit %.0f, push %.0f", ms(median(h.walls["open"])), ms(median(h.walls["commit"])), ms(median(h.walls["push"])))
		b.Logf("%v; %d requests, %d bytes sent", h.walls, h.remote.requests.Load(), h.remote.sent.Load())
	}
	was, is := short.remote, long.remote
	results.set(gitHistory, row{
		fmt.Sprintf("wall time **%.2f×**, bytes sent **%.2f×**, requests %.2f×", float64(median(long.all))/float64(median(short.all)),
			float64(is.sent.Load())/float64(was.sent.Load()), float64(is.requests.Load())/float64(was.requests.Load())),
		fmt.Sprintf("%d commits → %d; goals: bytes sent ≤ 1.3×, wall about 1.0×; ms: %s → %s; %s and %.1f requests a command",
			shortHistory, longHistory, figures[short], figures[long], size(is.sent.Load()/historyRounds), float64(is.requests.Load())/historyRounds),
		fmt.Sprint(historyRounds),
	})
}

func openHistory(b *testing.B, commits int) *withHistory {
	b.Helper()
	server := gitserver.Start(b)
	server.Create(b, "site.git", gitFiles(300))
	var in bytes.Buffer
	for i := range commits {
		text := fmt.Sprintf("<p>commit %d</p>\n", i)
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Other <other@example.com> %d +0000\ndata 5\nEdit\n\n", 1_700_000_000+i*60)
		if i == 0 {
			in.WriteString("from refs/heads/main^0\n")
		}
		fmt.Fprintf(&in, "M 100644 inline src/d%03d/page%04d.astro\ndata %d\n%s\n", i%300/50, i%300, len(text), text)
	}
	cmd := exec.CommandContext(b.Context(), "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Stdin = server.Bare("site.git"), &in
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("git fast-import: %v\n%s", err, out)
	}
	h := &withHistory{remote: startSlowProxy(b, server.URL), walls: map[string][]time.Duration{}}
	h.oursGit = openOurs(b, h.remote.url+"/site.git")
	own := filepath.Join(filepath.Dir(h.site()), "worker", "git")
	gitserver.Git(b, own, "fetch", "--quiet", "--unshallow", server.Bare("site.git"))
	if n := gitserver.Git(b, own, "rev-list", "--count", "thread-a"); n != fmt.Sprint(commits+2) {
		b.Fatalf("the workspace has %s commits", n)
	}
	return h
}

// command does the git work of one.
func (h *withHistory) command(b *testing.B, round int) {
	b.Helper()
	var sum time.Duration
	for _, step := range []string{"open", "commit", "push"} {
		if step == "commit" {
			write(b, filepath.Join(h.site(), "src/d000/page0001.astro"), fmt.Sprintf("<p>round %d</p>\n", round))
		}
		began := time.Now()
		h.do(b, step, round)
		took := time.Since(began)
		h.walls[step] = append(h.walls[step], took)
		sum += took
	}
	h.all = append(h.all, sum)
}
