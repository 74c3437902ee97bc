package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/deploy"
)

var errKilled = errors.New("killed")

// mortal is a bucket whose caller dies at a request: that one and all later ones
// fail. After each request it looks at the site as visitors would.
type mortal struct {
	deploy.Bucket
	after func() // called after each write, one at a time

	mu      sync.Mutex
	left    int  // requests until death
	applied bool // whether the fatal request still takes effect
}

func (m *mortal) call(request func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left--
	switch {
	case m.left < 0, m.left == 0 && !m.applied:
		return errKilled
	}
	err := request()
	m.after()
	if m.left == 0 {
		return errKilled
	}
	return err
}

func (m *mortal) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (etag string, err error) {
	err = m.call(func() error {
		etag, err = m.Bucket.Put(ctx, o, body, c)
		return err
	})
	return etag, err
}

func (m *mortal) Delete(ctx context.Context, keys ...string) error {
	return m.call(func() error { return m.Bucket.Delete(ctx, keys...) })
}

// drawSite makes a build: pages that name assets, each on a line of its own, and
// other files.
func drawSite(t *rapid.T) site {
	s := site{}
	versions := rapid.SliceOfN(rapid.IntRange(0, 3), 3, 3).Draw(t, "asset versions")
	pages := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.html", "b/index.html", "c/d.html", "404.html"}), 0, 4, rapid.ID).Draw(t, "pages")
	for _, page := range append(pages, "index.html") {
		content := fmt.Sprintf("text %d\n", rapid.IntRange(0, 2).Draw(t, "text"))
		for i, v := range versions {
			if rapid.Bool().Draw(t, "uses") {
				name := fmt.Sprintf("_astro/asset%d.VERSION%d.css", i, v)
				content += name + "\n"
				s[name] = name
			}
		}
		s[page] = content
	}
	for _, f := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"robots.txt", "x/y.json", "e.svg"}), rapid.ID).Draw(t, "files") {
		s[f] = fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "version"))
	}
	return s
}

// broken names an asset that a page wants and the bucket lacks.
func broken(s site) string {
	for key, content := range s {
		if !strings.HasSuffix(key, ".html") {
			continue
		}
		for line := range strings.Lines(content) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "_astro/") && s[line] != line {
				return key + " wants " + line
			}
		}
	}
	return ""
}

// Whatever is deployed over whatever, and wherever a deploy is cut off: every
// page served finds its assets at every moment, and a deploy that is not cut off
// leaves the build and young assets.
func TestSyncKeepsEveryPageWhole(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		bucket, err := deploy.OpenDirectory(filepath.Join(dir, fmt.Sprint(n)), clock)
		if err != nil {
			rt.Fatal(err)
		}
		defer bucket.Close() //nolint:errcheck // nothing is left to write
		var retired map[string]time.Time
		if rapid.Bool().Draw(rt, "remembers") {
			retired = map[string]time.Time{}
		}
		var under deploy.Bucket = bucket // as it looks to a deploy
		switch rapid.SampledFrom([]string{"knows all", "knows MD5", "knows nothing"}).Draw(rt, "kind") {
		case "knows MD5":
			under = &blind{Directory: bucket}
		case "knows nothing":
			under = &blind{Directory: bucket, encrypted: true}
		}
		o := deploy.Options{Now: clock}
		var live site // the build that was last deployed to its end
		for step := range rapid.IntRange(1, 5).Draw(rt, "deploys") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 12, 23, 30}).Draw(rt, "hours")) * time.Hour)
			build := drawSite(rt)
			m := &mortal{Bucket: under, left: rapid.IntRange(1, 25).Draw(rt, "dies at"), applied: rapid.Bool().Draw(rt, "applied")}
			seen := ""
			m.after = func() {
				if seen == "" {
					seen = broken(contents(t, bucket))
				}
			}
			o.Dir, o.Retired = build.write(t, filepath.Join(dir, "dist")), retired
			o.Workers = rapid.SampledFrom([]int{1, 32}).Draw(rt, "workers")
			if rapid.IntRange(0, 3).Draw(rt, "disturbed") == 0 { // by somebody who does not know of us
				put(t, bucket, "theirs.txt", "theirs")
				put(t, bucket, "index.html", "theirs")
				o.Undisturbed = false
			}
			result, err := deploy.Sync(rt.Context(), m, o)
			switch {
			case seen != "":
				rt.Fatalf("deploy %d: %s", step, seen)
			case errors.Is(err, errKilled):
			case err != nil:
				rt.Fatalf("deploy %d: %v", step, err)
			default:
				checkComplete(rt, contents(t, bucket), build)
				if retired != nil {
					checkOpenPages(rt, contents(t, bucket), live)
				}
				live = build
			}
			o.State, o.Undisturbed, o.Rules = result.State, err == nil, deploy.HeaderRules
			if retired != nil {
				retired = result.Retired
			}
		}
		build := drawSite(rt)
		if _, err := deploy.Sync(rt.Context(), bucket, deploy.Options{Dir: build.write(t, filepath.Join(dir, "dist")), Now: clock, Grace: -1}); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(build, contents(t, bucket)); diff != "" {
			rt.Fatalf("after a whole deploy without grace (-want +got):\n%s", diff)
		}
	})
}

// checkComplete wants the build, and nothing else but hashed assets.
func checkComplete(t *rapid.T, got, build site) {
	maps.DeleteFunc(got, func(key, _ string) bool {
		_, ours := build[key]
		return !ours && strings.HasPrefix(key, "_astro/")
	})
	if diff := cmp.Diff(build, got); diff != "" {
		t.Fatalf("after a whole deploy (-want +got):\n%s", diff)
	}
}

// checkOpenPages wants the assets of the pages that were served before.
func checkOpenPages(t *rapid.T, got, before site) {
	for key := range before {
		if _, there := got[key]; !there && strings.HasPrefix(key, "_astro/") {
			t.Fatalf("a page opened before the deploy has lost %s", key)
		}
	}
}
