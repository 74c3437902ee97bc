package deploy_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

func md5Hex(content string) string {
	sum := md5.Sum([]byte(content))
	return hex.EncodeToString(sum[:])
}

// blind is a bucket that lists no hashes and no headers, as S3 does. Its ETags
// are MD5s, or, as those of encrypted objects, look like some.
type blind struct {
	*deploy.Directory
	encrypted bool

	mu   sync.Mutex
	real map[string]string // ETags of the directory by ours
	puts int
}

func (b *blind) etag(o deploy.Object) (string, error) {
	_, body, err := b.Get(o.Key)
	if err != nil {
		return "", err
	}
	sum := md5Hex(string(body))
	if b.encrypted {
		sum = md5Hex(fmt.Sprint(o.Key, "salt", string(body)))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.real == nil {
		b.real = map[string]string{}
	}
	b.real[`"`+sum+`"`] = o.ETag
	return `"` + sum + `"`, nil
}

func (b *blind) List(ctx context.Context) ([]deploy.Object, error) {
	objects, err := b.Directory.List(ctx)
	for i, o := range objects {
		if err == nil {
			objects[i].ETag, err = b.etag(o)
		}
		objects[i].SHA256, objects[i].ContentType, objects[i].CacheControl = "", "", ""
	}
	return objects, err
}

func (b *blind) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	b.mu.Lock()
	if c.ETag != "" {
		c.ETag = b.real[c.ETag]
	}
	b.puts++
	b.mu.Unlock()
	etag, err := b.Directory.Put(ctx, o, body, c)
	if err != nil {
		return "", err
	}
	o.ETag = etag
	return b.etag(o)
}

// next is what the next Sync is told after one without error.
func next(r deploy.Result) deploy.Options {
	return deploy.Options{State: r.State, Undisturbed: true, Rules: deploy.HeaderRules, Retired: r.Retired}
}

// An edit costs the uploads and nothing else; a rebuild costs nothing.
func TestSyncListsNothingWhileUndisturbed(t *testing.T) {
	d, _ := openDirectory(t, nil)
	b := &blind{Directory: d, encrypted: true}
	r := &recorder{Bucket: b}
	result := mustSync(t, r, small(), deploy.Options{Retired: map[string]time.Time{}})
	if r.calls[0] != "list" {
		t.Fatalf("calls %v", r.calls)
	}
	for _, step := range []struct {
		build site
		want  []string
	}{
		{small(), nil},
		{small().with("index.html", "new"), []string{"put index.html"}},
		{site{"index.html": "new"}, []string{
			"delete about us/index.html", "delete .well-known/security.txt favicon.svg manifest.webmanifest",
		}},
		{small(), []string{"put favicon.svg", "put manifest.webmanifest", "put .well-known/security.txt", "put about us/index.html", "put index.html"}},
	} {
		r.calls = nil
		o := next(result)
		o.Workers = 1
		result = mustSync(t, r, step.build, o)
		slices.Sort(r.calls)
		slices.Sort(step.want)
		if diff := cmp.Diff(step.want, r.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if raw, err := result.State.Encode(); err != nil {
			t.Error(err)
		} else if result.State, err = deploy.DecodeState(raw); err != nil {
			t.Error(err)
		}
	}
}

// What is remembered of a bucket that somebody else changed is wrong; nothing of
// it is believed once an upload finds out.
func TestSyncRepairsWhatItRemembersWrongly(t *testing.T) {
	for name, by := range map[string]struct{ put, deleted []string }{
		"replaced": {put: []string{"index.html"}},
		"deleted":  {deleted: []string{"index.html", "favicon.svg"}},
		"added":    {put: []string{"new.html", "stray.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := openDirectory(t, nil)
			b := &blind{Directory: d}
			result := mustSync(t, b, small(), deploy.Options{})
			for _, key := range by.put {
				put(t, d, key, "theirs")
			}
			if err := d.Delete(t.Context(), by.deleted...); err != nil {
				t.Fatal(err)
			}
			build := small().with("index.html", "ours").with("new.html", "ours")
			b.puts = 0
			mustSync(t, b, build, next(result))
			if b.puts > 5 { // two files that changed, one that was deleted, and two tries in vain
				t.Errorf("%d uploads: it forgot what is still true", b.puts)
			}
			if diff := cmp.Diff(build, contents(t, d)); diff != "" {
				t.Errorf("bucket (-want +got):\n%s", diff)
			}
		})
	}
}

// Edits by hand that no upload meets are found within the hour.
func TestSyncListsOnceAnHour(t *testing.T) {
	now := time.Now()
	d, _ := openDirectory(t, nil)
	r := &recorder{Bucket: d}
	result := mustSync(t, r, small(), deploy.Options{Now: func() time.Time { return now }})
	r.calls = nil
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{59 * time.Minute, 0}, {2 * time.Minute, 1}, {59 * time.Minute, 1}} {
		now = now.Add(step.after)
		o := next(result)
		o.Now = func() time.Time { return now }
		result = mustSync(t, r, small(), o)
		if len(r.calls) != step.want {
			t.Errorf("calls %v, want %d", r.calls, step.want)
		}
	}
}

