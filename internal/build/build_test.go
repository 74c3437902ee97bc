package build_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// place is a builder and a checkout for it.
type place struct {
	*build.Builder
	build.Request
}

// newPlace makes a checkout with these files, by their names.
func newPlace(t *testing.T, files map[string]string) place {
	t.Helper()
	p := place{
		&build.Builder{Runner: processtest.Runner(t), Env: append(processtest.Env(t), "MARK="+mark(t)), Timeout: time.Minute},
		build.Request{Site: filepath.Join(t.TempDir(), "site"), Job: t.TempDir(), Cache: t.TempDir(), Downloads: t.TempDir()},
	}
	if err := os.Mkdir(p.Site, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		p.write(t, name, text)
	}
	return p
}

func (p place) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(p.Site, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read returns a file's text, empty if it is not there.
func (p place) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Site, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// change writes a file, and what it was when the test ends.
func (p place) change(t *testing.T, name, text string) {
	t.Helper()
	was := p.read(t, name)
	p.write(t, name, text)
	t.Cleanup(func() { p.write(t, name, was) })
}

func (p place) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(p.Site, name)); err != nil {
		t.Fatal(err)
	}
}

// build builds, successfully, and returns the result without its duration.
func (p place) build(t *testing.T) build.Result {
	t.Helper()
	result, err := p.Run(t.Context(), p.Request)
	if err != nil {
		t.Fatal(err)
	}
	if result.Duration <= 0 {
		t.Error("it took no time")
	}
	if p.read(t, "dist/index.html") == "" {
		t.Error("dist/index.html is empty or not there")
	}
	result.Duration = 0
	return result
}

// built builds, and checks what was done.
func (p place) built(t *testing.T, installed, lockChanged bool) {
	t.Helper()
	want := build.Result{Installed: installed, LockChanged: lockChanged, Dist: filepath.Join(p.Site, "dist")}
	if d := cmp.Diff(want, p.build(t)); d != "" {
		t.Errorf("result (-want +got):\n%s", d)
	}
}

// fails builds, unsuccessfully, and returns the message.
func (p place) fails(t *testing.T, code string, parts ...string) string {
	t.Helper()
	result, err := p.Run(t.Context(), p.Request)
	e, ok := errors.AsType[*build.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("error %v; want %s", err, code)
	}
	if result != (build.Result{}) {
		t.Errorf("result %+v with an error", result)
	}
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("the message lacks %q:\n%s", part, e.Message)
		}
	}
	for _, dir := range []string{p.Site, p.Job, p.Cache, "\x1b", "\n    at "} {
		if strings.Contains(e.Message, dir) {
			t.Errorf("the message holds %q:\n%s", dir, e.Message)
		}
	}
	return e.Message
}

// mark is in the environment of each child of a test.
func mark(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
}

// nothingAlive checks that no child of the test is left.
func nothingAlive(t *testing.T) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range environs {
		// Not readable means gone, or not ours.
		if environ, err := os.ReadFile(file); err == nil && bytes.Contains(environ, []byte("MARK="+mark(t)+"\x00")) {
			t.Errorf("still alive: %s", filepath.Dir(file))
		}
	}
}

// appears waits for a file of the checkout that a script makes.
func (p place) appears(t *testing.T, name string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(filepath.Join(p.Site, name)); err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s did not appear", name)
		case <-tick.C:
		}
	}
}

// small is a site whose build tool is a package in it: real npm, no registry.
func small() map[string]string {
	return map[string]string{
		"package.json":      `{"name": "small", "private": true, "scripts": {"build": "tool"}, "devDependencies": {"tool": "file:./tool"}}`,
		"tool/package.json": `{"name": "tool", "version": "1.0.0", "bin": "tool.js"}`,
		"tool/tool.js":      "#!/usr/bin/env node\nconst fs = require('fs');\nfs.mkdirSync('dist');\nfs.writeFileSync('dist/index.html', 'hello');\n",
	}
}

// bare is a site without packages. The build script runs build.js.
func bare(script string) map[string]string {
	return map[string]string{
		"package.json": `{"name": "bare", "private": true, "scripts": {"build": "node build.js"}}`,
		"build.js":     "const fs = require('fs');\n" + script,
	}
}

const writeIndex = `fs.mkdirSync('dist'); fs.writeFileSync('dist/index.html', 'hello');`

