package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// planted is a project whose directory gets what should have been trimmed long ago.
type planted struct {
	*platform.Project
	bare string // its repository at the git server
	// Commits of the remote that side branches are planted on.
	merged, young, open string
}

const sideOf = "thread-0-conflict-" // followed by the id of the command

// newPlanted makes the project, whose default branch has commits that old side
// branches could have had.
func (s *soak) newPlanted(name string) *planted {
	j := s.AddProject(name, "scott")
	p := &planted{Project: j, bare: s.Git.Bare(j.Repo)}
	commit := func(id string, age time.Duration) string {
		sha, err := git(s.t.Context(), p.bare, time.Now().Add(-age), "commit-tree", "main^{tree}", "-p", "main", "-m", "Changed\n\nCommand-Id: "+id)
		if err != nil {
			s.t.Fatal(err)
		}
		return sha
	}
	p.merged = commit("merged", side+day)
	if _, err := git(s.t.Context(), p.bare, time.Now(), "update-ref", "refs/heads/main", p.merged); err != nil {
		s.t.Fatal(err)
	}
	p.young = commit("young", side-day)
	if _, err := git(s.t.Context(), p.bare, time.Now(), "update-ref", "refs/heads/main", p.young); err != nil {
		s.t.Fatal(err)
	}
	p.open = commit("open", side+day)
	return p
}

// git runs git in a bare repository, as of a time.
func git(ctx context.Context, dir string, at time.Time, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir", dir}, args...)...)
	date := strconv.FormatInt(at.Unix(), 10) + " +0000"
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE="+date, "GIT_AUTHOR_DATE="+date,
		"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@x", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@x")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %v: %w: %s", args, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// oldSideBranches lists those that should be gone.
func oldSideBranches(ctx context.Context, dir string) string {
	out, err := git(ctx, dir, time.Now(), "for-each-ref", "--format=%(refname)", "refs/heads/"+sideOf+"merged")
	if err != nil {
		return err.Error()
	}
	return out
}

// plant plants, sends a command, and looks what is left when its worker has let go of
// the project; again and again until nearly all commands are answered, and once at
// least.
func (s *soak) plant(p *planted, things func(context.Context, *planted, string) ([]string, error)) {
	ctx, dir := s.t.Context(), s.dir(p.Project)
	if !s.carryOut(p.Project) { // so that there is a directory
		return
	}
	for {
		keep, err := things(ctx, p, dir)
		before := beyond(ctx, dir)
		if err != nil || len(before) == 0 {
			s.t.Errorf("planting in %s: %v; beyond its bounds: %v", dir, err, before)
			return
		}
		if !s.carryOut(p.Project) {
			return
		}
		for kind, what := range beyond(ctx, dir) {
			s.t.Errorf("%s has still %s: %s", p.Key(), kind, what)
		}
		for _, file := range keep {
			if _, err := os.Lstat(file); err != nil {
				s.t.Errorf("trimmed too early: %v", err)
			}
		}
		s.checkSideBranches(ctx, p)
		s.mu.Lock()
		for kind := range before {
			s.trimmed[kind]++
		}
		nearlyDone := s.answered*10 >= s.commands*9
		s.mu.Unlock()
		if nearlyDone {
			return
		}
	}
}

// carryOut sends one command, and waits until it is answered and its worker has let
// go of the project.
func (s *soak) carryOut(j *platform.Project) bool {
	c := s.Command(j, "0", site.Add{})
	s.Send(c)
	late := time.Now().Add(patience)
	for len(s.Answers(c.ID)) == 0 {
		if time.Now().After(late) {
			s.t.Errorf("no answer to %s", c.ID)
			return false
		}
		platform.Wait(100 * time.Millisecond)
	}
	s.AwaitStatus(j, "released", patience)
	return true
}

func (s *soak) checkSideBranches(ctx context.Context, p *planted) {
	for _, dir := range []string{p.bare, filepath.Join(s.dir(p.Project), "worker", "git")} {
		out, err := git(ctx, dir, time.Now(), "for-each-ref", "--format=%(refname:short)", "refs/heads/"+sideOf+"*")
		if left := strings.Fields(out); err != nil || len(left) > 0 && !slices.Equal(left, []string{sideOf + "open", sideOf + "young"}) {
			s.t.Errorf("side branches in %s: %v %v", dir, left, err)
		}
	}
}

// put writes a file with a time of change, and a size that takes no room.
func put(file string, age time.Duration, size int64) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	at := time.Now().Add(-age)
	return errors.Join(f.Truncate(size), f.Close(), os.Chtimes(file, at, at))
}

