package matrix

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// patience bounds each wait for what is not itself promised within a time: the
// machine may be busy.
const patience = 2 * time.Minute

// once makes a command that fails transiently fail at once: the pauses between the
// tries are 30 s.
const once = "MAX_ATTEMPTS=1"

// world is one row's platform, with one project.
type world struct {
	*platform.Platform
	t *testing.T
	j *platform.Project
}

func newWorld(t *testing.T, o platform.Options) *world {
	t.Helper()
	p := platform.New(t, o)
	return &world{p, t, p.AddProject("amelia", "scott")}
}

// await waits until something is so.
func (w *world) await(within time.Duration, what string, is func() bool) {
	w.t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-late.C:
			w.t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// do sends a command and waits for its answer.
func (w *world) do(c *platform.Command) protocol.OutputMessage {
	w.t.Helper()
	w.Send(c)
	return w.answer(c, 1)
}

// well is do of a command that must succeed.
func (w *world) well(c *platform.Command) protocol.OutputMessage {
	w.t.Helper()
	out := w.do(c)
	if !out.Success {
		w.t.Fatalf("answer %+v", out)
	}
	return out
}

// answer waits for the n-th answer of a command. There must be no further one.
func (w *world) answer(c *platform.Command, n int) protocol.OutputMessage {
	w.t.Helper()
	w.await(patience, fmt.Sprintf("answer %d to %s", n, c.ID), func() bool { return len(w.Answers(c.ID)) >= n })
	all := w.Answers(c.ID)
	if len(all) != n {
		w.t.Fatalf("%d answers to %s, want %d", len(all), c.ID, n)
	}
	return all[n-1].Output
}

// failed checks that an answer tells of a failure, in words that name something.
func (w *world) failed(out protocol.OutputMessage, code protocol.ErrorCode, names string) {
	w.t.Helper()
	if out.Success || out.ErrorCode != code || !strings.Contains(out.Error, names) {
		w.t.Errorf("answer %+v, want %s and a word of %q", out, code, names)
	}
}

// dead takes what is in the dead-letter queues: it must be one message.
func (w *world) dead() platform.Dead {
	w.t.Helper()
	all := w.TakeDead()
	if len(all) != 1 {
		w.t.Fatalf("%d dead letters, want one: %v", len(all), all)
	}
	return all[0]
}

// redrive puts a dead letter back where it came from, as an operator does.
func (w *world) redrive(j *platform.Project, d platform.Dead) {
	w.t.Helper()
	w.Put(j.InputURL, d.Body, 0)
	w.RequestClaim(j, 0)
}

// edit changes fields of a command's message; nil removes one.
func edit(t *testing.T, c *platform.Command, fields map[string]any) *platform.Command {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal([]byte(c.Body), &m); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c.Body = string(body)
	return c
}

// git runs git in a project's repository on the server.
func (w *world) git(args ...string) string {
	w.t.Helper()
	return gitserver.Git(w.t, w.Git.Bare(w.j.Repo), args...)
}

// tokens is what a branch on the server holds, in order.
func (w *world) tokens(branch string) []string {
	w.t.Helper()
	return site.Tokens(w.git("show", branch+":"+site.Content))
}

// holds compares what a branch holds with commands.
func (w *world) holds(branch string, commands ...*platform.Command) {
	w.t.Helper()
	var want []string
	for _, c := range commands {
		want = append(want, c.Add.Token)
	}
	if d := cmp.Diff(want, w.tokens(branch)); d != "" {
		w.t.Errorf("what %s holds (-want +got):\n%s", branch, d)
	}
}

// has reports whether a branch on the server has a file.
func (w *world) has(branch, file string) bool {
	w.t.Helper()
	return slices.Contains(strings.Fields(w.git("ls-tree", "-r", "--name-only", branch)), file)
}

// checkout is a file in the worker's checkout; empty if there is none.
func (w *world) checkout(file string) string {
	w.t.Helper()
	body, err := os.ReadFile(filepath.Join(w.Workspaces, w.j.Dir(), "site", file))
	if err != nil {
		return ""
	}
	return string(body)
}

// shows reports whether the first page of the live site shows a command's change.
func (w *world) shows(c *platform.Command) bool {
	w.t.Helper()
	_, page, err := w.Page(w.j.Bucket, "/")
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Contains(page, c.Add.Token)
}