// One tree of packages serves all tests with Astro: to install it takes seconds.
func TestAstro(t *testing.T) { //nolint:tparallel // its parts share the tree
	t.Parallel()
	p := newPlace(t, nil)
	copyExample(t, p.Site)
	t.Run("first build installs", func(t *testing.T) {
		p.built(t, true, false)
		if !strings.Contains(p.read(t, "dist/index.html"), "Fresh bread") {
			t.Error("the page is not the site's")
		}
	})
	t.Run("second build does not install", func(t *testing.T) { p.built(t, false, false) })
	t.Run("errors", func(t *testing.T) { astroErrors(t, p) })
	t.Run("damaged node_modules heals and keeps scaled images", func(t *testing.T) {
		const image = "node_modules/.astro/assets/loaf.webp"
		p.write(t, image, "scaled")
		p.remove(t, "node_modules/.bin/astro")
		p.fails(t, build.CodeFailed, "astro: not found")
		p.built(t, true, false)
		if p.read(t, image) != "scaled" {
			t.Error("the image cache is gone")
		}
	})
}

// copyExample copies the example site, without what npm and Astro left there.
func copyExample(t *testing.T, to string) {
	t.Helper()
	const from = "../../examples/site"
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Join(to, e.Name())
		switch {
		case e.Name() == "node_modules" || e.Name() == "dist" || e.Name() == ".astro":
		case e.IsDir():
			err = errors.Join(err, os.CopyFS(name, os.DirFS(filepath.Join(from, e.Name()))))
		default:
			text, readErr := os.ReadFile(filepath.Join(from, e.Name()))
			err = errors.Join(err, readErr, os.WriteFile(name, text, 0o600))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func astroErrors(t *testing.T, p place) {
	t.Helper()
	const component = "src/components/Loaf.astro"
	for _, tt := range []struct {
		name, file, text string
		want             []string
	}{
		{"syntax", component, "---\nconst flour = ;\n---\n<p>{flour}</p>\n", []string{`Unexpected ";"`, component + ":2"}},
		{"name that is not defined", component, "<p>{flour.weight}</p>\n", []string{"flour is not defined", "src/pages/index.astro"}},
		{"configuration", "astro.config.mjs", "export default { ;\n", []string{"astro.config.mjs:1:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.change(t, tt.file, tt.text)
			message := p.fails(t, build.CodeFailed, tt.want...)
			if lines := strings.Count(message, "\n") + 1; lines > 15 {
				t.Errorf("%d lines:\n%s", lines, message)
			}
			if strings.Contains(message, "Stack trace") {
				t.Errorf("a stack trace:\n%s", message)
			}
		})
	}
}

func TestNodeEnvProductionKeepsTheBuildTools(t *testing.T) {
	t.Parallel()
	for _, kv := range []string{"NODE_ENV=production", "npm_config_omit=dev"} {
		t.Run(kv, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, small()) // its tool is a development dependency
			p.Env = append(p.Env, kv)
			p.built(t, true, true) // npm install
			p.remove(t, "node_modules")
			p.built(t, true, false) // npm ci
		})
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	p := newPlace(t, small())
	step := func(name string, installed, lockChanged bool, before func()) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			before()
			p.built(t, installed, lockChanged)
		})
	}
	step("no lock", true, true, func() {})
	step("nothing changed", false, false, func() {})
	step("other part of package.json changed", false, false, func() {
		p.write(t, "package.json", strings.Replace(p.read(t, "package.json"), "{", `{"description": "bread", `, 1))
	})
	step("dependencies changed, lock did not", true, true, func() {
		p.write(t, "other/package.json", `{"name": "other", "version": "1.0.0"}`)
		p.write(t, "package.json", strings.Replace(p.read(t, "package.json"), "{", `{"dependencies": {"other": "file:./other"}, `, 1))
	})
	step("nothing changed again", false, false, func() {})
	step("lock changed", true, false, func() { p.write(t, "package-lock.json", p.read(t, "package-lock.json")+"\n") })
	step("lock removed", true, true, func() { p.remove(t, "package-lock.json") })
	step("lock is not one", true, true, func() { p.write(t, "package-lock.json", "<<<<<<< ours") })
	step("configuration of npm changed", true, false, func() { p.write(t, ".npmrc", "audit=false\n") })
	step("agent installed", true, false, func() {
		p.write(t, "node_modules/.package-lock.json", p.read(t, "node_modules/.package-lock.json")+"\n")
	})
	step("node_modules removed", true, false, func() { p.remove(t, "node_modules") })
	step("cache lost", true, false, func() {
		if err := os.RemoveAll(p.Cache); err != nil {
			t.Fatal(err)
		}
	})
	step("stamp is not one", true, false, func() {
		if err := os.WriteFile(filepath.Join(p.Cache, "installed.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	step("at last nothing changed", false, false, func() {})
}

// What package.json of a workspace asks for is not looked at, so npm is asked.
func TestWorkspacesAlwaysInstall(t *testing.T) {
	t.Parallel()
	files := small()
	files["package.json"] = strings.Replace(files["package.json"], "{", `{"workspaces": ["tool"], `, 1)
	p := newPlace(t, files)
	p.built(t, true, true)
	p.built(t, true, false)
}

// The stamp is the last thing an install writes: without it nothing counts.
func TestCrashBeforeTheStampInstallsAgain(t *testing.T) {
	t.Parallel()
	p := newPlace(t, small())
	p.built(t, true, true)
	inTheWay := filepath.Join(p.Cache, "installed.json.new")
	if err := os.Mkdir(inTheWay, 0o750); err != nil {
		t.Fatal(err)
	}
	p.write(t, "package-lock.json", p.read(t, "package-lock.json")+"\n")
	_, err := p.Run(t.Context(), p.Request)
	if _, ok := errors.AsType[*build.Error](err); err == nil || ok {
		t.Fatalf("error %v; want one that is not the site's", err)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	p.built(t, true, false)
	p.built(t, false, false)
}

// After an install that was cut short, the tree and what is asked for may be
// those of the stamp before.
func TestInterruptedInstallIsMadeAgain(t *testing.T) {
	t.Parallel()
	files := small()
	files["package.json"] = strings.Replace(files["package.json"], `{"build"`, `{"postinstall": "node hang.js", "build"`, 1)
	files["hang.js"] = "const fs = require('fs');\nif (fs.existsSync('hang')) { fs.writeFileSync('up', ''); setInterval(() => {}, 1000); }\n"
	p := newPlace(t, files)
	p.built(t, true, true)
	p.built(t, false, false)

	lock := p.read(t, "package-lock.json")
	p.write(t, "package-lock.json", lock+"\n")
	p.write(t, "hang", "")
	p.interrupted(t)
	p.write(t, "package-lock.json", lock)
	p.remove(t, "hang")
	p.built(t, true, false)
}

// interrupted builds until a script made the file "up", and cancels then.
func (p place) interrupted(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cause := errors.New("somebody has another idea")
	done := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx, p.Request)
		done <- err
	}()
	p.appears(t, "up")
	began := time.Now()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("error %v; want the cause", err)
	} else if e, ok := errors.AsType[*build.Error](err); ok {
		t.Errorf("the site is blamed: %v", e)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v to end; 3 s are promised", took)
	}
	nothingAlive(t)
}

// stubborn leaves a child in a session of its own that ignores TERM, as itself.
const stubborn = `
process.on('SIGTERM', () => {});
setInterval(() => {}, 1000);
if (process.argv[2]) fs.writeFileSync('up', '');
else require('child_process').spawn(process.execPath, [__filename, 'child'], {detached: true, stdio: 'ignore'});
`

func TestCancelEndsTheTree(t *testing.T) {
	t.Parallel()
	newPlace(t, bare(stubborn)).interrupted(t)
}

func TestCancelledBeforeItBegins(t *testing.T) {
	t.Parallel()
	p := newPlace(t, bare(writeIndex))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("too late")
	cancel(cause)
	if _, err := p.Run(ctx, p.Request); !errors.Is(err, cause) {
		t.Errorf("error %v; want the cause", err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"build": bare(stubborn),
		"install": {
			"package.json": `{"name": "bare", "scripts": {"preinstall": "node build.js", "build": "true"}}`,
			"build.js":     "const fs = require('fs');" + stubborn,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, files)
			p.Timeout = 6 * time.Second // npm needs one
			p.fails(t, build.CodeTimeout, "npm", name, "6s")
			p.appears(t, "up")
			nothingAlive(t)
		})
	}
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	eat := `node --max-old-space-size=16 -e 'const all = []; for (;;) all.push(new Array(1e5).fill(1.5))'`
	for name, script := range map[string]string{
		"V8 gives up":            eat,
		"below a shell":          eat + " || exit 1",
		"the kernel kills":       "kill -9 $$",
		"the kernel kills below": "sh -c 'kill -9 $$'; exit $?",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, map[string]string{"package.json": fmt.Sprintf(`{"scripts": {"build": %q}}`, script)})
			p.fails(t, build.CodeOutOfMemory, "npm run build")
		})
	}
}

