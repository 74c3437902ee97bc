package build_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/process"
)

// packed is a site with a package of its own that has a program and a file, and a
// lock file.
func packed(t *testing.T) map[string]string {
	t.Helper()
	p := newPlace(t, map[string]string{
		// Packages may leave what they like, so nothing there can mark the end.
		"pkg/package.json": `{"name": "flour", "version": "1.0.0", "bin": "./mill.js", "scripts": {"postinstall": "touch ../.whole ../.end"}}`,
		"pkg/mill.js":      "#!/usr/bin/env node\n",
		"package.json":     `{"name": "site", "version": "1.0.0", "scripts": {"build": "node build.js"}, "dependencies": {"flour": "file:./flour-1.0.0.tgz"}}`,
		"build.js":         "const fs = require('fs');" + writeIndex,
	})
	run := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "npm", append(args, "--no-audit", "--no-fund")...)
		cmd.Dir, cmd.Env = filepath.Join(p.Site, dir), append(os.Environ(), "npm_config_cache="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm %v: %v\n%s", args, err, out)
		}
	}
	run("pkg", "pack", "--pack-destination", "..")
	run(".", "install", "--package-lock-only")
	files := map[string]string{}
	for _, name := range []string{"flour-1.0.0.tgz", "package.json", "package-lock.json", "build.js"} {
		files[name] = p.read(t, name)
	}
	return files
}

// fresh is another checkout of the same project and user, on a machine without npm.
func (p place) fresh(t *testing.T, files map[string]string) place {
	t.Helper()
	q := newPlace(t, files)
	q.Cache, q.Downloads = p.Cache, p.Downloads
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(node, filepath.Join(bin, "node")); err != nil {
		t.Fatal(err)
	}
	q.Env = process.With(q.Env, "PATH="+bin)
	return q
}

func (p place) prepare(t *testing.T) {
	t.Helper()
	if err := p.Prepare(t.Context(), p.Request); err != nil {
		t.Fatal(err)
	}
}

// kept lists the trees that are kept.
func (p place) kept(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.Cache, "node_modules-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPackagesAreCopiedFromWhatIsKept(t *testing.T) {
	t.Parallel()
	files := packed(t)
	p := newPlace(t, files)
	p.prepare(t)
	if n := len(p.kept(t)); n != 1 {
		t.Fatalf("%d trees are kept", n)
	}
	p.built(t, false, false)
	// What an agent does to its packages is its own.
	p.write(t, "node_modules/flour/mill.js", "evil")
	for range 2 {
		q := p.fresh(t, files)
		q.prepare(t)
		if text := q.read(t, "node_modules/flour/mill.js"); text != "#!/usr/bin/env node\n" {
			t.Errorf("mill.js is %q", text)
		}
		if target, err := os.Readlink(filepath.Join(q.Site, "node_modules/.bin/flour")); err != nil || target != "../flour/mill.js" {
			t.Errorf("the program is %q, %v", target, err)
		}
		if info, err := os.Stat(filepath.Join(q.Site, "node_modules/.bin/flour")); err != nil || info.Mode().Perm()&0o100 == 0 {
			t.Errorf("the program is %v, %v", info, err)
		}
		q.Env = process.With(q.Env, "PATH="+os.Getenv("PATH"))
		q.built(t, false, false)
		q.write(t, "node_modules/flour/mill.js", "evil")
	}
}

// TestPackagesAreCopiedInABuild: an agent has worked there, and what it asks for was
// kept before.
func TestPackagesAreCopiedInABuild(t *testing.T) {
	t.Parallel()
	files := packed(t)
	p := newPlace(t, files)
	p.prepare(t)
	q := p.fresh(t, files)
	q.write(t, "node_modules/flour/mill.js", "evil")
	if _, err := q.Run(t.Context(), q.Request); err == nil { // there is no npm to build with
		t.Fatal("built")
	}
	if text := q.read(t, "node_modules/flour/mill.js"); text != "#!/usr/bin/env node\n" {
		t.Errorf("mill.js is %q", text)
	}
}