// A listing is compared by MD5 where it can be, and by what is remembered of the
// ETags where it cannot; what neither knows is uploaded.
func TestSyncRecognisesListedContent(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		encrypted, remembered bool
		rules                 int
		want                  int
	}{
		{"plain", false, false, deploy.HeaderRules, 0},
		{"plain, put by other rules", false, false, deploy.HeaderRules - 1, len(small())},
		{"encrypted", true, false, deploy.HeaderRules, len(small())},
		{"encrypted, remembered", true, true, deploy.HeaderRules, 0},
		{"encrypted, remembered, put by other rules", true, true, 0, len(small())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := openDirectory(t, nil)
			b := &blind{Directory: d, encrypted: tt.encrypted}
			o := next(mustSync(t, b, small(), deploy.Options{}))
			o.Undisturbed, o.Rules, b.puts = false, tt.rules, 0
			if !tt.remembered {
				o.State = nil
			}
			mustSync(t, b, small(), o)
			if b.puts != tt.want {
				t.Errorf("%d uploads, want %d", b.puts, tt.want)
			}
		})
	}
}

// An MD5 that is right says nothing about the headers.
func TestSyncRepairsHeadersItDoesNotSee(t *testing.T) {
	d, _ := openDirectory(t, nil)
	put(t, d, "site.mjs", "x") // as text/plain
	mustSync(t, &blind{Directory: d}, site{"index.html": "1", "site.mjs": "x"}, deploy.Options{})
	if got, _, err := d.Get("site.mjs"); err != nil || got.ContentType != "text/javascript" {
		t.Errorf("served as %q, %v", got.ContentType, err)
	}
}

// Headers that were right under older rules are repaired, and only they, without a
// look at the bucket.
func TestSyncRepairsHeadersItRemembers(t *testing.T) {
	d, _ := openDirectory(t, nil)
	o := next(mustSync(t, d, small(), deploy.Options{}))
	for i := range o.State.Objects {
		if s := &o.State.Objects[i]; s.Key == "favicon.svg" {
			s.CacheControl = "no-store"
		}
	}
	o.Rules = 0
	r := &recorder{Bucket: d}
	mustSync(t, r, small(), o)
	if diff := cmp.Diff([]string{"put favicon.svg"}, r.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// After a deploy that was cut off the bucket is listed, and what the deploy put
// is recognised.
func TestSyncHandsOnWhatItKnowsAfterAnError(t *testing.T) {
	d, _ := openDirectory(t, nil)
	b := &blind{Directory: d, encrypted: true}
	first := mustSync(t, b, small(), deploy.Options{})
	errStop := errors.New("stop")
	o := next(first)
	o.BeforePages = func(context.Context) error { return errStop }
	build := small().with("index.html", "2").with("robots.txt", "new").with("favicon.svg", "new")
	cut, err := sync1(t, b, build, o)
	if !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	b.puts = 0
	o = next(cut)
	o.Undisturbed = false
	mustSync(t, b, build, o)
	if b.puts != 1 { // index.html
		t.Errorf("%d uploads, want 1", b.puts)
	}
	refused, err := deploy.Sync(t.Context(), b, deploy.Options{Dir: filepath.Join(t.TempDir(), "none"), State: cut.State})
	if err == nil || refused.State != cut.State {
		t.Errorf("a refused build forgets the state (%v)", err)
	}
}

func TestDecodeState(t *testing.T) {
	want := &deploy.State{Listed: time.Unix(1_800_000_000, 5000).UTC(), Objects: []deploy.Object{
		deploytest.Object("a", "1"),
		{Key: "foreign\n\t\"\\ö\xff\x00 key", Size: 7, ETag: `"e-2"`, Modified: time.Unix(1_700_000_000, 0)},
		{Key: `\`, ContentType: "\ttext"},
		{},
	}}
	raw, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := deploy.DecodeState(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	for name, raw := range map[string]string{
		"empty": "", "cut off": string(raw[:len(raw)/2]), "another version": "state-1 0 0\n", "the one before": `{"version":1,"objects":[]}`,
		"a line less": string(raw[:bytes.LastIndexByte(raw[:len(raw)-1], '\n')+1]), "a line more": string(raw) + "x", "no size": "state-2 0 1\nx\t1\n", "no time": "state-2 0 1\n1\ty\n", "not quoted": "state-2 0 1\n1\t1\t\"\n",
		"more lines than there is memory for": "state-2 0 9000000000000000000\n", "fewer than none": "state-2 0 -1\n",
		"large": strings.Repeat(" ", 16<<20) + string(raw),
	} {
		if _, err := deploy.DecodeState([]byte(raw)); !errors.Is(err, deploy.ErrState) {
			t.Errorf("%s: %v, want ErrState", name, err)
		}
	}
	want.Objects[0].Key = strings.Repeat("k", 16<<20)
	if _, err := want.Encode(); err == nil {
		t.Error("a state of more than 16 MB is encoded")
	}
}
