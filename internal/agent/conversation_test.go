package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
	h.put(t, filepath.Join(h.conversations, h.id, transcriptFile), line(h.id, "old"))
	h.put(t, filepath.Join(h.conversations, runningFile), h.id)
	return h
}

// line is one of a transcript.
func line(id, text string) string {
	return fmt.Sprintf(`{"type":"user","sessionId":%q,"text":%q}`+"\n", id, text)
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
	kept := func(id, text string) map[string]string {
		return map[string]string{"ID/" + transcriptFile: line(id, text)}
	}
	ended := map[string]string{"ID/" + endedFile: ""}
	id := ConversationID("p", "u", "t", 0)
	tests := map[string]struct {
		leave func(t *testing.T, h home)
		want  map[string]string
	}{
		"transcript": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, h.lent(h.id), line(h.id, "new"))
			},
			want: kept(id, "new"),
		},
		"one of two": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				older := filepath.Join(h.job, projectsDir, "-older", h.id+".jsonl")
				h.put(t, older, line(h.id, "older"))
				h.put(t, h.lent(h.id), line(h.id, "new"))
				long := time.Now().Add(-time.Hour)
				if err := os.Chtimes(older, long, long); err != nil {
					t.Fatal(err)
				}
			},
			want: kept(id, "new"),
		},
		"last line cut": {
			leave: func(t *testing.T, h home) {
				t.Helper()
				h.put(t, h.lent(h.id), line(h.id, "new")+line(h.id, "cut")[:20])
			},
			want: kept(id, "new"),
		},
		"nothing": {leave: func(*testing.T, home) {}, want: ended},
		"empty": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), "")
		}, want: ended},
		"garbage": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), line(h.id, "new")+"\x00\x01\n"+line(h.id, "newer"))
		}, want: ended},
		"of another": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), line(other, "planted"))
		}, want: ended},
		"another's lines": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), line(h.id, "new")+line(other, "planted"))
		}, want: ended},
		"another thread's": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(other), line(other, "planted"))
		}, want: ended},
		"too long": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), strings.Repeat(line(h.id, strings.Repeat("x", 1<<20)), maxTranscript>>20+1))
		}, want: ended},
		"too long for memory": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent(h.id), line(h.id, "new"))
			if err := os.Truncate(h.lent(h.id), 1<<40); err != nil {
				t.Fatal(err)
			}
		}, want: ended},
		"a link": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, filepath.Join(h.job, "secret"), line(h.id, "secret"))
			h.put(t, h.lent("x"), "")
			link(t, filepath.Join(h.job, "secret"), h.lent(h.id))
		}, want: ended},
		"a link in the way": {leave: func(t *testing.T, h home) {
			t.Helper()
			outside := t.TempDir()
			h.put(t, filepath.Join(outside, "-thread", h.id+".jsonl"), line(h.id, "secret"))
			h.put(t, filepath.Join(h.job, configDir, "x"), "")
			link(t, outside, filepath.Join(h.job, projectsDir))
		}, want: ended},
		"a linked project": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, filepath.Join(h.job, "elsewhere", h.id+".jsonl"), line(h.id, "secret"))
			h.put(t, filepath.Join(h.job, projectsDir, "x"), "")
			link(t, "../../elsewhere", filepath.Join(h.job, projectsDir, "-thread"))
		}, want: ended},
		"the job is a link": {leave: func(t *testing.T, h home) {
			t.Helper()
			elsewhere := home{job: filepath.Join(t.TempDir(), "job")}
			elsewhere.put(t, elsewhere.lent(h.id), line(h.id, "secret"))
			link(t, elsewhere.job, h.job)
		}, want: ended},
		"the job is a pipe": {leave: func(t *testing.T, h home) {
			t.Helper()
			if err := syscall.Mkfifo(h.job, 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: ended},
		"a pipe": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, h.lent("x"), "")
			if err := syscall.Mkfifo(h.lent(h.id), 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: ended},
		"a pipe in the way": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, filepath.Join(h.job, configDir, "x"), "")
			if err := syscall.Mkfifo(filepath.Join(h.job, projectsDir), 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: ended},
		"a directory": {leave: func(t *testing.T, h home) {
			t.Helper()
			h.put(t, filepath.Join(h.lent(h.id), "x"), "")
		}, want: ended},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			tt.leave(t, h)
			for range 2 { // once more does nothing
				if err := Rescue(h.job, h.conversations); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.want, h.rest(t)); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// TestFirstConversationIsNotGivenUp: there was none before the run, and what the run
