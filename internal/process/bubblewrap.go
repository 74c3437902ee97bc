package process

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	insideKeeper = "/run/keeper" // where the keeper is inside
	insideUser   = 1000          // who a child of root thinks it is
	scratch      = "268435456"   // bytes that /tmp and /dev/shm may take, each, of memory
)

// bubblewrap makes l start bwrap, which starts the second stage as process 1 of
// namespaces that are the child's own.
func (s spec) bubblewrap(l *launch) error {
	var err error
	if l.path, err = findBwrap(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := l.listen(); err != nil {
		return err
	}
	outlet, theirs, err := pairOfSockets()
	if err != nil {
		return err
	}
	l.pass(theirs)
	if s.Access.Proxy == "" {
		outlet.Close() //nolint:errcheck // nobody will write to it
	} else {
		l.outlet = outlet
	}
	l.spares = true
	s.PWD = slices.ContainsFunc(l.attr.Env, isPWD)
	l.argv = []string{
		l.path, "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try",
		"--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "site",
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 || gid == 0 { // programs that believe to be root change owners
		uid, gid = insideUser, insideUser
		l.argv = append(l.argv, "--uid", strconv.Itoa(uid), "--gid", strconv.Itoa(gid))
	}
	l.argv = append(l.argv,
		"--proc", "/proc", "--dev", "/dev", "--size", scratch, "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
		"--size", scratch, "--tmpfs", "/tmp",
	)
	for name, text := range map[string]string{
		"passwd": fmt.Sprintf("site:x:%d:%d::/tmp:/bin/sh\n", uid, gid),
		"group":  fmt.Sprintf("site:x:%d:\n", gid),
		"hosts":  "127.0.0.1 localhost\n::1 localhost\n",
	} {
		f, err := inMemory(name, text)
		if err != nil {
			return err
		}
		l.argv = append(l.argv, "--ro-bind-data", strconv.Itoa(len(l.attr.Files)), "/etc/"+name)
		l.pass(f)
	}
	l.argv = append(l.argv, s.binds()...)
	l.argv = append(l.argv, "--ro-bind", self, insideKeeper, "--remount-ro", "/", "--chdir", cmp.Or(s.Dir, "/"), "--", insideKeeper)
	l.argv = append(l.argv, s.enter()[1:]...)
	return nil
}

func isPWD(kv string) bool { return strings.HasPrefix(kv, "PWD=") }

// findBwrap does not look where the child's PATH says.
func findBwrap() (string, error) {
	for _, path := range []string{"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"} {
		if executable(path) == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no bwrap in /usr/bin or /usr/local/bin; install bubblewrap")
}

// inMemory returns an open file with a text, which has no name.
func inMemory(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, err
}

// binds are bwrap's arguments for what of the machine is there inside. A
// directory comes before what is below it.
func (s spec) binds() []string {
	var args []string
	for _, dir := range systemDirs() {
		if to, err := os.Readlink(dir); err == nil {
			args = append(args, "--symlink", to, dir)
		} else {
			args = append(args, "--ro-bind-try", dir, dir)
		}
	}
	for _, file := range systemFiles() {
		if !slices.Contains([]string{"/etc/passwd", "/etc/group", "/etc/hosts"}, file) {
			args = append(args, "--ro-bind-try", file, file)
		}
	}
	type bind struct{ option, path string }
	var binds []bind
	for _, path := range append(slices.Clone(s.Read), s.Access.Read...) {
		to, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue // it is not there, or not ours to read
		}
		binds = append(binds, bind{"--ro-bind-try", path})
		if to != path {
			binds = append(binds, bind{"--ro-bind-try", to})
		}
	}
	for _, path := range s.Access.Write {
		binds = append(binds, bind{"--bind", path})
	}
	slices.SortStableFunc(binds, func(a, b bind) int { return cmp.Compare(a.path, b.path) })
	for _, b := range binds {
		args = append(args, b.option, b.path, b.path)
	}
	return args
}
