package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// built are the builds of one site: as it is, with one page edited, and with one
// more class in a style sheet that some thirty pages name.
type built struct {
	name            string
	base, page, css string // directories
	files           int
	bytes           int64
}

// rebuilt gives all files of a build the time of now, as a build does.
func rebuilt(dir string) error {
	now := time.Now()
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chtimes(name, now, now)
	})
}

func (b *built) count(tb testing.TB) {
	tb.Helper()
	err := filepath.WalkDir(b.base, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			b.files, b.bytes = b.files+1, b.bytes+info.Size()
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func writeFiles(tb testing.TB, dir string, files map[string][]byte) {
	tb.Helper()
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// smallFiles is a site of n small files or a few more: sections of thirty pages,
// with a style sheet each.
func smallFiles(tb testing.TB, n int) *built {
	tb.Helper()
	dir := tb.TempDir()
	b := &built{name: fmt.Sprintf("%d small files", n)}
	make1 := func(version, text, rule string) string {
		files := map[string][]byte{"index.html": []byte("<!doctype html><title>Home</title><h1>Home</h1>"), "robots.txt": []byte("User-agent: *\n")}
		for s := 0; len(files) < n; s++ {
			style := fmt.Sprintf(".section-%d{color:#123456}", s)
			if s == 1 {
				style += rule
			}
			sum := sha256.Sum256([]byte(style))
			css := fmt.Sprintf("_astro/s%d.%s.css", s, hex.EncodeToString(sum[:])[:8])
			files[css] = []byte(style)
			for p := range 30 {
				body := fmt.Sprintf("page %d of section %d", p, s)
				if s == 0 && p == 7 {
					body += text
				}
				files[fmt.Sprintf("s%d/p%d.html", s, p)] = fmt.Appendf(nil, "<!doctype html><link rel=stylesheet href=/%s><h1>%s</h1><p>%s</p>",
					css, body, strings.Repeat(body+". ", 60))
			}
		}
		out := filepath.Join(dir, version)
		writeFiles(tb, out, files)
		return out
	}
	b.base, b.page, b.css = make1("base", "", ""), make1("page", " (edited)", ""), make1("css", " (edited)", ".new{margin:0}")
	b.count(tb)
	return b
}

const (
	astroPages  = 28 // beside the three of the example
	astroImages = 190
)

// astroSource is the example site with more pages and many photos. Page 7 has the
// text of src/text.json.
func astroSource(tb testing.TB) map[string][]byte {
	tb.Helper()
	const example = "../../examples/site"
	source := map[string][]byte{}
	err := filepath.WalkDir(example, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "node_modules" || n == "dist" || n == ".astro" {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(example, name)
		if err == nil {
			source[rel], err = os.ReadFile(name)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	source["src/pages/[entry].astro"] = []byte(entryPage)
	source["src/text.json"] = []byte(`{"7": "Rye, three days old."}`)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range astroImages {
		source[fmt.Sprintf("src/photos/photo%03d.png", i)] = photo(tb, rnd)
	}
	return source
}

// astroSite is that site, built by Astro. The builds are kept below out/, as they
// take a minute.
func astroSite(tb testing.TB) *built {
	tb.Helper()
	source := astroSource(tb)
	cache, err := filepath.Abs(filepath.Join("../../out/bench", "astro-"+digest(source)))
	if err != nil {
		tb.Fatal(err)
	}
	b := &built{name: "Astro site", base: filepath.Join(cache, "base"), page: filepath.Join(cache, "page"), css: filepath.Join(cache, "css")}
	if _, err := os.Stat(b.css); errors.Is(err, fs.ErrNotExist) { // the last one
		buildAstro(tb, source, b)
	}
	b.count(tb)
	return b
}

const entryPage = `---
import Layout from '../layouts/Layout.astro';
import text from '../text.json';
const photos = Object.values(import.meta.glob('../photos/*.png', { eager: true })).map((m) => m.default);
export function getStaticPaths() {
  return Array.from({ length: 28 }, (_, i) => ({ params: { entry: 'entry-' + i } }));
}
const n = Number(Astro.params.entry.split('-')[1]);
---
<Layout title={'Entry ' + n} description="What was baked.">
  <h1>Entry {n}</h1>
  <p>{text[n] ?? 'Bread.'}</p>
  {photos.filter((_, i) => i % 28 === n).map((p) => <img src={p.src} width={p.width} height={p.height} alt="" />)}
</Layout>
`

// photo is an image that does not compress, of some 85 KB.
func photo(tb testing.TB, rnd *rand.Rand) []byte {
	tb.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, 168, 168))
	for i := range img.Pix {
		img.Pix[i] = byte(rnd.Uint32())
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func digest(files map[string][]byte) string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	h := sha256.New()
	for _, name := range slices.Sorted(slices.Values(names)) {
		h.Write(fmt.Appendf(nil, "%s %x\n", name, sha256.Sum256(files[name])))
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// buildAstro makes the three builds.
func buildAstro(tb testing.TB, source map[string][]byte, b *built) {
	tb.Helper()
	dir := tb.TempDir()
	writeFiles(tb, dir, source)
	npm := func(args ...string) {
		tb.Helper()
		c := exec.CommandContext(tb.Context(), "npm", args...)
		c.Dir, c.Env = dir, append(os.Environ(), "ASTRO_TELEMETRY_DISABLED=1", "TZ=UTC")
		if out, err := c.CombinedOutput(); err != nil {
			tb.Fatalf("npm %v, for the site that is deployed: %v\n%s", args, err, out)
		}
	}
	npm("ci", "--include=dev", "--no-audit", "--no-fund")
	for _, step := range []struct{ file, text, out string }{
		{"src/text.json", `{"7": "Rye, three days old."}`, b.base},
		{"src/text.json", `{"7": "Rye, four days old."}`, b.page},
		{"src/styles/global.css", string(source["src/styles/global.css"]) + ".new { margin: 0; }\n", b.css},
	} {
		writeFiles(tb, dir, map[string][]byte{step.file: []byte(step.text)})
		npm("run", "build")
		if err := os.CopyFS(step.out+".new", os.DirFS(filepath.Join(dir, "dist"))); err != nil {
			tb.Fatal(err)
		}
		if err := os.Rename(step.out+".new", step.out); err != nil {
			tb.Fatal(err)
		}
	}
}
