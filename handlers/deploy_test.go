package handlers_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// listed is how often the bucket was listed since it was last asked.
func (w *world) listed() int { return int(w.lists.Swap(0)) }

// TestBucketIsListedOnlyWhenItHasTo: a worker remembers what it deployed, and
// believes that as long as the journal knows of no other deploy.
func TestBucketIsListedOnlyWhenItHasTo(t *testing.T) {
	w := newWorld(t)
	expect := func(name string, want int) {
		t.Helper()
		if got := w.listed(); got != want {
			t.Errorf("%s: listed %d times, want %d", name, got, want)
		}
	}
	w.succeed(w.message("t", "c-1", "page one"))
	expect("the first deploy", 1)
	w.succeed(w.message("t", "c-2", "page two"))
	expect("the next one", 0)
	first := *w.h
	w.nextWorker()
	w.succeed(w.message("t", "c-3", "page three"))
	expect("the first of another worker", 1)
	w.succeed(w.message("t", "c-4", "page four"))
	expect("the next of another worker", 0)
	if err := w.h.Lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.Lease = w.acquire()
	w.h = &first
	var puts atomic.Int64
	w.put = func(context.Context, string) error { puts.Add(1); return nil }
	w.succeed(w.message("t", "c-5", "page five"))
	if puts.Load() != 2 { // index.html and style.css
		t.Errorf("%d uploads: what is remembered was believed until one was refused", puts.Load())
	}
	expect("after another worker's", 1)
	w.put = func(context.Context, string) error { return errors.New("broken") }
	if f := w.refuse(w.message("t", "c-6", "page six")); f.Code != protocol.DeployFailed {
		t.Errorf("got %v", f)
	}
	expect("one that fails", 0)
	w.put = nil
	w.succeed(w.message("t", "c-7", "page seven"))
	expect("after one that failed", 1)
	if w.live() != "seven" {
		t.Errorf("live page %q", w.live())
	}
}

// TestRememberedBucketMayBeLost: the file is a help, not a need.
func TestRememberedBucketMayBeLost(t *testing.T) {
	w := newWorld(t)
	w.succeed(w.message("t", "c-1", "page one"))
	files, err := filepath.Glob(filepath.Join(w.disk, "*", "worker", "cache", "bucket.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("remembered in %v, %v", files, err)
	}
	for _, body := range []string{"", "{", `{"site":{},"state":{"version":0}}`} {
		if err := os.WriteFile(files[0], []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		w.listed()
		if w.succeed(w.message("t", "c"+body, "page "+body)); w.listed() != 1 {
			t.Errorf("%q is believed", body)
		}
	}
}

// TestOpenPagesKeepTheirAssets: the grace counts from the deploy that no longer
// has an asset, not from when that was uploaded.
func TestOpenPagesKeepTheirAssets(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	w.h.Now = func() time.Time { return now }
	asset := func(name string) agentFunc {
		return func(_ context.Context, r agent.Request) (agent.Result, error) {
			return agent.Result{}, errors.Join(write(r, "page.html", name), write(r, "build.cjs", `
const fs = require('fs');
fs.rmSync('dist', {recursive: true, force: true});
fs.mkdirSync('dist/_astro', {recursive: true});
fs.writeFileSync('dist/index.html', '`+name+`');
fs.writeFileSync('dist/_astro/`+name+`', 'x');
`))
		}
	}
	const a, b = "s.AAAAAAAA.css", "s.BBBBBBBB.css"
	w.agent.play["a"], w.agent.play["b"] = asset(a), asset(b)
	w.succeed(w.message("t", "c-1", "a"))
	there := func() bool {
		_, err := os.Stat(filepath.Join(w.sites, "edit.amelia.webordinary.com", "_astro", a))
		return err == nil
	}
	now = now.Add(100 * time.Hour)
	w.succeed(w.message("t", "c-2", "b"))
	if !there() {
		t.Error("the asset is gone with the deploy that replaced it")
	}
	now = now.Add(25 * time.Hour)
	w.succeed(w.message("t", "c-3", "page more"))
	if there() {
		t.Error("the asset is there after its grace")
	}
}
