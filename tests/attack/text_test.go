package attack

import (
	"path/filepath"
	"strings"
	"testing"
)

// escapes are what a terminal obeys: a title, a colour, a bell, a C1 control, and a
// carriage return that hides what stood before.
const escapes = `\033]0;pwned\007\033[31mred\033[2J\302\23331m\rhidden`

// TestEscapesInLogs lets agent and build say what a terminal obeys. Neither what the
// worker shows, nor its log, nor an answer has it.
func TestEscapesInLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := siteFiles(`import {execFileSync} from 'node:child_process';
execFileSync('sh', ['-c', "printf '` + strings.ReplaceAll(escapes, `\`, `\\`) + ` Error: no\\n' >&2; exit 1"], {stdio: 'inherit'});`)
	w.git.Create(t, "site.git", files)
	for _, format := range []string{"json", "text"} {
		p := w.shell("LOG_FORMAT=" + format)
		id := "escape-" + format
		out := p.do(command{
			"amelia", "scott", w.front.url("site.git"), id, id,
			`printf '` + escapes + `\n'; touch "$(printf 'name` + escapes + `')"; printf '` + escapes + `' > "$(printf 'a\033[31m.txt')"`,
		})
		if out.ErrorCode != "build_failed" || !strings.Contains(out.Summary+out.Error, "red") {
			t.Errorf("answer %+v", out)
		}
		for what, text := range map[string]string{
			"summary": out.Summary, "error": out.Error, "files": strings.Join(out.FilesChanged, " "), "stderr": p.said(),
			"log": readAll(filepath.Join(w.state, "log.jsonl")),
		} {
			if strings.ContainsAny(text, "\x1b\x07\u009b") {
				t.Errorf("%s: %s has escapes: %q", format, what, around(text))
			}
		}
		p.kill()
	}
	if said := w.plainly(w.tmp(), "printf '"+escapes+"'"); !strings.ContainsAny(said, "\x1b") {
		t.Errorf("printing does not bring them, so nothing is shown: %q", said)
	}
}

// around is what stands before and after the first escape.
func around(text string) string {
	i := strings.IndexAny(text, "\x1b\x07\u009b")
	return text[max(0, i-60):min(len(text), i+60)]
}

// TestSecretsAreRedacted gives the worker's own secrets to the agent, which says them.
// No log has them.
func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", siteFiles("console.error('Error: "+w.secrets["github"]+"'); process.exit(1)"))
	p := w.shell()
	out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), "t", "c-1", "echo " + w.secrets["github"] + " " + w.secrets["anthropic"] + " " + w.secrets["aws"] + " > x; cat x; rm x; date > y"})
	for _, of := range []string{"github", "anthropic", "aws"} {
		for what, text := range map[string]string{
			"summary": out.Summary, "error": out.Error, "stderr": p.said(), "log": readAll(filepath.Join(w.state, "log.jsonl")),
		} {
			if strings.Contains(text, w.secrets[of]) {
				t.Errorf("%s tells the secret of %s", what, of)
			}
		}
	}
	if !strings.Contains(out.Summary+out.Error, "[redacted]") {
		t.Errorf("nothing was redacted, so nothing is shown: %+v", out)
	}
}
