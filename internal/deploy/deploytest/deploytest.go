// Package deploytest is the conformance suite of deploy.Bucket: every
// implementation passes it.
package deploytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/webordinary/claude-code-container/internal/deploy"
)

// Harness is an empty bucket, and a look at it that is not the bucket's own.
type Harness struct {
	Bucket deploy.Bucket
	// Get returns what a visitor gets for a key: content and headers. There is
	// false if there is no such object.
	Get func(t *testing.T, key string) (o deploy.Object, body []byte, there bool)
	// KnowsHash and KnowsHeaders say whether List tells SHA256, and the
	// headers.
	KnowsHash, KnowsHeaders bool
}

// Run runs the suite; open is called once for each of its tests.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	tests := map[string]func(*testing.T, Harness){
		"empty":                testEmpty,
		"put, list, get":       testPutListGet,
		"overwrite":            testOverwrite,
		"headers":              testHeaders,
		"if absent":            testIfAbsent,
		"if match":             testIfMatch,
		"one of many creates":  testOneCreates,
		"wrong content":        testWrongContent,
		"body from the middle": testBodyFromTheMiddle,
		"delete":               testDelete,
		"odd keys":             testOddKeys,
		"big object":           testBigObject,
		"many objects":         testManyObjects,
		"ended context":        testEndedContext,
		"modified":             testModified,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Object describes some content under a key, as a deploy would.
func Object(key, content string) deploy.Object {
	sum := sha256.Sum256([]byte(content))
	return deploy.Object{
		Key:          key,
		Size:         int64(len(content)),
		SHA256:       hex.EncodeToString(sum[:]),
		ContentType:  "text/plain; charset=utf-8",
		CacheControl: "public, max-age=0, must-revalidate",
	}
}

func (h Harness) put(t *testing.T, key, content string) string {
	t.Helper()
	etag, err := h.Bucket.Put(t.Context(), Object(key, content), strings.NewReader(content), deploy.Condition{})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return etag
}

func (h Harness) list(t *testing.T) []deploy.Object {
	t.Helper()
	objects, err := h.Bucket.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	slices.SortFunc(objects, func(a, b deploy.Object) int { return strings.Compare(a.Key, b.Key) })
	return objects
}

// holds checks a key's content as a visitor sees it.
func (h Harness) holds(t *testing.T, key, content string) {
	t.Helper()
	_, body, there := h.Get(t, key)
	if !there || string(body) != content {
		t.Errorf("%q holds %.40q (there: %t), want %.40q", key, body, there, content)
	}
}

func testEmpty(t *testing.T, h Harness) {
	if got := h.list(t); len(got) != 0 {
		t.Errorf("an empty bucket lists %v", got)
	}
	if err := h.Bucket.Delete(t.Context(), "no such key"); err != nil {
		t.Errorf("delete of what is not there: %v", err)
	}
	if err := h.Bucket.Delete(t.Context()); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
}

func testPutListGet(t *testing.T, h Harness) {
	contents := map[string]string{"index.html": "<h1>hello</h1>", "a/b/c.txt": "c", "empty.txt": ""}
	etags := map[string]string{}
	for key, content := range contents {
		etags[key] = h.put(t, key, content)
		h.holds(t, key, content)
	}
	var want []deploy.Object
	for _, key := range []string{"a/b/c.txt", "empty.txt", "index.html"} {
		o := Object(key, contents[key])
		o.ETag = etags[key]
		want = append(want, o)
	}
	ignore := cmpopts.IgnoreFields(deploy.Object{}, "SHA256", "ContentType", "CacheControl", "Modified")
	if diff := cmp.Diff(want, h.list(t), ignore); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for i, o := range h.list(t) {
		if h.KnowsHash && o.SHA256 != want[i].SHA256 || !h.KnowsHash && o.SHA256 != "" && o.SHA256 != want[i].SHA256 {
			t.Errorf("%q: hash %q, want %q", o.Key, o.SHA256, want[i].SHA256)
		}
	}
}

func testOverwrite(t *testing.T, h Harness) {
	first := h.put(t, "page.html", "same size 1")
	second := h.put(t, "page.html", "same size 2")
	if first == second {
		t.Errorf("two contents have the same ETag %q", first)
	}
	h.holds(t, "page.html", "same size 2")
	if got := h.list(t); len(got) != 1 || got[0].ETag != second {
		t.Errorf("list is %+v, want one object with ETag %q", got, second)
	}
}