// TestKeptPackagesAreAllThere: files of any size, in directories of any depth, some
// of them after a directory beside them.
func TestKeptPackagesAreAllThere(t *testing.T) {
	t.Parallel()
	files := packed(t)
	p := newPlace(t, files)
	want := map[string]string{"a/b/c/d.js": "deep", "a/b/c.js": "beside", "a/e.js": "above", "a-b/f.js": "", "z/large.js": strings.Repeat("large", 1<<18)}
	for i := range 300 {
		want[fmt.Sprintf("m%02d/sub/f%d.js", i%7, i)] = strings.Repeat("x", i)
	}
	bin := t.TempDir()
	npm := "#!/bin/sh\n" + `cp -r "$MADE" node_modules && echo {} > node_modules/.package-lock.json` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(npm), 0o700); err != nil {
		t.Fatal(err)
	}
	made := place{Request: build.Request{Site: t.TempDir()}}
	for name, text := range want {
		made.write(t, name, text)
	}
	p.Env = process.With(p.Env, "MADE="+made.Site, "PATH="+bin+":"+os.Getenv("PATH"))
	p.prepare(t)
	q := p.fresh(t, files)
	q.prepare(t)
	for name, text := range want {
		if got := q.read(t, "node_modules/"+name); got != text {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(text))
		}
	}
}

func TestOnlyCleanTreesAreKept(t *testing.T) {
	t.Parallel()
	files := packed(t)
	for name, script := range map[string]string{"an agent's": "", "with a script": "postinstall"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(files)
			if script != "" {
				files["package.json"] = strings.Replace(files["package.json"], `{"build"`, `{"postinstall": "node build.js", "build"`, 1)
			}
			p := newPlace(t, files)
			if script != "" {
				p.prepare(t)
			}
			p.built(t, script == "", false)
			if kept := p.kept(t); len(kept) > 0 {
				t.Errorf("kept: %q", kept)
			}
		})
	}
}

func TestPrepareWithoutALock(t *testing.T) {
	t.Parallel()
	p := newPlace(t, small())
	p.prepare(t)
	if _, err := os.Lstat(filepath.Join(p.Site, "node_modules")); err == nil {
		t.Error("installed")
	}
}

func TestDamagedKeptPackages(t *testing.T) {
	t.Parallel()
	files := packed(t)
	p := newPlace(t, files)
	p.prepare(t)
	file := p.kept(t)[0]
	if err := os.Truncate(file, 2000); err != nil {
		t.Fatal(err)
	}
	q := newPlace(t, files)
	q.Cache, q.Downloads = p.Cache, p.Downloads
	q.prepare(t)
	q.built(t, false, false)
	if info, err := os.Stat(file); err != nil || info.Size() <= 2000 {
		t.Errorf("kept again: %v, %v", info, err)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	put := func(dir, name string, size int64, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	names := func(dir string) (names []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	for name, tt := range map[string]struct {
		fill             func(cache, downloads string)
		cache, downloads []string
	}{
		"young": {func(cache, downloads string) {
			put(cache, "node_modules-a.tar", 1, 29*day)
			put(cache, "node_modules-b.tar", 1, 0)
			put(cache, "installed.json", 1, 99*day)
			put(downloads, "x", 1, 29*day)
		}, []string{"installed.json", "node_modules-a.tar", "node_modules-b.tar"}, []string{"x"}},
		"old": {func(cache, downloads string) {
			put(cache, "node_modules-a.tar", 1, 31*day)
			put(cache, "node_modules-b.tar.new", 1, 0)
			put(downloads, "x", 1, 31*day)
			put(downloads, "y", 1, 32*day)
			if err := os.Chtimes(downloads, now.Add(-31*day), now.Add(-31*day)); err != nil {
				t.Fatal(err)
			}
		}, nil, nil},
		"many": {func(cache, _ string) {
			put(cache, "node_modules-a.tar", 1, 3*day)
			put(cache, "node_modules-b.tar", 1, day)
			put(cache, "node_modules-c.tar", 1, 2*day)
		}, []string{"node_modules-b.tar", "node_modules-c.tar"}, nil},
		"large": {func(cache, downloads string) {
			put(cache, "node_modules-a.tar", 1<<30+1, 2*day)
			put(cache, "node_modules-b.tar", 1<<30, day)
			put(downloads, "x", 2<<30, 0)
			put(downloads, "y", 1<<20, 0)
		}, []string{"node_modules-b.tar"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache, downloads := t.TempDir(), t.TempDir()
			tt.fill(cache, downloads)
			if err := build.Trim(cache, downloads, now); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.cache, names(cache)); d != "" {
				t.Errorf("cache (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.downloads, names(downloads)); d != "" {
				t.Errorf("downloads (-want +got):\n%s", d)
			}
		})
	}
}
