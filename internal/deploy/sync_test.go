package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a bucket that notes its calls and can fail them.
type recorder struct {
	deploy.Bucket
	before func(call string) error // called before each, one at a time

	mu    sync.Mutex
	calls []string
}

func (r *recorder) note(call string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	if r.before != nil {
		return r.before(call)
	}
	return nil
}

func (r *recorder) List(ctx context.Context) ([]deploy.Object, error) {
	if err := r.note("list"); err != nil {
		return nil, err
	}
	return r.Bucket.List(ctx)
}

func (r *recorder) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	if err := r.note("put " + o.Key); err != nil {
		return "", err
	}
	return r.Bucket.Put(ctx, o, body, c)
}

func (r *recorder) Delete(ctx context.Context, keys ...string) error {
	if err := r.note("delete " + strings.Join(keys, " ")); err != nil {
		return err
	}
	return r.Bucket.Delete(ctx, keys...)
}

func sync1(t *testing.T, b deploy.Bucket, s site, o deploy.Options) (deploy.Result, error) {
	t.Helper()
	o.Dir = s.write(t, filepath.Join(t.TempDir(), "dist"))
	return deploy.Sync(t.Context(), b, o)
}

func mustSync(t *testing.T, b deploy.Bucket, s site, o deploy.Options) deploy.Result {
	t.Helper()
	r, err := sync1(t, b, s, o)
	if err != nil {
		t.Fatalf("sync: %v", err)
	}
	return r
}

// contents is what a directory bucket holds.
func contents(tb testing.TB, d *deploy.Directory) site {
	tb.Helper()
	objects, err := d.List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	out := site{}
	for _, o := range objects {
		_, body, err := d.Get(o.Key)
		if err != nil {
			tb.Fatal(err)
		}
		out[o.Key] = string(body)
	}
	return out
}

