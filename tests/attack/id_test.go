package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// hostileIDs are ids that are paths, options, refs or escapes.
func hostileIDs(marker string) []string {
	return []string{
		"..", ".", "../amelia", "a/../../b", "/etc", "a\\b", "a/b", "~", "", " ", "-x", "--upload-pack=touch " + marker, "--help",
		"a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\u202eb", "a..b", "a@{1}", "a^", "a:b", "refs/heads/main", "a~1",
		"$(touch " + marker + ")", "`touch " + marker + "`", ";touch " + marker, "%2e%2e", strings.Repeat("a", 3000), "\xff\xfe",
	}
}

// hostileURLs are addresses that run a program, read a file or go elsewhere.
func hostileURLs(w *world, marker string, e *evil) []string {
	evilHost := strings.TrimPrefix(e.url, "http://")
	return []string{
		"--upload-pack=touch " + marker, "-u touch " + marker, "ext::sh -c touch% " + marker, "ext::touch " + marker, "fd::7",
		"ssh://-oProxyCommand=touch " + marker + "/x", "git@-oProxyCommand=touch:x", "git://" + evilHost + "/x.git", "ftp://" + evilHost + "/x",
		e.url + "/x.git", "http://x@" + evilHost + "/x.git", "http://" + w.front.host + "@" + evilHost + "/x.git",
		"http://" + w.front.host + ".evil.example/x.git", "http://user:password@" + w.front.host + "/site.git", "http://" + w.front.host + "\n/x.git",
		"http://" + evilHost + "#@" + w.front.host + "/x.git", "http://" + evilHost + "\\@" + w.front.host + "/x.git",
		"http://169.254.169.254/latest.git", "http://[::ffff:169.254.169.254]/x.git", "http://2852039166/x.git", "https://localhost/x.git",
		w.front.url("../../etc.git"), w.front.url("site.git?x=--upload-pack"), w.front.url("%2e%2e/%2e%2e/x"), "/etc", "../..",
	}
}

// TestIDsAndAddresses sends commands whose ids and addresses are attacks. None leaves
// the workspaces, runs a program, or brings the worker to another host.
func TestIDsAndAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.startEvil(nil)
	marker := w.marker("id")
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	p := w.shell()
	good := func(id string) command {
		return command{w.project("amelia"), "scott", w.front.url("site.git"), "t", id, "echo " + id + " > change.txt"}
	}
	if out := p.do(good("first")); out.CommitID == "" {
		t.Fatalf("the first command: %+v", out)
	}
	before := w.everything()
	n := 0
	send := func(field, value string) {
		n++
		fields := map[string]any{
			"type": "work", "sessionId": "s", "projectId": w.project("amelia"), "userId": "scott", "repoUrl": w.front.url("site.git"),
			"threadId": "t", "commandId": fmt.Sprintf("bad-%d", n), "instruction": "touch " + w.marker("ran"), "timestamp": time.Now().UnixMilli(),
		}
		fields[field] = value
		if field == "repoUrl" {
			fields["projectId"] = w.project(fmt.Sprintf("p%d", n))
		}
		p.sendFields(fields)
	}
	for _, id := range hostileIDs(marker) {
		send("projectId", id)
		send("userId", id)
	}
	for _, address := range hostileURLs(w, marker, evil) {
		send("repoUrl", address)
	}
	p.send(good("last"))
	for {
		out := p.answer()
		if out.CommandID == "last" {
			break
		}
		if out.Success {
			t.Errorf("%q of %q, %q was carried out", out.CommandID, out.ProjectID, out.UserID)
		}
	}
	if marked(marker) {
		t.Error("a program was run")
	}
	if marked(w.marker("ran")) {
		t.Error("an instruction was run that came with hostile ids")
	}
	if asked := evil.asked(); len(asked) > 0 {
		t.Errorf("another host was asked: %s %s", asked[0].Method, asked[0].URL)
	}
	for _, name := range w.everything() {
		if !slices.Contains(before, name) && !strings.HasPrefix(name, "state/workspace/"+w.project("amelia")+"-scott") {
			t.Errorf("%q was made", name)
		}
	}
	// The demo allows files, for its own remote; the container does not.
	m := protocol.InputMessage{ProjectID: "a", UserID: "b", ThreadID: "c", SessionID: "d", CommandID: "e", Instruction: "f", RepoURL: "file:///etc"}
	if err := m.Validate(protocol.Rules{}); err == nil {
		t.Error("a file is taken for a remote")
	}
}

// everything lists what is below the world's directory, three levels deep, but for
// what each command writes.
func (w *world) everything() []string {
	w.t.Helper()
	var all []string
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		names, err := filepath.Glob(filepath.Join(w.dir, pattern))
		w.must(err)
		for _, name := range names {
			rel, err := filepath.Rel(w.dir, name)
			w.must(err)
			if !strings.HasPrefix(rel, "state/journal") && !strings.HasPrefix(rel, "tmp/") {
				all = append(all, rel)
			}
		}
	}
	return all
}

// TestThreadsAreNoRefs names threads like refs, paths and options. Each has a branch
// of its own, and nothing else is made or moved.
func TestThreadsAreNoRefs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	marker := w.marker("thread")
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	p := w.shell()
	main := readAll(filepath.Join(w.git.Bare("site.git"), "refs", "heads", "main"))
	sent := 0
	for i, id := range append(hostileIDs(marker), "a.lock", "HEAD", "@", "main", "refs/heads/main") {
		if i%3 != 0 && !strings.ContainsAny(id, "./-") && id != "main" { // one of each kind is enough
			continue
		}
		sent++
		p.send(command{w.project("amelia"), "scott", w.front.url("site.git"), id, fmt.Sprintf("c-%d", i), "echo x > change.txt"})
	}
	p.send(command{w.project("amelia"), "scott", w.front.url("site.git"), "last", "last", "echo x > change.txt"})
	for answered := ""; answered != "last"; {
		answered = p.answer().CommandID
	}
	if sent < 5 || marked(marker) {
		t.Error("a program was run")
	}
	if now := readAll(filepath.Join(w.git.Bare("site.git"), "refs", "heads", "main")); now != main {
		t.Error("main was moved")
	}
	entries, err := os.ReadDir(filepath.Join(w.git.Bare("site.git"), "refs"))
	w.must(err)
	for _, e := range entries {
		if e.Name() != "heads" && e.Name() != "tags" {
			t.Errorf("refs/%s was made", e.Name())
		}
	}
}

// TestPlainlyTheyWork shows what the ids and addresses above do to who does not look
// at them.
func TestPlainlyTheyWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	marker := w.marker("plain")
	for name, script := range map[string]string{
		"an option":  `git ls-remote "--upload-pack=touch ` + marker + `" .`,
		"a protocol": `GIT_ALLOW_PROTOCOL=ext git ls-remote "ext::sh -c touch% ` + marker + `"`,
		"a path":     `mkdir -p a/b; touch "a/b/../../marker"; mv marker ` + marker,
		"a shell":    `sh -c "echo $(touch ` + marker + `)"`,
		"a branch": `export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x && mkdir branch && cd branch &&
			git init -q -b main && git init -q --bare remote && git commit -q --allow-empty -m one && git push -q remote HEAD:main &&
			git commit -q --allow-empty -m two && git push -q remote HEAD:"main" && git -C remote log -1 --format=%s main | grep -qx two && touch ` + marker,
	} {
		said := w.plainly(w.tmp(), script)
		if !marked(marker) {
			t.Errorf("%s does not work, so nothing is shown: %s", name, said)
		}
	}
}