func testHeaders(t *testing.T, h Harness) {
	o := Object("site.webmanifest", "{}")
	for _, o.ContentType = range []string{"application/json", "application/manifest+json"} {
		o.CacheControl = "public, max-age=31536000, immutable"
		if _, err := h.Bucket.Put(t.Context(), o, strings.NewReader("{}"), deploy.Condition{}); err != nil {
			t.Fatalf("put: %v", err)
		}
		got, _, _ := h.Get(t, o.Key)
		if got.ContentType != o.ContentType || got.CacheControl != o.CacheControl {
			t.Errorf("served with %q, %q, want %q, %q", got.ContentType, got.CacheControl, o.ContentType, o.CacheControl)
		}
		listed := h.list(t)[0]
		if h.KnowsHeaders && (listed.ContentType != o.ContentType || listed.CacheControl != o.CacheControl) {
			t.Errorf("listed with %q, %q, want %q, %q", listed.ContentType, listed.CacheControl, o.ContentType, o.CacheControl)
		}
	}
}

func testIfAbsent(t *testing.T, h Harness) {
	absent := deploy.Condition{Absent: true}
	if _, err := h.Bucket.Put(t.Context(), Object("a", "1"), strings.NewReader("1"), absent); err != nil {
		t.Fatalf("create: %v", err)
	}
	for _, content := range []string{"2", "1"} {
		_, err := h.Bucket.Put(t.Context(), Object("a", content), strings.NewReader(content), absent)
		if !errors.Is(err, deploy.ErrPrecondition) {
			t.Errorf("create of what is there: %v, want ErrPrecondition", err)
		}
	}
	h.holds(t, "a", "1")
}

func testIfMatch(t *testing.T, h Harness) {
	old := h.put(t, "a", "1")
	match := func(etag string) deploy.Condition { return deploy.Condition{ETag: etag} }
	if _, err := h.Bucket.Put(t.Context(), Object("a", "2"), strings.NewReader("2"), match(old)); err != nil {
		t.Fatalf("replace: %v", err)
	}
	_, err := h.Bucket.Put(t.Context(), Object("a", "3"), strings.NewReader("3"), match(old))
	if !errors.Is(err, deploy.ErrPrecondition) {
		t.Errorf("replace of what changed: %v, want ErrPrecondition", err)
	}
	h.holds(t, "a", "2")
	_, err = h.Bucket.Put(t.Context(), Object("b", "1"), strings.NewReader("1"), match(old))
	if !errors.Is(err, deploy.ErrPrecondition) {
		t.Errorf("replace of what is not there: %v, want ErrPrecondition", err)
	}
	if _, _, there := h.Get(t, "b"); there {
		t.Error("a refused put left an object")
	}
}

func testOneCreates(t *testing.T, h Harness) {
	var created atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			content := fmt.Sprintf("writer %02d", i)
			_, err := h.Bucket.Put(t.Context(), Object("a", content), strings.NewReader(content), deploy.Condition{Absent: true})
			switch {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, deploy.ErrPrecondition):
				t.Errorf("writer %d: %v, want ErrPrecondition", i, err)
			}
		})
	}
	all.Wait()
	if created.Load() != 1 {
		t.Errorf("%d writers created the object, want 1", created.Load())
	}
}

func testWrongContent(t *testing.T, h Harness) {
	h.put(t, "a", "good")
	for name, body := range map[string]string{"hash": "evil", "shorter": "go", "longer": "goodness"} {
		_, err := h.Bucket.Put(t.Context(), Object("a", "gold"), strings.NewReader(body), deploy.Condition{})
		if !errors.Is(err, deploy.ErrContent) {
			t.Errorf("%s: %v, want ErrContent", name, err)
		}
	}
	h.holds(t, "a", "good")
}

