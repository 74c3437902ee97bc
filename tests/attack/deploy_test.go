package attack

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deployAttack is a build that puts what is not the site's where the site is. SECRET
// is a file that the worker can read.
type deployAttack struct {
	name  string
	build string   // a script
	code  string   // of the answer
	names []string // what its error names
}

func deployAttacks() []deployAttack {
	return []deployAttack{
		{
			"links, secrets and a FIFO", `ln -s SECRET dist/secret.txt; ln -s "$(dirname SECRET)" dist/dir; cp SECRET .hidden; ln -s ../.hidden dist/within.txt
				cp SECRET dist/.env; mkdir dist/a dist/.git; cp SECRET dist/a/.env.production; cp SECRET dist/a/id_rsa; cp SECRET dist/server.pem
				cp SECRET dist/.git/config; mkfifo dist/pipe`,
			"deploy_refused",
			[]string{"secret.txt", "dir", "within.txt", ".env", "a/.env.production", "a/id_rsa", "server.pem", ".git", "pipe"},
		},
		{"dist is a link", `rm -r dist; mkdir out; cp SECRET out/index.html; ln -s out dist`, "build_failed", []string{"dist"}},
		{
			"dist is a link to elsewhere", `cp SECRET "$(dirname SECRET)/index.html"; rm -r dist; ln -s "$(dirname SECRET)" dist`,
			"build_failed",
			[]string{"dist"},
		},
		{"a file without rights", `cp SECRET dist/shut.txt; chmod 0 dist/shut.txt`, "deploy_refused", []string{"shut.txt"}},
		{"a site that is too large", `truncate -s 1100M dist/zeros.bin`, "deploy_refused", []string{"1 GB"}},
	}
}

// TestDeployTakesTheSiteAlone builds sites that hold links and secrets. Nothing of a
// secret goes up, where plain copying takes it along.
func TestDeployTakesTheSiteAlone(t *testing.T) { //nolint:tparallel // they share a worker
	t.Parallel()
	w := newWorld(t)
	files := siteFiles(`import {execFileSync} from 'node:child_process';
execFileSync('sh', ['-c', 'rm -rf dist; mkdir dist; echo hello > dist/index.html; . ./attack.sh'], {stdio: 'inherit'});`)
	w.git.Create(t, "site.git", files)
	p := w.shell()
	live := filepath.Join(w.state, "sites")
	for i, a := range deployAttacks() {
		t.Run(a.name, func(t *testing.T) {
			secrets, err := os.MkdirTemp(w.home, "secrets-") //nolint:usetesting // the worker's user looks into it
			w.must(err)
			w.must(os.Chown(secrets, workerUID, workerUID))
			secret := filepath.Join(secrets, "secret")
			w.must(os.WriteFile(secret, []byte(w.secrets["home"]), 0o644))
			build := strings.ReplaceAll(a.build, "SECRET", secret)
			name := "d" + itoa(i)
			out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), name, name, "cat > attack.sh << 'END'\n" + build + "\nEND"})
			wantCode(t, out, a.code)
			if holds(live, w.secrets["home"]) {
				t.Error("the secret is live")
			}
			for _, name := range a.names {
				if !strings.Contains(out.Error, name) {
					t.Errorf("%q is not named: %s", name, out.Error)
				}
			}
			if !strings.Contains(build, secret) {
				return
			}
			site := w.plainClone("site.git")
			said := w.plainly(site, "mkdir dist; echo hello > dist/index.html\n"+build+"\nchmod -R u+r dist; cp -rL dist copy")
			if !holds(filepath.Join(site, "copy"), w.secrets["home"]) {
				t.Errorf("plain copying does not take the secret, so nothing is shown: %s", said)
			}
		})
	}
}

// holds reports whether a file below a directory has a text.
func holds(dir, text string) (found bool) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // what is not there holds nothing
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			found = found || err == nil && info.Size() < 1<<20 && strings.Contains(readAll(path), text)
		}
		return nil
	})
	return found
}

// TestLinksInPublic is about what Astro copies from public into dist: the target.
func TestLinksInPublic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", siteFiles(quietBuild+"fs.cpSync('public', 'dist', {recursive: true, dereference: true});\n"))
	p := w.shell()
	secret := filepath.Join(w.home, ".aws", "credentials")
	for name, script := range map[string]string{
		"file": "mkdir -p public; ln -sf " + secret + " public/file", "directory": "mkdir -p public; ln -sf " + filepath.Dir(secret) + " public/dir",
		"public": "rm -rf public; ln -s " + filepath.Dir(secret) + " public",
	} {
		out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), name, name, script})
		if out.Success || !strings.Contains(out.Error, "public") {
			t.Errorf("%s: %+v", name, out)
		}
		if holds(filepath.Join(w.state, "sites"), w.secrets["home"]) {
			t.Errorf("%s: the secret is live", name)
		}
		site := w.plainClone("site.git")
		w.plainly(site, script+"; node build.mjs")
		if !holds(filepath.Join(site, "dist"), w.secrets["home"]) {
			t.Errorf("%s: the plain build does not copy the secret, so nothing is shown", name)
		}
	}
}