// left is none.
func TestFirstConversationIsNotGivenUp(t *testing.T) {
	h := newHome(t)
	if err := os.Remove(filepath.Join(h.conversations, h.id, transcriptFile)); err != nil {
		t.Fatal(err)
	}
	h.put(t, h.lent(h.id), "garbage\n")
	if err := Rescue(h.job, h.conversations); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{}, h.rest(t)); d != "" {
		t.Error(d)
	}
}

// TestDamageAtRest: a disk can fail, too.
func TestDamageAtRest(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"cut":       func(path string) error { return os.Truncate(path, 9) },
		"garbage":   func(path string) error { return os.WriteFile(path, []byte("garbage\n"), 0o600) },
		"directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"link":      func(path string) error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) },
		"pipe":      func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			if err := os.Remove(filepath.Join(h.conversations, runningFile)); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(h.conversations, h.id, transcriptFile)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				c, err := openConversation(Request{ProjectID: "p", UserID: "u", ThreadID: "t", Job: h.job, Conversations: h.conversations})
				if err != nil {
					t.Fatal(err)
				}
				if c.resumed || c.generation != 1 || c.id != ConversationID("p", "u", "t", 1) {
					t.Errorf("resumed %v, generation %d", c.resumed, c.generation)
				}
				c.close()
			}
		})
	}
}

// TestOneAtATime: two processes in one conversation would lose what one of them
// was told.
func TestOneAtATime(t *testing.T) {
	h := newHome(t)
	r := Request{ProjectID: "p", UserID: "u", ThreadID: "t", Job: h.job, Conversations: h.conversations}
	h.put(t, h.lent(h.id), line(h.id, "new"))
	first, err := openConversation(r)
	if err != nil {
		t.Fatal(err)
	}
	r.ThreadID = "other"
	if _, err := openConversation(r); !errors.Is(err, ErrBusy) {
		t.Errorf("beside it: %v", err)
	}
	first.close()
	second, err := openConversation(r)
	if err != nil {
		t.Fatalf("after it: %v", err)
	}
	second.close()
}

