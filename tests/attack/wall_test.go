package attack

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

func itoa(n int) string { return strconv.Itoa(n) }

// outcome is what hostile reports of an attack.
type outcome struct {
	Name      string `json:"name"`
	Succeeded bool   `json:"succeeded"`
	Detail    string `json:"detail"`
}

const quietBuild = `import fs from 'node:fs';
fs.mkdirSync('dist', {recursive: true});
fs.writeFileSync('dist/index.html', 'hello');
`

// hostileBuild runs what the agent has put into .x, and the site's configuration
// as Astro does.
const hostileBuild = `import {spawnSync} from 'node:child_process';
spawnSync('.x/hostile', ['build', '.x/plan.json'], {stdio: 'inherit'});
await import('./astro.config.mjs');
` + quietBuild

const hostileConfig = `import {spawnSync} from 'node:child_process';
spawnSync('.x/hostile', ['config', '.x/plan.json'], {stdio: 'inherit'});
export default {};
`

const lock = `{"name":"site","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"site","version":"1.0.0","hasInstallScript":true}}}`

func siteFiles(build string) map[string]string {
	return map[string]string{
		"package.json": `{"name":"site","version":"1.0.0","scripts":{"build":"node build.mjs"}}`, "package-lock.json": lock,
		"build.mjs": build, ".gitignore": "node_modules/\ndist/\n.x/\n",
	}
}

// hostileFiles is a repository that brings its own attacker.
func (w *world) hostileFiles() map[string]string {
	w.t.Helper()
	files := siteFiles(hostileBuild)
	files["package.json"] = `{"name":"site","version":"1.0.0","scripts":{"build":"node build.mjs","postinstall":"[ ! -e .x/hostile ] || .x/hostile postinstall .x/plan.json"}}`
	files["astro.config.mjs"] = hostileConfig
	body, err := os.ReadFile(programs.hostile)
	w.must(err)
	files["tool.bin"] = string(body)
	return files
}

// TestWalls has a hostile agent, a hostile build and a hostile package try every
// attack that a wall could stop, behind each wall in turn. Each ends as the table
// says: what a wall stops succeeds without one.
func TestWalls(t *testing.T) {
	t.Parallel()
	for _, wall := range walls() {
		t.Run(wall, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			found := w.assault(wall)
			ownCall, remembered := found["gateway_own_call"], found["gateway_remember"]
			for _, r := range rows() {
				for _, name := range r.outcomes {
					o, tried := found[name]
					want := r.other == "" && (wall == "off" || slices.Contains(r.open, wall))
					if !tried || o.Succeeded != want {
						t.Errorf("%s: succeeded %v, want %v (%s)", name, o.Succeeded, want, o.Detail)
					}
					if strings.HasSuffix(name, "gateway_after_agent") && !strings.Contains(o.Detail, "dial") {
						t.Errorf("%s was not tried: %s", name, o.Detail)
					}
					delete(found, name)
				}
			}
			for name, o := range found {
				if !strings.HasPrefix(name, "gateway_own_call") && !strings.HasPrefix(name, "gateway_remember") {
					t.Errorf("%s is in no row: %v (%s)", name, o.Succeeded, o.Detail)
				}
			}
			if !ownCall.Succeeded || !remembered.Succeeded {
				t.Errorf("the gateway refuses its own job (%s), or nobody remembers it (%s), so nothing is shown of it", ownCall.Detail, remembered.Detail)
			}
		})
	}
}