func TestSiteWithoutDependencies(t *testing.T) {
	t.Parallel()
	p := newPlace(t, bare(writeIndex))
	p.built(t, true, true)
	if result := p.build(t); result.LockChanged {
		t.Error("the lock changed once more")
	}
}

func TestCannotBeBuilt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no package.json", map[string]string{"index.html": "hello"}, "no package.json"},
		{"package.json is a directory", map[string]string{"package.json/a": ""}, "not a regular file"},
		{"package.json ends early", map[string]string{"package.json": `{"scripts": {`}, "package.json is not valid: unexpected end"},
		{"package.json is a list", map[string]string{"package.json": `[]`}, "package.json is not valid: it is not an object"},
		{"package.json is empty", map[string]string{"package.json": ""}, "package.json is not valid"},
		{"package.json is null", map[string]string{"package.json": "null"}, `no "build" script`},
		{"package.json is endless", map[string]string{"package.json": `{"scripts": {"build": "true"}}` + strings.Repeat(" ", 2<<20)}, "package.json is larger than"},
		{"no scripts", map[string]string{"package.json": `{}`}, `no "build" script`},
		{"no build script", map[string]string{"package.json": `{"scripts": {"dev": "astro dev"}}`}, `no "build" script`},
		{"empty build script", map[string]string{"package.json": `{"scripts": {"build": " "}}`}, `no "build" script`},
		{"no index.html", bare("fs.mkdirSync('dist'); fs.writeFileSync('dist/about.html', 'hello')"), "left no dist/index.html"},
		{"empty index.html", bare("fs.mkdirSync('dist'); fs.writeFileSync('dist/index.html', '')"), "left no dist/index.html"},
		{"linked index.html", bare("fs.mkdirSync('dist'); fs.symlinkSync('../build.js', 'dist/index.html')"), "left no dist/index.html"},
		{"linked dist", bare("fs.mkdirSync('out'); fs.writeFileSync('out/index.html', 'hello'); fs.symlinkSync('out', 'dist')"), "not a directory"},
		{"dist is a file", bare("fs.writeFileSync('dist', 'hello')"), "not a directory"},
		{"silent failure", bare("process.exit(3)"), "without saying why"},
		{"command that is not there", map[string]string{"package.json": `{"scripts": {"build": "astroo build"}}`}, "astroo: not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newPlace(t, tt.files).fails(t, build.CodeFailed, tt.want)
		})
	}
}

