package main

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of docs/configuration.md")

// TestConfigurationDocument compares the table of variables with the configuration.
func TestConfigurationDocument(t *testing.T) {
	const begin, end = "<!-- variables -->\n", "<!-- end of variables -->\n"
	path := filepath.Join("..", "..", "docs", "configuration.md")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(body), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no %q and %q", path, begin, end)
	}
	want := before + begin + "\n" + variableTable() + "\n" + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := gocmp.Diff(want, string(body)); d != "" {
		t.Errorf("%s is not what the program says (-want +got); -update writes it:\n%s", path, d)
	}
}

func variableTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for f := range reflect.TypeFor[config]().Fields() {
		if name := f.Tag.Get("env"); name != "" {
			b.WriteString("| `" + name + "` | " + quotedDefault(f.Tag.Get("envDefault")) + " | " + strings.ReplaceAll(f.Tag.Get("desc"), "|", `\|`) + " |\n")
		}
	}
	return b.String()
}

func quotedDefault(s string) string {
	if s = cmp.Or(s, "–"); s == "–" {
		return s
	}
	return "`" + s + "`"
}