// TestCrashWhileLending: what the job's directory lacks was not lent yet.
func TestCrashWhileLending(t *testing.T) {
	h := newHome(t)
	c, err := openConversation(Request{ProjectID: "p", UserID: "u", ThreadID: "t2", Job: h.job, Conversations: h.conversations})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	h.put(t, filepath.Join(h.conversations, c.id, transcriptFile), line(c.id, "old"))
	c.resumed, c.request.Job = true, filepath.Join(h.conversations, runningFile, "job") // it cannot be made
	h.put(t, filepath.Join(h.conversations, runningFile), "x")
	if err := c.lend(); err == nil {
		t.Fatal("lent")
	}
	if got := h.rest(t); got[runningFile] == c.id {
		t.Error("it counts as lent")
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
		h.put(t, h.lent(h.id), line(h.id, "planted"))
		if err := Rescue(h.job, h.conversations); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"ID/" + transcriptFile: line(h.id, "old")}, h.rest(t)); d != "" {
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
	h.put(t, h.lent(h.id), line(h.id, "new"))
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
		return c.allNotes(nil)
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
	if d := cmp.Diff([]string{"request's"}, c.allNotes(nil)); d != "" {
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
	hidden := filepath.Join(site, hiddenGuideFile)
	if err := errors.Join(os.Mkdir(filepath.Dir(hidden), 0o700), os.WriteFile(hidden, []byte("Tread lightly."), 0o600)); err != nil {
		t.Fatal(err)
	}
	if text := ask(); !strings.Contains(text, "\nThe repository's .claude/CLAUDE.md says:\n<guide>\nTread lightly.\n</guide>\n") {
		t.Error("the hidden guide is not told")
	}
	for name, plant := range map[string]func() error{
		"link":      func() error { return os.Symlink("/etc/hostname", guide) },
		"pipe":      func() error { return syscall.Mkfifo(guide, 0o600) },
		"directory": func() error { return os.Mkdir(guide, 0o700) },
		"linked directory": func() error {
			return errors.Join(os.Rename(filepath.Dir(hidden), filepath.Join(site, "x")), os.Symlink("x", filepath.Dir(hidden)))
		},
	} {
		if err := errors.Join(os.RemoveAll(guide), plant()); err != nil {
			t.Fatal(err)
		}
		if text := ask(); strings.Contains(text, "repository's "+guideFile) || name == "linked directory" && strings.Contains(text, guideFile) {
			t.Errorf("%s: read", name)
		}
		if name == "linked directory" {
			if err := errors.Join(os.Remove(filepath.Dir(hidden)), os.Rename(filepath.Join(site, "x"), filepath.Dir(hidden))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	text := restartedAfter(slices.Repeat([]string{"blue\x1b[31m\n" + strings.Repeat("ä", 1000)}, 100))
	if lines := strings.Count(text, "\n"); lines != maxHistory+1 || len(text) > (maxHistory+1)*(maxHistoryLine+4)+len(restarted)+100 {
		t.Errorf("%d lines, %d bytes", lines, len(text))
	}
	if strings.Contains(text, "\x1b") || !strings.Contains(text, "\n- blue ää") || !strings.HasSuffix(text, "\n- and more before") {
		t.Errorf("%q", text)
	}
}

func TestTrimConversations(t *testing.T) {
	h := newHome(t)
	now := time.Now()
	age := func(id string, files map[string]time.Duration) {
		t.Helper()
		for name, old := range files {
			path := filepath.Join(h.conversations, id, name)
			h.put(t, path, line(id, "x"))
			if err := os.Chtimes(path, now.Add(-old), now.Add(-old)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const day = 24 * time.Hour
	young, old := ConversationID("p", "u", "young", 0), ConversationID("p", "u", "old", 0)
	ended, second := ConversationID("p", "u", "twice", 0), ConversationID("p", "u", "twice", 1)
	age(h.id, map[string]time.Duration{transcriptFile: 40 * day, notesFile: day})
	age(young, map[string]time.Duration{transcriptFile: 29 * day})
	age(old, map[string]time.Duration{transcriptFile: 31 * day, notesFile: 32 * day})
	age(ended, map[string]time.Duration{endedFile: 99 * day})
	age(second, map[string]time.Duration{transcriptFile: 29 * day})
	// Who uses the second conversation keeps the first one from being begun again.
	c, err := openConversation(Request{ProjectID: "p", UserID: "u", ThreadID: "twice", Job: h.job, Conversations: h.conversations})
	if err != nil || c.id != second || !c.resumed {
		t.Fatalf("%+v, %v", c, err)
	}
	c.close()
	h.put(t, filepath.Join(h.conversations, runningFile), h.id)
	if err := Trim(h.conversations, now); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{h.id: true, young: true, old: false, ended: true, second: true, runningFile: true, lockFile: true} {
		if _, err := os.Stat(filepath.Join(h.conversations, name)); (err == nil) != want {
			t.Errorf("%s: there: %v", name, err == nil)
		}
	}
	if err := Trim(filepath.Join(h.conversations, "nowhere"), now); err != nil {
		t.Error(err)
	}
}