func TestPackageJSONWithByteOrderMark(t *testing.T) {
	t.Parallel()
	files := bare(writeIndex)
	files["package.json"] = "\ufeff" + files["package.json"]
	newPlace(t, files).built(t, true, true)
}

func TestOldDistDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"fails": "process.exit(1)", "does nothing": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, bare(script))
			p.write(t, "dist/index.html", "of an earlier build")
			p.fails(t, build.CodeFailed)
			if text := p.read(t, "dist/index.html"); text != "" {
				t.Errorf("dist/index.html is still %q", text)
			}
		})
	}
}

func TestPackageThatDoesNotExist(t *testing.T) {
	t.Parallel()
	const name = "@webordinary/no-such-package-here"
	files := bare(writeIndex)
	files["package.json"] = strings.Replace(files["package.json"], "{", `{"dependencies": {"`+name+`": "1.0.0"}, `, 1)
	p := newPlace(t, files)
	message := p.fails(t, build.CodeInstall, "could not be installed", name)
	if strings.Contains(message, "Log files") || strings.Contains(message, "npm error") {
		t.Errorf("npm's own matters are in the message:\n%s", message)
	}
	p.write(t, "package.json", bare("")["package.json"])
	p.built(t, true, true)
}

func TestMessageOfAnEndlessBuildIsBounded(t *testing.T) {
	t.Parallel()
	p := newPlace(t, bare(`for (let i = 0; i < 5000; i++) console.error('flour '.repeat(100) + i); console.error('src/last.astro is wrong'); process.exitCode = 1;`))
	message := p.fails(t, build.CodeFailed, "src/last.astro is wrong")
	if len(message) > 8<<10 {
		t.Errorf("%d bytes", len(message))
	}
}