// oldThings are too old, all of them, but for those it returns.
func oldThings(ctx context.Context, p *planted, dir string) (keep []string, err error) {
	for _, of := range []struct {
		name func() string
		life time.Duration
	}{
		{func() string { return filepath.Join(dir, "worker/conversations", uuid.NewString(), "transcript.jsonl") }, transcripts},
		{func() string { return filepath.Join(dir, "worker/.new-"+uuid.NewString()) }, unwritten},
		{func() string { return filepath.Join(dir, "worker/cache/.new-"+uuid.NewString()) }, unwritten},
	} {
		young := of.name()
		keep = append(keep, young)
		err = errors.Join(err, put(young, of.life-time.Hour, 10), put(of.name(), of.life+time.Hour, 10))
	}
	err = errors.Join(err, put(filepath.Join(dir, "worker/cache/node_modules-0.tar"), trees+time.Hour, 10))
	for _, age := range []time.Duration{asides - time.Hour, asides + time.Hour} {
		aside := dir + "~aside-" + strconv.FormatInt(time.Now().Add(-age).Unix(), 10) + "-" + uuid.NewString()[:4]
		if age < asides {
			keep = append(keep, aside)
		}
		err = errors.Join(err, put(filepath.Join(aside, "site", "index.html"), age, 10))
	}
	// npm's downloads, of which the newest counts.
	downloads := filepath.Join(dir, "cache")
	err = errors.Join(err, os.RemoveAll(downloads), put(filepath.Join(downloads, "old"), trees+time.Hour, 10))
	at := time.Now().Add(-trees - time.Hour)
	err = errors.Join(err, os.Chtimes(downloads, at, at), os.Chmod(downloads, 0o2770))
	for id, sha := range map[string]string{"merged": p.merged, "young": p.young, "open": p.open} {
		ref := "refs/heads/" + sideOf + id
		_, failed := git(ctx, p.bare, time.Now(), "update-ref", ref, sha)
		err = errors.Join(err, failed)
		_, failed = git(ctx, filepath.Join(dir, "worker/git"), time.Now(), "fetch", "--quiet", p.bare, "+"+ref+":"+ref)
		err = errors.Join(err, failed)
	}
	return keep, err
}

// largeThings are too many or too large, and all of them young but the objects, which
// nothing refers to.
func largeThings(ctx context.Context, _ *planted, dir string) (keep []string, err error) {
	for i, size := range []int64{3 << 29, 1 << 30, 10, 10} {
		file := filepath.Join(dir, "worker/cache", fmt.Sprintf("node_modules-%d.tar", i))
		if i == 0 {
			keep = append(keep, file)
		}
		err = errors.Join(err, put(file, time.Duration(i)*time.Minute, size))
	}
	err = errors.Join(err, put(filepath.Join(dir, "cache/_cacache/large"), time.Minute, maxDownloads+1))
	return keep, errors.Join(err, looseObjects(ctx, filepath.Join(dir, "worker/git")))
}

// looseObjects adds more of them than there may be, three weeks old.
func looseObjects(ctx context.Context, dir string) error {
	files, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(files) //nolint:errcheck // a temporary directory
	var names strings.Builder
	for i := range maxLoose + trimmedAfter + 1 {
		name := filepath.Join(files, strconv.Itoa(i))
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			return err
		}
		names.WriteString(name + "\n")
	}
	cmd := exec.CommandContext(ctx, "git", "--git-dir", dir, "hash-object", "-w", "--no-filters", "--stdin-paths")
	cmd.Stdin = strings.NewReader(names.String())
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	at := time.Now().Add(-3 * 7 * day)
	for sha := range strings.FieldsSeq(string(out)) {
		err = errors.Join(err, os.Chtimes(filepath.Join(dir, "objects", sha[:2], sha[2:]), at, at))
	}
	return err
}