// assault runs the attacks behind a wall and returns how each ended.
func (w *world) assault(wall string) map[string]outcome {
	w.t.Helper()
	w.git.Create(w.t, "victim.git", siteFiles(quietBuild))
	w.git.Create(w.t, "hostile.git", w.hostileFiles())
	w.git.Create(w.t, "slow.git", siteFiles(quietBuild))
	w.model.Play("remember", Bash("echo "+w.secrets["victim"]+" > secret.txt"), Say("I will remember."))
	w.model.Play("hold", Bash(": victim-waits-"+w.mark+"; until [ -e go ]; do sleep 0.1; done"), Say("Done."))
	w.model.Play("hostile call", Say("You called."))

	wall, w.oldKernel = strings.CutSuffix(wall, ", no Landlock")
	p := w.start("SANDBOX=" + wall)
	victim := command{w.project("amelia"), "scott", w.front.url("victim.git"), "t", "c-1", "remember " + w.secrets["transcript"]}
	if out := p.do(victim); !out.Success {
		w.t.Fatalf("the victim's first command: %+v", out)
	}
	victim.id, victim.text = "c-2", "hold"
	p.send(victim)
	leaked := w.awaitVictim()
	p.send(command{w.project("slow"), "sam", w.front.url("slow.git"), "t", "c-3", "hold"})
	select {
	case <-w.front.hangs:
	case <-time.After(patience):
		w.t.Fatal("the slow fetch has not begun")
	}

	w.model.Play("attack", Bash(w.attackCommand(w.plan(leaked))), Say("I tried."))
	p.send(command{w.project("mallory"), "eve", w.front.url("hostile.git"), "t", "c-4", "attack"})
	out := p.answer()
	if out.CommandID != "c-4" || !out.Success {
		w.t.Errorf("the attacker's command: %+v", out)
	}
	found := w.outcomes()
	w.outsideOutcomes(found)
	w.must(os.WriteFile(filepath.Join(w.pair("amelia", "scott"), "site", "go"), nil, 0o666))
	close(w.front.hang)
	return found
}

// awaitVictim waits until the victim's agent runs its command, and returns its way to
// the model as root sees it.
func (w *world) awaitVictim() (leaked map[string]string) {
	w.t.Helper()
	late := time.After(patience)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		for _, p := range processes("victim-waits-" + w.mark) {
			leaked = map[string]string{}
			for _, kv := range p.environ {
				name, value, _ := strings.Cut(kv, "=")
				leaked[name] = value
			}
			if leaked["ANTHROPIC_API_KEY"] != "" {
				return leaked
			}
		}
		select {
		case <-again.C:
		case <-late:
			w.t.Fatal("the victim's agent does not run")
		}
	}
}

// plan is what hostile is told.
func (w *world) plan(leaked map[string]string) map[string]any {
	own := w.pair("mallory", "eve")
	return map[string]any{
		"Out": filepath.Join(own, "site", ".x", "outcomes.jsonl"), "Workspaces": filepath.Dir(own), "Own": own,
		"Victim": w.pair("amelia", "scott"), "Home": w.home, "State": w.state, "Mark": w.mark,
		"Upstream": strings.TrimPrefix(w.model.URL(), "http://"), "Metadata": metadata, "Outside": outside,
		"Socket": filepath.Join(w.sockets, "machine"), "Abstract": w.mark, "Keeper": programs.keeper,
		"VictimPair": w.project("amelia") + "#scott", "VictimURL": leaked["ANTHROPIC_BASE_URL"], "VictimToken": leaked["ANTHROPIC_API_KEY"],
	}
}

func (w *world) attackCommand(plan map[string]any) string {
	w.t.Helper()
	text, err := json.Marshal(plan)
	w.must(err)
	return "mkdir -p .x && cp tool.bin .x/hostile && chmod 755 .x/hostile && echo '" + string(text) + "' > .x/plan.json && date > changed.txt && .x/hostile agent .x/plan.json"
}

// outcomes reads what hostile reported.
func (w *world) outcomes() map[string]outcome {
	w.t.Helper()
	return w.readOutcomes(filepath.Join(w.pair("mallory", "eve"), "site", ".x", "outcomes.jsonl"))
}

func (w *world) readOutcomes(file string) map[string]outcome {
	w.t.Helper()
	body, err := os.ReadFile(file)
	w.must(err)
	found := map[string]outcome{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		var o outcome
		w.must(json.Unmarshal(lines.Bytes(), &o))
		found[o.Name] = o
	}
	w.must(lines.Err())
	return found
}

// outsideOutcomes adds what only somebody outside can tell.
func (w *world) outsideOutcomes(found map[string]outcome) {
	o := found["temporary_files"]
	o.Succeeded = false
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		path := filepath.Join(dir, w.mark)
		if os.Remove(path) == nil {
			o.Succeeded, o.Detail = true, "left "+dir
		}
	}
	found[o.Name] = o
	o = found["outlive"]
	o.Succeeded = len(processes("lingers-"+w.mark)) > 0
	found[o.Name] = o
}