func TestChildrenGetTheirOwnSurroundings(t *testing.T) {
	p := newPlace(t, bare(`
fs.mkdirSync('dist');
fs.writeFileSync('dist/index.html', ['HOME', 'TMPDIR', 'TZ', 'CI', 'NODE_ENV', 'SECRET_OF_THE_WORKER'].map((n) => n + '=' + process.env[n]).join('\n'));
fs.writeFileSync(process.env.HOME + '/.npmrc', 'omit=dev');
`))
	p.Env = append(p.Env, "NODE_ENV=production")
	t.Setenv("SECRET_OF_THE_WORKER", "hunter2")
	p.build(t)
	want := fmt.Sprintf("HOME=%[1]s/build/home\nTMPDIR=%[1]s/build/tmp\nTZ=UTC\nCI=1\nNODE_ENV=undefined\nSECRET_OF_THE_WORKER=undefined", p.Job)
	if d := cmp.Diff(want, p.read(t, "dist/index.html")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	p.write(t, "build.js", "const fs = require('fs'); if (fs.readdirSync(process.env.HOME).includes('.npmrc')) process.exit(1);"+writeIndex)
	p.build(t)
}

func TestNpmMissing(t *testing.T) {
	t.Parallel()
	p := newPlace(t, bare(writeIndex))
	p.Env = process.With(p.Env, "PATH="+t.TempDir())
	_, err := p.Run(t.Context(), p.Request)
	if e, ok := errors.AsType[*build.Error](err); ok || !errors.Is(err, process.ErrNotFound) {
		t.Errorf("error %v; want ErrNotFound, not the site's %v", err, e)
	}
}

func TestConcurrentBuilds(t *testing.T) {
	t.Parallel()
	p := newPlace(t, small())
	q := newPlace(t, small())
	done := make(chan error, 2)
	for _, r := range []build.Request{p.Request, q.Request} {
		go func() {
			_, err := p.Run(t.Context(), r)
			done <- err
		}()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
}

// outside makes a directory beside the checkout, with a file in it, and a link
// to one of the two.
func (p place) outside(t *testing.T, link, text string, toFile bool) {
	t.Helper()
	dir := t.TempDir()
	target, file := dir, filepath.Join(dir, "file")
	if toFile {
		target = file
	}
	p.remove(t, link)
	err := errors.Join(
		os.WriteFile(file, []byte(text), 0o600), os.MkdirAll(filepath.Dir(filepath.Join(p.Site, link)), 0o750),
		os.Symlink(target, filepath.Join(p.Site, link)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("what %s points to was changed: %q, %v", link, got, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("where %s points to is now: %v, %v", link, entries, err)
		}
	})
}

func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		link, text string
		toFile     bool
	}{
		{"package.json", small()["package.json"], true},
		{"package-lock.json", "{}", true},
		{"npm-shrinkwrap.json", "{}", true},
		{"node_modules", "precious", false},
	} {
		t.Run(tt.link, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, small())
			p.built(t, true, true)
			p.outside(t, tt.link, tt.text, tt.toFile)
			p.fails(t, build.CodeFailed, tt.link)
		})
	}
	for _, link := range []string{"dist", ".astro"} {
		t.Run(link, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, small())
			p.outside(t, link, "precious", false)
			p.built(t, true, true)
			p.built(t, false, false)
		})
	}
}

func TestLinksInPublicAreRefused(t *testing.T) {
	t.Parallel()
	for _, link := range []string{"public/flour", "public/a/b/flour", "public"} {
		for _, toFile := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s_%t", strings.ReplaceAll(link, "/", "_"), toFile), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t, bare(writeIndex))
				p.outside(t, link, "secret", toFile)
				p.fails(t, build.CodeRefused, fmt.Sprintf("%q", link))
			})
		}
	}
}

func TestLinksWithinTheCheckoutAreRefused(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{"public": "src", "public/dir": "../src", "public/gone": "nowhere", "public/\x1b[31m": "../src/a"} {
		files := maps.Clone(bare(writeIndex))
		files["src/a"] = "hello"
		if name != "public" {
			files["public/robots.txt"] = "hello"
		}
		p := newPlace(t, files)
		if err := os.Symlink(target, filepath.Join(p.Site, name)); err != nil {
			t.Fatal(err)
		}
		p.fails(t, build.CodeRefused, fmt.Sprintf("%q", name))
	}
}

func TestManyLinksAreCounted(t *testing.T) {
	t.Parallel()
	files := bare(writeIndex)
	files["public/robots.txt"] = "hello"
	p := newPlace(t, files)
	for i := range 12 {
		if err := os.Symlink("robots.txt", filepath.Join(p.Site, "public", fmt.Sprint("link", i))); err != nil {
			t.Fatal(err)
		}
	}
	message := p.fails(t, build.CodeRefused, `"public/link0", `, "and 2 more")
	if named := strings.Count(message, `"public/link`); named != 10 {
		t.Errorf("%d links are named:\n%s", named, message)
	}
}

// Children that the keeper ended since the worker was frozen are not blamed.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	p := newPlace(t, bare(`setInterval(() => {}, 1000)`))
	p.Runner.Silence, p.Runner.Heartbeat = 3*time.Second, time.Hour
	_, err := p.Run(t.Context(), p.Request)
	if e, ok := errors.AsType[*build.Error](err); ok || !errors.Is(err, process.ErrSilence) {
		t.Errorf("got %v (%v)", err, e)
	}
	nothingAlive(t)
}
