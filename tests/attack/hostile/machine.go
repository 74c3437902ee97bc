package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machineAttacks are those on the machine, and the wall itself.
func machineAttacks() []attack {
	return []attack{
		{"terminal", func(plan) (string, error) {
			f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
			if err != nil {
				return "", err
			}
			defer f.Close()
			return "typed into it", unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSTI, 'x')
		}},
		{"devices", func(plan) (string, error) {
			last := errors.New("there is none")
			for _, name := range []string{"mem", "kmsg", "vda", "sda", "nvme0n1", "fuse", "uinput", "loop-control"} {
				f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
				if err == nil {
					return name, f.Close()
				}
				last = err
			}
			return "", last
		}},
		{"core_limit", func(plan) (string, error) { return raise(unix.RLIMIT_CORE) }},
		{"file_limit", func(plan) (string, error) { return raise(unix.RLIMIT_NOFILE) }},
		{"privileges", func(plan) (string, error) {
			status, err := os.ReadFile("/proc/self/status")
			if err == nil && strings.Contains(string(status), "NoNewPrivs:\t1") {
				err = errors.New("no program gives any")
			}
			return "a setuid program would give some", err
		}},
		{"keeper_as_root", func(p plan) (string, error) { return byKeeper(p, 0) }},
		{"keeper_as_worker", func(p plan) (string, error) { return byKeeper(p, 1000) }},
		{"keeper_as_pair", func(p plan) (string, error) { return byKeeper(p, 65536+12345) }},
		{"oom_score", func(plan) (string, error) {
			return "others are killed first", os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0)
		}},
		{"outlive", func(p plan) (string, error) { // the test looks what became of it
			return "started", outlive(filepath.Join(filepath.Dir(p.Out), "lingers-"+p.Mark))
		}},
	}
}

// raise lifts a hard limit.
func raise(which int) (string, error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(which, &now); err != nil {
		return "", err
	}
	was := now
	if which == unix.RLIMIT_CORE {
		now.Cur, now.Max = unix.RLIM_INFINITY, unix.RLIM_INFINITY
	} else {
		now.Max++
	}
	if err := unix.Setrlimit(which, &now); err != nil {
		return "", fmt.Errorf("it stays at %d: %w", was.Max, err)
	}
	return fmt.Sprintf("from %d to %d", was.Max, now.Max), nil
}

// byKeeper has the keeper run a program as another user.
func byKeeper(p plan, uid int) (string, error) {
	if p.Keeper == "" {
		return "", errors.New("there is no keeper")
	}
	pipe := func() *os.File {
		r, _, err := os.Pipe()
		if err != nil {
			return nil
		}
		return r
	}
	order := fmt.Sprintf(`{"grace":1,"silence":1000000000,"program":"/usr/bin/id","args":["-u"],"wall":"users","uid":%[1]d,"gid":%[1]d,"access":{"pair":"a#b","uid":%[1]d,"write":["/"]}}`, uid)
	cmd := exec.Command(p.Keeper, order)
	cmd.ExtraFiles = []*os.File{pipe(), os.Stderr}
	out, err := cmd.Output()
	id := strings.TrimSpace(string(out))
	if id != strconv.Itoa(uid) || uid == os.Getuid() {
		return "", errors.Join(fmt.Errorf("the program ran as %q", id), err)
	}
	return "a program ran as " + id, nil
}

func basic(u *url.Userinfo) string {
	password, _ := u.Password()
	return base64.StdEncoding.EncodeToString([]byte(u.Username() + ":" + password))
}

// outlive starts a process in a session of its own, whose parent is gone.
func outlive(file string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", `"$0" linger "$1" >/dev/null 2>&1 </dev/null & :`, self, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Run()
}

// linger writes until it is killed.
func linger(file string) error {
	for {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err == nil {
			_, err = f.WriteString(time.Now().Format(time.RFC3339Nano) + "\n")
			f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// decoy is another process of the worker's user: it has a secret among its
// arguments, and one in shared memory that is its user's alone.
func decoy() error {
	secret := os.Getenv("SHARED_SECRET")
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	defer unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	copy(b, secret)
	select {}
}

// bomb uses up what there is, up to a bound.
func bomb(kind, bound string) error {
	n, err := strconv.Atoi(bound)
	if err != nil {
		return err
	}
	switch kind {
	case "fork":
		for i := range n {
			if err := exec.Command("sleep", "60").Start(); err != nil {
				return fmt.Errorf("after %d processes: %w", i, err)
			}
		}
		<-time.After(3 * time.Second) // whoever counts, counts by then
	case "memory":
		var all [][]byte
		for range n {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			<-time.After(2 * time.Millisecond)
		}
		<-time.After(3 * time.Second)
		fmt.Println(len(all))
	case "disk":
		b := make([]byte, 1<<20)
		for i := range n {
			if err := os.WriteFile(fmt.Sprintf("bomb-%d", i), b, 0o666); err != nil {
				return err
			}
			<-time.After(2 * time.Millisecond)
		}
		<-time.After(3 * time.Second)
	}
	fmt.Println("boom:", kind)
	return nil
}
