package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	demoHeader = "<style>\n  header {\n    --header-background: #7a3b1d;\n    --header-text: #fdf3e3;\n  }\n</style>\n"
	headerFile = "src/components/Header.astro"
	noteFile   = "public/note.txt"
)

// site makes a small site, goes into it and returns the directory around it.
func site(t *testing.T) string {
	t.Helper()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "site", headerFile), demoHeader)
	if err := os.Mkdir(filepath.Join(outside, "site", "public"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(outside, "site"))
	return outside
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// files returns all below a directory, by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestScriptedEdit(t *testing.T) {
	const note = "Wrote the instruction to note.txt: this agent knows colours and nothing else."
	for _, tt := range []struct{ name, instruction, summary, header, note string }{
		{"blue", "Make the header blue", "Made the header blue.", "#1d4ed8", ""},
		{"green", "green, please!", "Made the header green.", "#15803d", ""},
		{"red", "Make it RED", "Made the header red.", "#b91c1c", ""},
		{"purple", "purple", "Made the header purple.", "#6d28d9", ""},
		{"orange", "an Orange header\nplease", "Made the header orange.", "#c2410c", ""},
		{"black", "(black)", "Made the header black.", "#111827", ""},
		{"teal", "teal.", "Made the header teal.", "#0f766e", ""},
		{"the first of several", "Make it teal, not blue, red, green or black", "Made the header teal.", "#0f766e", ""},
		{"part of a word", "Write about bluebells and reddish rooftops", note, "#7a3b1d", "Write about bluebells and reddish rooftops\n"},
		{"unknown", "  Add opening hours\nand more\n", note, "#7a3b1d", "Add opening hours\n"},
		{"nothing", "", note, "#7a3b1d", "\n"},
		{"shell", "$(touch pwned); `touch pwned`; ../../etc/passwd\x00 ${1}", note, "#7a3b1d", "$(touch pwned); `touch pwned`; ../../etc/passwd\x00 ${1}\n"},
		{"CSS", "blue; } </style><script>alert(1)</script> ${1}", "Made the header blue.", "#1d4ed8", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outside := site(t)
			summary, err := scriptedEdit(tt.instruction)
			if err != nil || summary != tt.summary {
				t.Errorf("summary %q, error %v; want %q", summary, err, tt.summary)
			}
			want := map[string]string{"site/" + headerFile: strings.ReplaceAll(demoHeader, "#7a3b1d", tt.header)}
			if tt.note != "" {
				want["site/"+noteFile] = tt.note
			}
			if diff := cmp.Diff(want, files(t, outside)); diff != "" {
				t.Errorf("the files differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScriptedEditTwice(t *testing.T) {
	outside := site(t)
	for range 2 {
		if summary, err := scriptedEdit("green"); err != nil || summary != "Made the header green." {
			t.Errorf("summary %q, error %v", summary, err)
		}
	}
	want := map[string]string{"site/" + headerFile: strings.ReplaceAll(demoHeader, "#7a3b1d", "#15803d")}
	if diff := cmp.Diff(want, files(t, outside)); diff != "" {
		t.Error(diff)
	}
}

func TestScriptedEditOfAHeaderWithoutColour(t *testing.T) {
	outside := site(t)
	write(t, headerFile, "<header />\n")
	if _, err := scriptedEdit("green"); err == nil || !strings.Contains(err.Error(), "the header's colour was not found") {
		t.Errorf("the error is %v", err)
	}
	if diff := cmp.Diff(map[string]string{"site/" + headerFile: "<header />\n"}, files(t, outside)); diff != "" {
		t.Error(diff)
	}
}

func TestScriptedEditInAWrongDirectory(t *testing.T) {
	for _, instruction := range []string{"blue", "Add opening hours"} {
		dir := t.TempDir()
		t.Chdir(dir)
		if summary, err := scriptedEdit(instruction); err == nil || !strings.Contains(err.Error(), "this agent can only edit the example site") {
			t.Errorf("%q: summary %q, error %v", instruction, summary, err)
		}
		if got := files(t, dir); len(got) > 0 {
			t.Errorf("%q wrote %q", instruction, got)
		}
	}
}

func TestScriptedEditStaysInTheCheckout(t *testing.T) {
	for _, tt := range []struct{ name, instruction, link, target string }{
		{"header", "blue", headerFile, "header"},
		{"note", "Add opening hours", noteFile, "note"},
		{"folder of the header", "blue", "src/components", "folder"},
		{"folder of the note", "Add opening hours", "public", "folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outside := site(t)
			write(t, filepath.Join(outside, "header"), demoHeader)
			write(t, filepath.Join(outside, "note"), "theirs\n")
			write(t, filepath.Join(outside, "folder", "Header.astro"), demoHeader)
			if err := os.RemoveAll(tt.link); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, tt.target), tt.link); err != nil {
				t.Fatal(err)
			}
			before := files(t, outside)
			if summary, err := scriptedEdit(tt.instruction); err == nil {
				t.Errorf("it says %q, want an error", summary)
			}
			if diff := cmp.Diff(before, files(t, outside)); diff != "" {
				t.Errorf("something was written (-before +after):\n%s", diff)
			}
		})
	}
}