func testBodyFromTheMiddle(t *testing.T, h Harness) {
	body := strings.NewReader("skipped|rest")
	if _, err := body.Seek(8, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Bucket.Put(t.Context(), Object("a", "rest"), body, deploy.Condition{}); err != nil {
		t.Fatalf("put: %v", err)
	}
	h.holds(t, "a", "rest")
}

func testDelete(t *testing.T, h Harness) {
	for _, key := range []string{"a.txt", "dir/a.txt", "dir/b.txt", "dir/sub/c.txt"} {
		h.put(t, key, key)
	}
	if err := h.Bucket.Delete(t.Context(), "a.txt", "not there", "dir/sub/c.txt", "dir/b.txt"); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if got := h.list(t); len(got) != 1 || got[0].Key != "dir/a.txt" {
		t.Errorf("left is %+v, want dir/a.txt", got)
	}
	h.holds(t, "dir/a.txt", "dir/a.txt")
	if _, err := h.Bucket.Put(t.Context(), Object("a.txt", "again"), strings.NewReader("again"), deploy.Condition{Absent: true}); err != nil {
		t.Errorf("create again: %v", err)
	}
}

func testOddKeys(t *testing.T, h Harness) {
	keys := []string{
		"with space.txt", "plus+and&.txt", "per%20cent.txt", "què/ñandú/日本語.html", "emoji 🍞.svg", "quote'\".txt",
		"hash#and?query=1.txt", "semi;colon,comma.txt", "[brackets](round){curly}.txt", "tilde~/dash-.txt", "a..b/c...d",
		"_astro/About.DUQiwyPT.css", "back\\slash.txt", "UPPER.txt", "upper.txt", "x.meta/y.json", "<lt>&amp;.txt",
	}
	for _, key := range keys {
		h.put(t, key, "content of "+key)
	}
	var got []string
	for _, o := range h.list(t) {
		got = append(got, o.Key)
	}
	slices.Sort(keys)
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, key := range keys {
		h.holds(t, key, "content of "+key)
	}
	if err := h.Bucket.Delete(t.Context(), keys...); err != nil {
		t.Errorf("delete: %v", err)
	}
	if left := h.list(t); len(left) != 0 {
		t.Errorf("left after delete: %+v", left)
	}
}

// testBigObject is large enough for an upload in parts.
func testBigObject(t *testing.T, h Harness) {
	content := string(bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16))
	etag := h.put(t, "film.mp4", content)
	h.holds(t, "film.mp4", content)
	got := h.list(t)
	if len(got) != 1 || got[0].Size != int64(len(content)) || got[0].ETag != etag {
		t.Errorf("list is %+v, want ETag %q", got, etag)
	}
	if _, err := h.Bucket.Put(t.Context(), Object("film.mp4", "small"), strings.NewReader("small"), deploy.Condition{ETag: etag}); err != nil {
		t.Errorf("replace by its ETag: %v", err)
	}
}

// testManyObjects is more than a page of a listing, put from many goroutines.
func testManyObjects(t *testing.T, h Harness) {
	const n = 1200
	var all sync.WaitGroup
	for worker := range 32 {
		all.Go(func() {
			for i := worker; i < n; i += 32 {
				key := fmt.Sprintf("d%d/%04d.txt", i%7, i)
				if _, err := h.Bucket.Put(t.Context(), Object(key, key), strings.NewReader(key), deploy.Condition{Absent: true}); err != nil {
					t.Errorf("put %q: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	objects := h.list(t)
	if len(objects) != n {
		t.Fatalf("%d objects listed, want %d", len(objects), n)
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	if err := h.Bucket.Delete(t.Context(), keys...); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if left := h.list(t); len(left) != 0 {
		t.Errorf("%d objects left after delete", len(left))
	}
}

func testEndedContext(t *testing.T, h Harness) {
	h.put(t, "a", "1")
	errEnded := errors.New("ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnded)
	if _, err := h.Bucket.List(ctx); err == nil {
		t.Error("list succeeds under an ended context")
	}
	if _, err := h.Bucket.Put(ctx, Object("a", "2"), strings.NewReader("2"), deploy.Condition{}); err == nil {
		t.Error("put succeeds under an ended context")
	}
	if err := h.Bucket.Delete(ctx, "a"); err == nil {
		t.Error("delete succeeds under an ended context")
	}
	h.holds(t, "a", "1")
}

func testModified(t *testing.T, h Harness) {
	h.put(t, "a", "1")
	if age := time.Since(h.list(t)[0].Modified); age < -time.Minute || age > time.Minute {
		t.Errorf("an object just put is %s old", age)
	}
}
