package process_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// pair is nobody else's on this machine: all its processes are ended again and
// again.
var pair = "amelia#" + rand.Text()

// home is a pair's directory under the wall of users.
type home struct {
	t *testing.T
	processtest.Users
	runner         *process.Runner
	dir, site, job string
}

func newHome(t *testing.T) *home {
	t.Helper()
	u := processtest.NewUsers(t)
	return &home{
		t: t, Users: u, runner: u.Runner(t), dir: u.Mkdir(t, "amelia-scott", 0o711),
		site: u.Mkdir(t, "amelia-scott/site", 0o770), job: u.Mkdir(t, "amelia-scott/job", 0o770),
	}
}

func (h *home) access() *process.Access {
	return &process.Access{Pair: pair, Write: []string{h.site, h.job}}
}

// sh runs a script as the pair, and returns what it wrote.
func (h *home) sh(script string) (string, error) {
	h.t.Helper()
	var out bytes.Buffer
	_, err := h.runner.Run(h.t.Context(), process.Command{
		Path: "sh", Args: []string{"-c", script}, Dir: h.site, Env: []string{"PATH=/usr/bin:/bin", "MARK=" + mark(h.t)},
		Stdout: &out, Stderr: &out, Access: h.access(),
	})
	return out.String(), err
}

func (h *home) must(script string) string {
	h.t.Helper()
	out, err := h.sh(script)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// worker runs a script as the worker.
func (h *home) worker(script string) string {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), "setpriv", append(processtest.As(processtest.WorkerID)[1:], "sh", "-c", script)...)
	cmd.Dir = h.site
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("as the worker: %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// owner is "uid:gid mode" of a file in the pair's directory, with the pair, the
// worker and their modes in words.
func (h *home) owner(name string) string {
	h.t.Helper()
	info, err := os.Lstat(filepath.Join(h.dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	word := func(id uint32) string {
		switch int(id) {
		case process.UserID(pair):
			return "pair"
		case processtest.WorkerID:
			return "worker"
		}
		return strconv.Itoa(int(id))
	}
	return word(st.Uid) + ":" + word(st.Gid) + " " + strconv.FormatInt(int64(st.Mode&0o7777), 8)
}

func TestUserIDs(t *testing.T) {
	if a, b := process.UserID("amelia#scott"), process.UserID("amelia#jane"); a == b {
		t.Errorf("two pairs have the user %d", a)
	}
	for _, p := range []string{"", "a#b", strings.Repeat("x", 1000)} {
		if id := process.UserID(p); id < 65536 || id >= 65536+1<<30 {
			t.Errorf("the user of %q is %d", p, id)
		}
	}
}

// A child is the pair's user, and has nothing of the worker's or root's.
func TestUsersChildHasNothing(t *testing.T) {
	h := newHome(t)
	t.Setenv("SECRET_OF_THE_WORKER", "hunter2")
	id := strconv.Itoa(process.UserID(pair))
	got := h.must(`id -u; id -g; id -G; umask; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l; env`)
	want := id + "\n" + id + "\n" + id + "\n0007\n" +
		"Uid:\t" + strings.Join([]string{id, id, id, id}, "\t") + "\nGid:\t" + strings.Join([]string{id, id, id, id}, "\t") + "\nGroups:\t \n" +
		"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n" +
		"NoNewPrivs:\t1\n4\nMARK=" + mark(t) + "\nPWD=" + h.site + "\nPATH=/usr/bin:/bin\n"
	if d := cmp.Diff(sorted(want), sorted(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// sorted has the lines of a text in one order: a shell's env has none.
func sorted(s string) []string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		for j := i; j > 0 && lines[j] < lines[j-1]; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
	return lines
}

// A stream is a path, too: the child may open it again.
func TestUsersStreams(t *testing.T) {
	h := newHome(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()                                                             //nolint:errcheck // it was read
	if err := w.Chown(processtest.WorkerID, processtest.WorkerID); err != nil { // as if the worker had made it
		t.Fatal(err)
	}
	_, err = h.runner.Run(t.Context(), process.Command{
		Path: "sh", Args: []string{"-c", "echo said > /dev/stderr"}, Dir: h.site, Env: []string{"PATH=/bin"}, Stderr: w, Access: h.access(),
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "said\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// What the worker writes is the pair's when a child starts, and what the child
// closes is open to the worker when it has ended.
func TestUsersOwners(t *testing.T) {
	h := newHome(t)
	h.must("true")
	h.worker(`umask 027; mkdir src; echo a > src/page; echo a > closed; chmod 600 closed; ln -s /etc/passwd link; printf '#!/bin/sh' > run; chmod 750 run`)
	for name, want := range map[string]string{"site": "pair:worker 2770", "job": "pair:worker 2770", "site/src": "worker:worker 2750"} {
		if got := h.owner(name); got != want {
			t.Errorf("%s before: %s; want %s", name, got, want)
		}
	}
	h.must(`echo b >> src/page; echo b >> closed; chmod +x src/page; mkdir -m 700 dir; echo c > dir/file; chmod 400 dir/file; touch -d 2000-01-01 run
		mkdir node_modules; echo c > node_modules/x; mkdir -m 0 locked; chgrp $(id -g) dir/file`)
	for name, want := range map[string]string{
		".": "worker:worker 711", "site": "pair:worker 2770", "site/src": "pair:worker 2770", "site/src/page": "pair:worker 770",
		"site/closed": "pair:worker 660", "site/run": "pair:worker 770", "site/link": "worker:worker 777", "site/dir": "pair:worker 2770",
		"site/dir/file": "pair:worker 440", "site/node_modules": "pair:worker 2770", "site/node_modules/x": "pair:worker 660", "site/locked": "pair:worker 2770",
	} {
		if got := h.owner(name); got != want {
			t.Errorf("%s after: %s; want %s", name, got, want)
		}
	}
	if got := h.worker(`cat dir/file; mv dir/file dir/other; echo d > dir/file; rm -r dir locked node_modules src closed link; ls; mv ../job ../aside`); got != "c\nrun\n" {
		t.Errorf("the worker sees %q", got)
	}
}

// What no child may have is not handed over, whatever name it has in the site.
func TestUsersHandsOverNothingElse(t *testing.T) {
	h := newHome(t)
	h.must("mkdir theirs")
	secret := filepath.Join(h.dir, "secret")
	h.worker(`echo secret > ../secret; chmod 600 ../secret; mkdir -m 700 ../private; echo secret > ../private/file; chmod 600 ../private/file`)
	for _, err := range []error{
		os.Link(secret, filepath.Join(h.site, "theirs", "hard")),
		os.Symlink(secret, filepath.Join(h.site, "theirs", "soft")),
		os.Symlink(filepath.Join(h.dir, "private"), filepath.Join(h.site, "theirs", "dir")),
		os.WriteFile(filepath.Join(h.site, "theirs", "roots"), []byte("secret"), 0o600),
		os.Mkdir(filepath.Join(h.site, "theirs", "rootsdir"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]string{}
	for _, name := range []string{"secret", "private", "private/file", "site/theirs/hard", "site/theirs/roots", "site/theirs/rootsdir"} {
		before[name] = h.owner(name)
	}
	if out, err := h.sh(`cat theirs/*; cat theirs/dir/file; ls theirs/rootsdir`); err == nil || strings.Contains(out, "secret\n") {
		t.Errorf("the child reads %q, %v", out, err)
	}
	for name, want := range before {
		if got := h.owner(name); got != want {
			t.Errorf("%s is %s now; it was %s", name, got, want)
		}
	}
}

// The keeper hands nothing over that does not lie where the worker alone writes.
func TestUsersRefusesPlaces(t *testing.T) {
	h := newHome(t)
	h.must("mkdir -p below; ln -s .. up")
	if err := os.Symlink(h.site, filepath.Join(h.dir, "link")); err != nil {
		t.Fatal(err)
	}
	open := h.Mkdir(t, "open", 0o777)
	h.Mkdir(t, "open/site", 0o770)
	roots := t.TempDir()
	for _, path := range []string{
		"/etc", "/", "relative", roots, filepath.Join(h.site, "below"), filepath.Join(h.site, "up", "job"), filepath.Join(open, "site"),
		h.dir + "/site/../job", filepath.Join(h.dir, "link", "below"), "",
	} {
		_, err := h.runner.Run(t.Context(), process.Command{
			Path: "/bin/true", Dir: "/", Access: &process.Access{Pair: pair, Write: []string{path}},
		})
		if !errors.Is(err, process.ErrWall) {
			t.Errorf("Write %q: %v; want ErrWall", path, err)
		}
	}
}

// Objects are read by the group, and nothing else of the worker's is.
func TestUsersReadsObjects(t *testing.T) {
	h := newHome(t)
	h.Mkdir(t, "amelia-scott/worker", 0o700)
	h.worker(`umask 027; cd ../worker; mkdir -m 700 git; mkdir -p git/objects/aa git/refs; echo old > git/objects/aa/1; chmod 400 git/objects/aa/1; echo private > git/config; echo private > owner.json`)
	a := h.access()
	a.Read = []string{filepath.Join(h.dir, "worker", "git", "objects"), "/etc/shadow", filepath.Join(h.dir, "worker", "none")}
	read := func(script string) string {
		t.Helper()
		var out bytes.Buffer
		c := process.Command{Path: "sh", Args: []string{"-c", script}, Dir: h.site, Env: []string{"PATH=/bin:/usr/bin"}, Stdout: &out, Stderr: &out, Access: a}
		h.runner.Run(t.Context(), c) //nolint:errcheck // the output says it
		return out.String()
	}
	if got := read("cd ../worker/git/objects && cat aa/1"); got != "old\n" {
		t.Errorf("an object is read as %q", got)
	}
	h.worker(`umask 027; mkdir ../worker/git/objects/bb; echo new > ../worker/git/objects/bb/2; echo newer > ../worker/git/objects/aa/3`)
	if got := read("cd ../worker/git/objects && cat bb/2 aa/3"); got != "new\nnewer\n" {
		t.Errorf("new objects are read as %q", got)
	}
	got := read(`cd ../worker; for f in owner.json git/config git/refs/x git/objects/x git/x; do (echo mine > $f) 2>&1; cat $f; done; ls . git; cat /etc/shadow; rm -f git/objects/aa/1`)
	if strings.Contains(got, "private") || strings.Contains(got, "root:") || strings.Contains(got, "mine") {
		t.Errorf("the child reads %q", got)
	}
	want := map[string]string{"worker": "worker:pair 710", "worker/git": "worker:pair 710", "worker/git/objects": "worker:pair 2750", "worker/git/objects/aa/1": "worker:pair 440"}
	for name, want := range want {
		if got := h.owner(name); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}

// One pair's child sees nothing of another pair, of the worker, or of the keeper,
// and cannot signal them.
func TestUsersKeepsOthersOut(t *testing.T) {
	h := newHome(t)
	h.must("echo mine > page; echo mine > ../job/file")
	bystander := exec.CommandContext(t.Context(), "setpriv", append(processtest.As(processtest.WorkerID)[1:], "env", "TOKEN=hunter2", "sleep", "60")...)
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(bystander.Process.Pid)
	other := &process.Access{Pair: "bakery#jane", Write: []string{h.Mkdir(t, "bakery-jane/site", 0o770)}}
	h.Mkdir(t, "bakery-jane", 0o711)
	var out bytes.Buffer
	_, err := h.runner.Run(t.Context(), process.Command{
		Path: "sh", Args: []string{"-c", `cat ` + h.site + `/page ` + h.job + `/file; ls ` + h.site + `; echo x > ` + h.site + `/new
			for p in ` + pid + ` $PPID; do
				for f in environ maps mem fd/0 root/etc/hostname; do cat /proc/$p/$f >/dev/null && echo reads $f of $p; done
				for s in 9 19 15; do kill -$s $p && echo signals $p; done
			done
			kill -9 -1; echo end`},
		Dir: other.Write[0], Env: []string{"PATH=/usr/bin:/bin"}, Stdout: &out, Access: other,
	})
	if err != nil || out.String() != "end\n" {
		t.Errorf("the child of another pair: %v\n%s", err, out.String())
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the worker's process: %v", err)
	}
	bystander.Process.Kill() //nolint:errcheck // it may be gone
	bystander.Wait()         //nolint:errcheck // it was killed
}

// Whatever runs as the pair has ended before a child starts, and after.
func TestUsersEndsAll(t *testing.T) {
	h := newHome(t)
	stranger := func() *exec.Cmd {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "setpriv", append(processtest.As(process.UserID(pair))[1:], "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")...)
		up, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(up, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	killed := func(cmd *exec.Cmd) {
		t.Helper()
		cmd.Wait() //nolint:errcheck // the state says it
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Errorf("a process of the pair ended with %v", cmd.ProcessState)
		}
	}
	before := stranger()
	if got := h.must("grep State: /proc/" + strconv.Itoa(before.Process.Pid) + "/status"); !strings.Contains(got, "zombie") {
		t.Errorf("it runs beside the next child: %s", got)
	}
	killed(before)

	ctx, cancel := context.WithCancel(t.Context())
	during := make(chan *exec.Cmd, 1)
	_, err := h.runner.Run(ctx, process.Command{
		Path: "sh", Args: []string{"-c", "echo up; sleep 60"}, Dir: h.site, Env: []string{"PATH=/bin:/usr/bin"}, Access: h.access(),
		Stdout: writerFunc(func(p []byte) (int, error) { during <- stranger(); cancel(); return len(p), nil }),
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	killed(<-during)

	last := stranger()
	if err := h.runner.Mend(t.Context(), *h.access(), false); err != nil {
		t.Fatal(err)
	}
	killed(last)
}

// A child that closed its tree to the worker, and a keeper that died, are made
// good by Mend.
// TestUsersOneAfterTheOther begins a child while another of the same pair runs, which
// it would end.
func TestUsersOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := processtest.NewUsers(t).Runner(t)
	first, said := shell(t, "echo up; read line; echo down")
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // nothing is lost
	up := make(chan struct{})
	once := sync.OnceFunc(func() { close(up) })
	first.Stdin, first.Stderr = in, nil
	first.Stdout = io.MultiWriter(said, writerFunc(func(p []byte) (int, error) { once(); return len(p), nil }))
	ended := make(chan error, 1)
	go func() {
		defer in.Close() //nolint:errcheck // it was only read
		_, err := r.Run(t.Context(), first)
		ended <- err
	}()
	<-up
	second, _ := shell(t, "true")
	second.Access.Pair = first.Access.Pair
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.Run(short, second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second child ended with %v; want it to wait for the first", err)
	}
	if err := r.Mend(short, *second.Access, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its directories were mended: %v; want that to wait for the first", err)
	}
	other, _ := shell(t, "true") // of another pair
	if _, err := r.Run(t.Context(), other); err != nil {
		t.Error(err)
	}
	if _, err := out.WriteString("go\n"); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil || said.String() != "up\ndown\n" {
		t.Errorf("the first child: %v, %q", err, said)
	}
	if _, err := r.Run(t.Context(), second); err != nil {
		t.Errorf("when the first has ended: %v", err)
	}
}

func TestUsersMend(t *testing.T) {
	h := newHome(t)
	h.must("mkdir -p node_modules/a src; chmod 700 node_modules/a")
	id := processtest.As(process.UserID(pair))
	for _, path := range []string{"src", "."} {
		if out, err := exec.CommandContext(t.Context(), id[0], append(id[1:], "chmod", "0700", filepath.Join(h.site, path))...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := h.runner.Mend(t.Context(), *h.access(), true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"site", "site/src", "site/node_modules/a"} {
		if got := h.owner(name); got != "pair:worker 2770" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The setuid keeper is told what to run by the pipe that then has the heartbeat,
// for as long as it takes.
func TestUsersHeartbeat(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.runner.Silence, h.runner.Heartbeat = time.Second, 50*time.Millisecond
	h.must("sleep 7")
}

// TestUsersStubborn has nothing of a tree left that is hard to kill.
func TestUsersStubborn(t *testing.T) {
	h := newHome(t)
	for name, script := range stubborn() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			h := &home{t: t, Users: h.Users, runner: h.runner, dir: h.dir, site: h.site, job: h.job}
			h.must(`(` + script + `) & sleep 0.3; exit 0`)
			if left := alive(t); len(left) > 0 {
				t.Fatalf("still alive: %v", left)
			}
		})
	}
}

// The keeper serves the worker that it is installed for, and nobody else.
func TestUsersKeeperRefuses(t *testing.T) {
	h := newHome(t)
	h.must("true")
	loose, toRoot := filepath.Join(filepath.Dir(h.Keeper), "loose"), filepath.Join(filepath.Dir(h.Keeper), "plain")
	h.Install(t, h.Keeper, loose, 0o4755)
	h.Install(t, h.Keeper, toRoot, 0o755)
	with := func(words []string, more ...string) []string { return slices.Concat(words, more) }
	child := processtest.As(process.UserID(pair))
	worker := processtest.As(processtest.WorkerID)
	for name, tt := range map[string]struct {
		words []string
		want  string
	}{
		"a child":                    {with(child, h.Keeper, "users"), "Permission denied"},
		"a child, loosely installed": {with(child, loose, "users"), "it must be installed with owner root and mode 4750"},
		"a child as second stage":    {with(child, loose, "enter", pair), "it must be installed with owner root and mode 4750"},
		"the worker by hand":         {with(worker, h.Keeper), "not by hand"},
		"the worker with a spec":     {with(worker, h.Keeper, `{"program":"/bin/id"}`), "not by hand"},
		"no new privileges":          {with(processtest.As(processtest.WorkerID, "--no-new-privs"), h.Keeper, "users"), "no-new-privileges is off"},
		"not setuid":                 {with(worker, toRoot, "users"), "no-new-privileges is off"},
		"root":                       {[]string{h.Keeper, "users"}, "by a worker that is not root"},
		"the group by courtesy": {
			[]string{"setpriv", "--reuid=64002", "--regid=64002", "--groups=" + strconv.Itoa(processtest.WorkerID), h.Keeper, "users"},
			"it serves a worker of group",
		},
		"without capabilities": {with(processtest.As(processtest.WorkerID, "--bounding-set=-kill,-chown"), h.Keeper, "users"), "has not the capabilities"},
	} {
		cmd := exec.CommandContext(t.Context(), tt.words[0], tt.words[1:]...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v, %q; want %q", name, err, out, tt.want)
		}
	}
}

// What the wall of users needs is found out by a worker before anything depends on
// it.
func TestProbeUsers(t *testing.T) {
	h := newHome(t)
	prober := filepath.Join(filepath.Dir(h.Keeper), "prober")
	h.Install(t, processtest.Build(t, module+"internal/process/processtest/prober"), prober, 0o755)
	closed := h.Mkdir(t, "closed/workspaces", 0o755)
	h.Mkdir(t, "closed", 0o700)
	for name, tt := range map[string]struct{ root, want string }{
		"works":                   {h.Mkdir(t, "all", 0o755), ""},
		"nobody passes through":   {closed, "no other user may pass through "},
		"owners are not kept":     {squashed(t, h.Mkdir(t, "mapped", 0o755)), "must not enforce a user"},
		"the worker cannot write": {"/usr", "permission denied"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			words := append(processtest.As(processtest.WorkerID), prober, h.Keeper, tt.root, h.runner.Keeper[0])
			out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
			if err != nil != (tt.want != "") || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, %q; want %q", err, out, tt.want)
			}
			left, err := filepath.Glob(filepath.Join(tt.root, ".probe-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("the probe leaves %v, %v", left, err)
			}
		})
	}
}

// squashed mounts a directory over itself such that it knows but root and the
// worker: as good as a file server that maps all users to one.
func squashed(t *testing.T, dir string) string {
	t.Helper()
	owner := exec.CommandContext(t.Context(), "sleep", "60")
	owner.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: known(), GidMappings: known()}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		owner.Process.Kill() //nolint:errcheck // it only sleeps
		owner.Wait()         //nolint:errcheck // it was killed
	}()
	users, err := os.Open("/proc/" + strconv.Itoa(owner.Process.Pid) + "/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close() //nolint:errcheck // it was only pointed to
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree) //nolint:errcheck // it is mounted
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
	if err == nil {
		err = unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		t.Fatalf("mount %s with users of its own: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func known() []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: processtest.WorkerID, HostID: processtest.WorkerID, Size: 1}}
}