// Peers delete the old style sheet first and upload the new one last.
func TestSyncOrder(t *testing.T) {
	d, _ := openDirectory(t, nil)
	mustSync(t, d, site{
		"index.html": "1", "old.html": "1", "old.txt": "1", "b.txt": "1", "_astro/s.AAAAAAAA.css": "1",
	}, deploy.Options{})
	r := &recorder{Bucket: d}
	next := site{"index.html": "2", "new.html": "2", "b.txt": "2", "_astro/s.BBBBBBBB.css": "2"}
	result := mustSync(t, r, next, deploy.Options{
		Grace: -1, Workers: 1,
		BeforePages: func(context.Context) error { return r.note("before pages") },
	})
	want := []string{
		"list", "put _astro/s.BBBBBBBB.css", "put b.txt", "before pages", "put index.html", "put new.html",
		"delete old.html", "delete _astro/s.AAAAAAAA.css old.txt",
	}
	if diff := cmp.Diff(want, r.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if result.Uploaded != 4 || result.Deleted != 3 || result.Unchanged != 0 || result.Bytes != 4 {
		t.Errorf("result is %+v", result)
	}
	if diff := cmp.Diff(next, contents(t, d)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
}

// A rebuild gives new times to the same bytes.
func TestSyncOfARebuildUploadsNothing(t *testing.T) {
	d, _ := openDirectory(t, nil)
	mustSync(t, d, small(), deploy.Options{})
	r := &recorder{Bucket: d}
	announced := 0
	result := mustSync(t, r, small(), deploy.Options{BeforePages: func(context.Context) error {
		announced++
		return nil
	}})
	if diff := cmp.Diff([]string{"list"}, r.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if result.Unchanged != len(small()) || announced != 1 {
		t.Errorf("%d unchanged, announced %d times", result.Unchanged, announced)
	}
}

func TestSyncUploadsOtherContentOfTheSameSize(t *testing.T) {
	d, dir := openDirectory(t, nil)
	mustSync(t, d, small(), deploy.Options{})
	info, err := os.Stat(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	next := small().with("index.html", strings.Replace(small()["index.html"], "a.A", "a.B", 1))
	build := next.write(t, filepath.Join(t.TempDir(), "dist"))
	if err := os.Chtimes(filepath.Join(build, "index.html"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := deploy.Sync(t.Context(), d, deploy.Options{Dir: build}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(next, contents(t, d)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
}

// A peer deletes index.html when the build holds a broken link, and says all is
// well; others upload what a link points to.
func TestSyncOfARefusedBuildTouchesNothing(t *testing.T) {
	d, _ := openDirectory(t, nil)
	mustSync(t, d, small(), deploy.Options{})
	build := small().with("index.html", "new").write(t, filepath.Join(t.TempDir(), "dist"))
	if err := os.Symlink("nowhere", filepath.Join(build, "broken")); err != nil {
		t.Fatal(err)
	}
	r := &recorder{Bucket: d}
	_, err := deploy.Sync(t.Context(), r, deploy.Options{Dir: build})
	var e *deploy.Error
	if !errors.As(err, &e) || e.Code != deploy.CodeRefused {
		t.Errorf("got %v, want a refusal", err)
	}
	if len(r.calls) != 0 {
		t.Errorf("the bucket was called: %v", r.calls)
	}
	if diff := cmp.Diff(small(), contents(t, d)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
}

func TestSyncRepairsHeaders(t *testing.T) {
	d, _ := openDirectory(t, nil)
	o := deploytest.Object("index.html", "home")
	o.ContentType = "application/octet-stream"
	if _, err := d.Put(t.Context(), o, strings.NewReader("home"), deploy.Condition{}); err != nil {
		t.Fatal(err)
	}
	mustSync(t, d, site{"index.html": "home"}, deploy.Options{})
	got, _, err := d.Get("index.html")
	if err != nil || got.ContentType != "text/html; charset=utf-8" {
		t.Errorf("served as %q, %v", got.ContentType, err)
	}
}

// An open page keeps its assets for the grace, counted from the deploy that no
// longer had them, however old they are.
func TestSyncKeepsAssetsOfEarlierBuilds(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	d, _ := openDirectory(t, clock)
	const a, b = "_astro/s.AAAAAAAA.css", "_astro/s.BBBBBBBB.css"
	retired := map[string]time.Time{}
	deployAt := func(after time.Duration, asset string) {
		t.Helper()
		now = now.Add(after)
		retired = mustSync(t, d, site{"index.html": asset, asset: asset}, deploy.Options{Now: clock, Retired: retired}).Retired
	}
	deployAt(0, a)
	deployAt(1000*time.Hour, b)
	if _, there := contents(t, d)[a]; !there {
		t.Error("the old asset is gone with the deploy that replaced it")
	}
	deployAt(23*time.Hour, b)
	if _, there := contents(t, d)[a]; !there {
		t.Error("the old asset is gone before the grace is over")
	}
	deployAt(time.Hour, b)
	if _, there := contents(t, d)[a]; there || len(retired) != 0 {
		t.Errorf("the old asset is still there after the grace (retired %v)", retired)
	}
}

// Each file is read once: what is uploaded is what was looked at, even if it is gone
// from the disk by then. Only what does not fit into memory is read again.
func TestSyncReadsEachFileOnce(t *testing.T) {
	large := strings.Repeat("large ", 1<<20)
	for name, tt := range map[string]struct {
		pages int
		page  string
		want  bool
	}{
		"small": {3, "new", true},
		"large": {1, large, false},
		"many":  {40, large[:1<<20-1], false},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := openDirectory(t, nil)
			build, edit := site{"index.html": "home"}, site{"index.html": "home"}
			for i := range tt.pages {
				key := fmt.Sprintf("%d.html", i)
				build[key], edit[key] = "old", tt.page
			}
			o := next(mustSync(t, d, build, deploy.Options{}))
			o.Dir = edit.write(t, filepath.Join(t.TempDir(), "dist"))
			o.BeforePages = func(context.Context) error { return os.RemoveAll(o.Dir) }
			_, err := deploy.Sync(t.Context(), d, o)
			if (err == nil) != tt.want {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(edit, contents(t, d)); tt.want && diff != "" {
				t.Errorf("bucket (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSyncBeginsBeforeItLooks: what Begin does is done when the bucket is first
// called, and its error leaves the bucket alone.
func TestSyncBeginsBeforeItLooks(t *testing.T) {
	d, _ := openDirectory(t, nil)
	r := &recorder{Bucket: d}
	synctest.Test(t, func(t *testing.T) {
		begin := func(context.Context) error {
			<-time.After(time.Second) // until nothing else goes on
			return r.note("begin")
		}
		mustSync(t, r, site{"index.html": "hi", "a.css": "x"}, deploy.Options{Begin: begin})
	})
	if len(r.calls) < 3 || r.calls[0] != "begin" {
		t.Errorf("calls %q", r.calls)
	}
	r.calls = nil
	broken := errors.New("broken")
	_, err := sync1(t, r, site{"index.html": "hi"}, deploy.Options{Begin: func(context.Context) error { return broken }})
	if !errors.Is(err, broken) || len(r.calls) > 0 {
		t.Errorf("%v, calls %q", err, r.calls)
	}
}

func TestSyncBeforePagesCanStopIt(t *testing.T) {
	d, _ := openDirectory(t, nil)
	mustSync(t, d, site{"index.html": "1", "old.html": "1"}, deploy.Options{})
	errStop := errors.New("interrupted")
	_, err := sync1(t, d, site{"index.html": "2", "_astro/s.BBBBBBBB.css": "2"}, deploy.Options{
		BeforePages: func(context.Context) error { return errStop },
	})
	if !errors.Is(err, errStop) {
		t.Errorf("got %v, want the error of BeforePages", err)
	}
	want := site{"index.html": "1", "old.html": "1", "_astro/s.BBBBBBBB.css": "2"}
	if diff := cmp.Diff(want, contents(t, d)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
}

// Somebody else deploys between our look and our uploads.
func TestSyncLooksAgainAfterAForeignWrite(t *testing.T) {
	d, _ := openDirectory(t, nil)
	mustSync(t, d, site{"index.html": "1"}, deploy.Options{})
	announced := 0
	foreign := false
	r := &recorder{Bucket: d}
	r.before = func(call string) error {
		if call == "put index.html" && !foreign {
			foreign = true
			put(t, d, "index.html", "theirs")
			put(t, d, "theirs.html", "theirs")
		}
		return nil
	}
	next := site{"index.html": "2"}
	mustSync(t, r, next, deploy.Options{BeforePages: func(context.Context) error {
		announced++
		return nil
	}})
	if diff := cmp.Diff(next, contents(t, d)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
	if announced != 1 {
		t.Errorf("BeforePages was called %d times", announced)
	}
}

func TestSyncGivesUpOnABucketThatKeepsChanging(t *testing.T) {
	d, _ := openDirectory(t, nil)
	r := &recorder{Bucket: d}
	r.before = func(call string) error {
		if call == "put index.html" {
			return deploy.ErrPrecondition
		}
		return nil
	}
	_, err := sync1(t, r, site{"index.html": "1"}, deploy.Options{})
	var e *deploy.Error
	if !errors.As(err, &e) || e.Code != deploy.CodeFailed || !errors.Is(err, deploy.ErrPrecondition) {
		t.Errorf("got %v, want deploy_failed with ErrPrecondition", err)
	}
	if n := len(slices.DeleteFunc(r.calls, func(c string) bool { return c != "list" })); n != 3 {
		t.Errorf("looked %d times, want 3", n)
	}
}

func TestSyncReportsWhatFailed(t *testing.T) {
	errDown := errors.New("bucket is down")
	for _, call := range []string{"list", "put _astro/s.BBBBBBBB.css", "put index.html", "delete old.txt"} {
		d, _ := openDirectory(t, nil)
		mustSync(t, d, site{"index.html": "1", "old.txt": "1"}, deploy.Options{})
		r := &recorder{Bucket: d, before: func(c string) error {
			if c == call {
				return errDown
			}
			return nil
		}}
		_, err := sync1(t, r, site{"index.html": "2", "_astro/s.BBBBBBBB.css": "2"}, deploy.Options{})
		var e *deploy.Error
		if !errors.As(err, &e) || e.Code != deploy.CodeFailed || !errors.Is(err, errDown) {
			t.Errorf("%s: got %v, want deploy_failed", call, err)
		}
	}
}

// When the context ends nothing more is called, and its cause comes back.
func TestSyncEndsWithItsContext(t *testing.T) {
	errCause := errors.New("lease lost")
	for _, last := range []string{"list", "put _astro/s.BBBBBBBB.css", "before pages", "put index.html", "delete old.html"} {
		d, _ := openDirectory(t, nil)
		mustSync(t, d, site{"index.html": "1", "old.html": "1", "old.txt": "1"}, deploy.Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		r := &recorder{Bucket: d, before: func(c string) error {
			if c == last {
				cancel(errCause)
			}
			return nil
		}}
		dir := site{"index.html": "2", "_astro/s.BBBBBBBB.css": "2"}.write(t, filepath.Join(t.TempDir(), "dist"))
		_, err := deploy.Sync(ctx, r, deploy.Options{
			Dir:         dir,
			BeforePages: func(context.Context) error { return r.note("before pages") },
		})
		var e *deploy.Error
		if !errors.Is(err, errCause) || errors.As(err, &e) {
			t.Errorf("%s: got %v, want the cause and no *Error", last, err)
		}
		if got := r.calls[len(r.calls)-1]; got != last {
			t.Errorf("after %q came %q", last, got)
		}
		cancel(nil)
	}
}

func TestSyncUploadsSeveralAtOnceButNotMore(t *testing.T) {
	d, _ := openDirectory(t, nil)
	var mu sync.Mutex
	var open sync.Once
	running, most := 0, 0
	four := make(chan struct{})
	b := &gauge{Bucket: d, enter: func() {
		mu.Lock()
		running++
		most = max(most, running)
		if running == 4 {
			open.Do(func() { close(four) })
		}
		mu.Unlock()
		select {
		case <-four:
		case <-t.Context().Done():
		case <-time.After(10 * time.Second): // fewer than four: the test fails
		}
	}, leave: func() {
		mu.Lock()
		running--
		mu.Unlock()
	}}
	s := site{"index.html": "x"}
	for c := 'a'; c <= 'j'; c++ {
		s[string(c)+".txt"] = string(c)
	}
	mustSync(t, b, s, deploy.Options{Workers: 4})
	if most != 4 {
		t.Errorf("%d uploads at once, want 4", most)
	}
}

type gauge struct {
	deploy.Bucket
	enter, leave func()
}

func (g *gauge) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	g.enter()
	defer g.leave()
	return g.Bucket.Put(ctx, o, body, c)
}

// A deploy that was cut off may have brought pages back that name an asset that
// was retired, and has not ended the service of those before it.
func TestSyncThatFailsRetiresNothing(t *testing.T) {
	d, _ := openDirectory(t, nil)
	const back, live, gone = "_astro/s.AAAAAAAA.css", "_astro/s.BBBBBBBB.css", "_astro/s.CCCCCCCC.css"
	mustSync(t, d, site{"index.html": "1", back: "1", live: "1", gone: "1"}, deploy.Options{})
	long := time.Now().Add(-23 * time.Hour)
	result, err := sync1(t, d, site{"index.html": "2", back: "1"}, deploy.Options{
		Retired:     map[string]time.Time{back: long, gone: long},
		BeforePages: func(context.Context) error { return errKilled },
	})
	if !errors.Is(err, errKilled) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(map[string]time.Time{gone: long}, result.Retired); diff != "" {
		t.Errorf("retired (-want +got):\n%s", diff)
	}
}
