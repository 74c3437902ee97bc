package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestContentType(t *testing.T) {
	for key, want := range map[string]string{
		"index.html":                 "text/html; charset=utf-8",
		"OLD.HTM":                    "text/html; charset=utf-8",
		"a.css":                      "text/css",
		"a.js":                       "text/javascript",
		"a.mjs":                      "text/javascript",
		"a.json":                     "application/json",
		"a.js.map":                   "application/json",
		"site.webmanifest":           "application/manifest+json",
		"a.svg":                      "image/svg+xml",
		"a.avif":                     "image/avif",
		"a.webp":                     "image/webp",
		"a.JPEG":                     "image/jpeg",
		"favicon.ico":                "image/x-icon",
		"a.woff2":                    "font/woff2",
		"a.wasm":                     "application/wasm",
		"sitemap-index.xml":          "application/xml",
		"feed.rss":                   "application/rss+xml",
		"feed.atom":                  "application/atom+xml",
		"robots.txt":                 "text/plain; charset=utf-8",
		"a.pdf":                      "application/pdf",
		"a.mp4":                      "video/mp4",
		"CNAME":                      "application/octet-stream",
		"a.unknown":                  "application/octet-stream",
		"v1.2/download":              "application/octet-stream",
		".well-known/x/html":         "application/octet-stream",
		".well-known/a.json":         "application/json",
		"trailing.":                  "application/octet-stream",
		"weird.html.download":        "application/octet-stream",
		"apple-app-site-association": "application/json",
	} {
		if got := contentType(key); got != want {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
}

func TestIsHashed(t *testing.T) {
	for key, want := range map[string]bool{
		"_astro/about.DUQiwyPT.css":           true,
		"_astro/photo.B-_45678_Z1abCd.webp":   true,
		"_astro/client.abcdefgh.js.map":       true,
		"_astro/fonts/73b6d5a0f3f8fbe5.woff2": true,
		"docs/_astro/index.AbCd1234.js":       true,
		"_astro/[slug].AbCd1234.css":          true,
		"_astro/about.css":                    false,
		"_astro/a.short.css":                  false,
		"_astro/noextension":                  false,
		"_astro/.AbCd1234":                    false,
		"_astro/page.AbCd1234.html":           false,
		"my_astro/about.DUQiwyPT.css":         false,
		"about.DUQiwyPT.css":                  false,
		"_astro":                              false,
		"_astro/a.has space.css":              false,
	} {
		if got := isHashed(key); got != want {
			t.Errorf("isHashed(%q) = %t", key, got)
		}
	}
}

func TestPlan(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	file := func(key, sum string) File {
		return File{Key: key, SHA256: sum, ContentType: contentType(key), CacheControl: cacheControl(key)}
	}
	object := func(key, sum string, age time.Duration) Object {
		return Object{
			Key: key, SHA256: sum, ETag: "e-" + sum, ContentType: contentType(key), CacheControl: cacheControl(key),
			Modified: now.Add(-age),
		}
	}
	sized := func(key, sum string) File {
		f := file(key, sum)
		f.Size, f.MD5 = 1, "md-"+sum
		return f
	}
	listed := func(key, etag string, size int64) Object {
		o := object(key, "", 0)
		o.ETag, o.Size = etag, size
		return o
	}
	const asset, old, older = "_astro/a.AAAAAAAA.css", "_astro/a.OOOOOOOO.css", "_astro/a.PPPPPPPP.css"
	headerless := object("index.html", "1", 0)
	headerless.ContentType, headerless.CacheControl = "", ""
	wrongHeader := object("index.html", "1", 0)
	wrongHeader.ContentType = "text/html"
	unknownHash := object("index.html", "", 0)

	tests := map[string]struct {
		files   []File
		objects []Object
		retired map[string]time.Time
		want    Changes
	}{
		"first": {
			files: []File{file("b.txt", "1"), file("index.html", "2"), file(asset, "3")},
			want: Changes{
				Assets: []Upload{{file(asset, "3"), Condition{Absent: true}}},
				Files:  []Upload{{file("b.txt", "1"), Condition{Absent: true}}},
				Pages:  []Upload{{file("index.html", "2"), Condition{Absent: true}}},
			},
		},
		"a rebuild of the same is no change, whenever it was put": {
			files:   []File{file("index.html", "1")},
			objects: []Object{object("index.html", "1", time.Hour)},
			want:    Changes{Unchanged: 1},
		},
		"same size, other content": {
			files:   []File{file("index.html", "2")},
			objects: []Object{object("index.html", "1", 0)},
			want:    Changes{Pages: []Upload{{file("index.html", "2"), Condition{ETag: "e-1"}}}},
		},
		"a wrong header is repaired": {
			files:   []File{file("index.html", "1")},
			objects: []Object{wrongHeader},
			want:    Changes{Pages: []Upload{{file("index.html", "1"), Condition{ETag: "e-1"}}}},
		},
		"unknown headers are repaired": {
			files: []File{file("index.html", "1")}, objects: []Object{headerless},
			want: Changes{Pages: []Upload{{file("index.html", "1"), Condition{ETag: "e-1"}}}},
		},
		"an ETag that is our MD5 is our content": {
			files: []File{sized("index.html", "1")}, objects: []Object{listed("index.html", `"md-1"`, 1)}, want: Changes{Unchanged: 1},
		},
		"other ETags prove nothing": {
			files: []File{sized("a.html", "1"), sized("b.html", "1"), sized("c.html", "1")},
			objects: []Object{
				listed("a.html", `"md-1-2"`, 1), listed("b.html", `"md-2"`, 1), listed("c.html", `"md-1"`, 2),
			},
			want: Changes{Pages: []Upload{
				{sized("a.html", "1"), Condition{ETag: `"md-1-2"`}},
				{sized("b.html", "1"), Condition{ETag: `"md-2"`}},
				{sized("c.html", "1"), Condition{ETag: `"md-1"`}},
			}},
		},
		"no MD5 is nobody's MD5": {
			files: []File{file("index.html", "1")}, objects: []Object{listed("index.html", "", 0)},
			want: Changes{Pages: []Upload{{file("index.html", "1"), Condition{}}}},
		},
		"an unknown hash is uploaded": {
			files: []File{file("index.html", "1")}, objects: []Object{unknownHash},
			want: Changes{Pages: []Upload{{file("index.html", "1"), Condition{ETag: "e-"}}}},
		},
		"stale pages, files and assets, nothing remembered": {
			objects: []Object{
				object("x.html", "1", 0), object("b.txt", "1", 0), object("a.txt", "1", 0),
				object(old, "1", 23*time.Hour), object(older, "1", 24*time.Hour),
			},
			want: Changes{
				DeletePages: []string{"x.html"}, Delete: []string{older, "a.txt", "b.txt"},
				Retired: map[string]time.Time{old: now.Add(-23 * time.Hour)},
			},
		},
		"an asset counts from when it left the build": {
			objects: []Object{object(old, "1", 1000*time.Hour), object(older, "1", 1000*time.Hour), object(asset, "1", 1000*time.Hour)},
			retired: map[string]time.Time{old: now.Add(-time.Hour), older: now.Add(-25 * time.Hour)},
			want: Changes{
				Delete:  []string{older},
				Retired: map[string]time.Time{old: now.Add(-time.Hour), asset: now},
			},
		},
		"an asset that comes back is not retired": {
			files: []File{file(old, "1")}, objects: []Object{object(old, "1", 0)},
			retired: map[string]time.Time{old: now.Add(-time.Hour)},
			want:    Changes{Unchanged: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Plan(tt.files, tt.objects, Keep{Grace: 24 * time.Hour, Now: now, Retired: tt.retired})
			if tt.want.Retired == nil {
				tt.want.Retired = map[string]time.Time{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

// Objects keep their headers until HeaderRules goes up: whoever changes a rule
// and not the version sees it here.
func TestHeaderRulesGoUpWithTheRules(t *testing.T) {
	keys := []string{"_astro/a.AAAAAAAA.css", "a", "apple-app-site-association"}
	for ext := range strings.FieldsSeq("html htm xhtml css js mjs cjs json map jsonld geojson webmanifest svg xml xsl rss atom txt md csv vtt ics vcf " +
		"mp4 m4v webm mov ogv mp3 m4a ogg oga opus wav flac avif webp png apng jpg jpeg gif ico bmp woff2 woff ttf otf eot wasm pdf zip gz glb") {
		keys = append(keys, "a."+ext)
	}
	table := ""
	for _, key := range keys {
		table += fmt.Sprintf("%s %s %s\n", key, contentType(key), cacheControl(key))
	}
	want := map[int]string{1: "1c3bab695c65e3cdd164a232de26e3aaeaf13625f00ef552dd8956f233a709aa"}
	sum := sha256.Sum256([]byte(table))
	if got := hex.EncodeToString(sum[:]); got != want[HeaderRules] {
		t.Errorf("the rules of version %d have hash %s, want %s", HeaderRules, got, want[HeaderRules])
	}
}
