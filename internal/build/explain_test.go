package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// captured is what npm, Astro 5.12.9 or Vite really wrote, and what is to be
// left of it; the checkout was at /site.
func captured(t *testing.T, name string) (out *output, want string) {
	t.Helper()
	out = new(output)
	read := func(file string) string {
		text, err := os.ReadFile(filepath.Join("testdata", "explain", name, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	fmt.Fprint(&out.stdout, read("stdout")) //nolint:errcheck // it never fails
	fmt.Fprint(&out.stderr, read("stderr")) //nolint:errcheck // it never fails
	return out, strings.TrimSuffix(read("want"), "\n")
}

func TestExplain(t *testing.T) {
	dirs, err := filepath.Glob("testdata/explain/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no captured outputs: %v", err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			out, want := captured(t, name)
			say := explain
			if strings.HasPrefix(name, "npm-") {
				say = explainNpm
			}
			got := say(out, Request{Site: "/site", Job: "/job", Cache: "/cache"})
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestExplainOddOutput(t *testing.T) {
	for _, tt := range []struct{ name, stdout, stderr, want string }{
		{"nothing", "", "", "The build failed without saying why."},
		{"only stdout", "src/a.astro:1:1 is wrong\n", "", "src/a.astro:1:1 is wrong"},
		{"marked line of a code frame", "", "src/a.jsx: Unexpected token\n> 2 | let = 1\n    |     ^\n", "src/a.jsx: Unexpected token\n> 2 | let = 1\n    |     ^"},
		{"title of a window", "", "\x1b]0;astro\x07bad\x1b[1;31m flour\x1b[0m\x00\n", "bad flour"},
		{"not text", "", "bad \xff\xfe flour", "bad \uFFFD flour"},
		{"lines of Windows", "", "one\r\ntwo\r\n", "one\ntwo"},
		{"page that was done", "▶ src/pages/a.astro\n✓ Completed in 9ms.\n", "bad", "bad"},
		{"job and cache", "", "see /job/x, /cache/npm/y and /job", "see x, npm/y and job"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out output
			fmt.Fprint(&out.stdout, tt.stdout) //nolint:errcheck // it never fails
			fmt.Fprint(&out.stderr, tt.stderr) //nolint:errcheck // it never fails
			if d := cmp.Diff(tt.want, explain(&out, Request{Site: "/site", Job: "/job", Cache: "/cache"})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A checkout reached over a link is named by Node as it really lies.
func TestExplainResolvesTheCheckout(t *testing.T) {
	site := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(site, link); err != nil {
		t.Fatal(err)
	}
	target, err := filepath.EvalSymlinks(site)
	if err != nil {
		t.Fatal(err)
	}
	got := finish([]string{"in file://" + target + "/src/a.astro", "in " + link + "/src/b.astro"}, Request{Site: link, Job: "/job", Cache: "/cache"})
	if want := "in src/a.astro\nin src/b.astro"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestMessageIsBounded(t *testing.T) {
	r := Request{Site: "/site", Job: "/job", Cache: "/cache"}
	for name, lines := range map[string][]string{
		"one line":   {strings.Repeat("ü", 1<<20)},
		"many lines": strings.Split(strings.Repeat("flour\n", 1<<16), "\n"),
		"both":       strings.Split(strings.Repeat(strings.Repeat("日本", 300)+"\n", 1000), "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			got := finish(lines, r)
			if len(got) > maxMessage || strings.Count(got, "\n") > maxLines || !utf8.ValidString(got) {
				t.Errorf("%d bytes, %d lines, valid: %t", len(got), strings.Count(got, "\n")+1, utf8.ValidString(got))
			}
			if !strings.Contains(got, "…") {
				t.Error("nothing says that something was cut")
			}
		})
	}
}

// Code that was made small is one line; the file's name comes after it.
func TestLongLinesAreCut(t *testing.T) {
	got := finish([]string{strings.Repeat("x", 5000), "src/a.astro"}, Request{Site: "/site", Job: "/job", Cache: "/cache"})
	if want := strings.Repeat("x", maxLine) + "…\nsrc/a.astro"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestLacksPackage(t *testing.T) {
	for name, want := range map[string]bool{"missing-package": true, "config": true, "syntax-error": false, "missing-file": false} {
		out, _ := captured(t, name)
		if got := lacksPackage(explain(out, Request{Site: "/site", Job: "/job", Cache: "/cache"})); got != want {
			t.Errorf("lacksPackage(%s) = %t", name, got)
		}
	}
}
