package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestConversationID(t *testing.T) {
	ids := map[string]string{}
	for _, name := range [][4]any{
		{"amelia", "scott", "t1", 0},
		{"amelia", "scott", "t1", 1},
		{"amelia", "scott", "t2", 0},
		{"amelia", "scottt", "1", 0},
		{"a", "b c", "t", 0},
		{"a b", "c", "t", 0},
		{"a", "b", `c" "t`, 0},
		{"a", `b" "c`, "t", 0},
	} {
		id := ConversationID(name[0].(string), name[1].(string), name[2].(string), name[3].(int))
		if u, err := uuid.Parse(id); err != nil || u.Version() != 5 {
			t.Errorf("%v: %s is no UUIDv5", name, id)
		}
		if other, taken := ids[id]; taken {
			t.Errorf("%v has the id of %s", name, other)
		}
		ids[id] = fmt.Sprint(name)
	}
	// It must never change: conversations at rest are found by it.
	if got := ConversationID("amelia", "scott", "t1", 0); got != "e981b35f-d2b3-5257-a05d-8353d3927694" {
		t.Errorf("got %s", got)
	}
}

// home is a place with one conversation that is lent out.
type home struct {
	job, conversations, id string
}

func newHome(t *testing.T) home {
	t.Helper()
	root := t.TempDir()
	h := home{job: filepath.Join(root, "job"), conversations: filepath.Join(root, "conversations"), id: ConversationID("p", "u", "t", 0)}
	h.put(t, filepath.Join(h.conversations, h.id, transcriptFile), "old")
	h.put(t, filepath.Join(h.conversations, runningFile), h.id)
	return h
}

func (h home) put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h home) lent(id string) string {
	return filepath.Join(h.job, lentDir, id+".jsonl")
}

// rest lists what lies in the conversations' directory.
func (h home) rest(t *testing.T) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := fs.WalkDir(os.DirFS(h.conversations), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(h.conversations, path))
		got[strings.Replace(path, h.id, "ID", 1)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRescue(t *testing.T) {
	other := ConversationID("p", "u", "other", 0)
	tests := map[string]struct {
		leave func(t *testing.T, h home)
		want  string // the transcript
	}{
		"transcript": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, h.lent(h.id), "new")
			},
			want: "new",
		},
		"nothing": {leave: func(*testing.T, home) {}, want: "old"},
		"empty": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), "")
		}, want: "old"},
		"another thread's": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, h.lent(other), "planted")
			},
			want: "old",
		},
		"a link": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, filepath.Join(h.job, "secret"), "secret")
				h.put(t, h.lent("x"), "")
				link(t, filepath.Join(h.job, "secret"), h.lent(h.id))
			},
			want: "old",
		},
		"a link in the way": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				outside := t.TempDir()
				h.put(t, filepath.Join(outside, "-thread", h.id+".jsonl"), "secret")
				h.put(t, filepath.Join(h.job, configDir, "x"), "")
				link(t, outside, filepath.Join(h.job, projectsDir))
			},
			want: "old",
		},
		"a linked project": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, filepath.Join(h.job, "elsewhere", h.id+".jsonl"), "secret")
				h.put(t, filepath.Join(h.job, projectsDir, "x"), "")
				link(t, "../../elsewhere", filepath.Join(h.job, projectsDir, "-thread"))
			},
			want: "old",
		},
		"a pipe": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, h.lent("x"), "")
				if err := syscall.Mkfifo(h.lent(h.id), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			want: "old",
		},
		"a directory": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, filepath.Join(h.lent(h.id), "x"), "")
			},
			want: "old",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			tt.leave(t, h)
			for range 2 { // once more does nothing
				if err := Rescue(h.job, h.conversations); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(map[string]string{"ID/" + transcriptFile: tt.want}, h.rest(t)); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

func TestRescueOnlyWhatRan(t *testing.T) {
	h := newHome(t)
	for _, running := range []string{"", "../../etc", h.id[:20]} {
		h.put(t, filepath.Join(h.conversations, runningFile), running)
		h.put(t, h.lent(h.id), "planted")
		if err := Rescue(h.job, h.conversations); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"ID/" + transcriptFile: "old"}, h.rest(t)); d != "" {
			t.Errorf("%q: %s", running, d)
		}
	}
	if err := Rescue(h.job, filepath.Join(h.conversations, "nowhere")); err != nil {
		t.Error(err)
	}
}

// TestLendStartsAfresh checks that nothing an agent left in the job's directory
// is there for the next run.
func TestLendStartsAfresh(t *testing.T) {
	h := newHome(t)
	outside := t.TempDir()
	h.put(t, filepath.Join(outside, "keep"), "x")
	h.put(t, filepath.Join(h.job, configDir, "settings.json"), `{"hooks":{}}`)
	link(t, outside, filepath.Join(h.job, homeDir))
	c, err := openConversation(Request{ProjectID: "p", UserID: "u", ThreadID: "t", Job: h.job, Conversations: h.conversations})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.lend(); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = fs.WalkDir(os.DirFS(h.job), ".", func(path string, _ fs.DirEntry, err error) error {
		got = append(got, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".", "claude", "claude/projects", "claude/projects/-thread", "claude/projects/-thread/" + h.id + ".jsonl", "claude/settings.json", "home", "tmp"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if b, err := os.ReadFile(filepath.Join(h.job, configDir, "settings.json")); err != nil || string(b) != settings {
		t.Errorf("settings %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Error("what a link points to was deleted")
	}
}

func TestRemember(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conversations")
	r := Request{ProjectID: "p", UserID: "u", ThreadID: "t", Conversations: dir, Notes: []string{"request's"}}
	remember := func(note string) {
		t.Helper()
		if err := Remember(dir, "p", "u", "t", note); err != nil {
			t.Fatal(err)
		}
	}
	notes := func() []string {
		t.Helper()
		c, err := openConversation(r)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		return c.allNotes()
	}
	remember("one\nwith two lines")
	remember("two")
	if d := cmp.Diff([]string{"one\nwith two lines", "two", "request's"}, notes()); d != "" {
		t.Error(d)
	}
	for i := range 20 {
		remember(strings.Repeat(fmt.Sprint(i%10), 2*maxNote))
	}
	got := notes()
	if len(got) != maxNotes+1 || len(got[0]) != maxNote || got[9][0] != '9' {
		t.Errorf("%d notes", len(got))
	}
	c, err := openConversation(r)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 2 {
		if err := c.forget(); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"request's"}, notes()); d != "" {
		t.Error(d)
	}
}

func TestPrompt(t *testing.T) {
	site := t.TempDir()
	guide := filepath.Join(site, guideFile)
	ask := func() string {
		t.Helper()
		text, err := prompt(Request{Site: site, Instruction: "/help @x"}, []string{"N1", "N2"})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(text, preamble) || !strings.HasSuffix(text, "\n\nThe instruction:\n/help @x") || !strings.Contains(text, "\nNote: N1\n\nNote: N2\n") {
			t.Errorf("prompt %q", text)
		}
		return text
	}
	if strings.Contains(ask(), guideFile) {
		t.Error("there is no guide")
	}
	if err := os.WriteFile(guide, []byte(strings.Repeat("ä", maxGuide)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(ask(), "ä"); got != maxGuide/2 {
		t.Errorf("%d characters of the guide", got)
	}
	if err := os.Remove(guide); err != nil {
		t.Fatal(err)
	}
	link(t, "/etc/hostname", guide)
	if strings.Contains(ask(), guideFile) {
		t.Error("a link was followed")
	}
}
