package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
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
			defer f.Close() //nolint:errcheck // the attack is over
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
		{"core_limit", func(plan) (string, error) { return allowCore() }},
		{"privileges", func(plan) (string, error) {
			status, err := os.ReadFile("/proc/self/status")
			if err == nil && strings.Contains(string(status), "NoNewPrivs:\t1") {
				err = errors.New("no program gives any")
			}
			return "a setuid program would give some", err
		}},
		{"keeper_as_root", func(p plan) (string, error) {
			as, err := byKeeper(p, "off", "null")
			if err == nil && as != 0 {
				err = fmt.Errorf("it ran as %d", as)
			}
			return "a program ran as root", err
		}},
		{"keeper_as_victim", func(p plan) (string, error) {
			as, err := byKeeper(p, "users", `{"pair":"`+p.VictimPair+`","write":[]}`)
			if err == nil && (as == os.Getuid() || as < 65536) {
				err = fmt.Errorf("it ran as %d", as)
			}
			return "a program ran as the other project", err
		}},
		{"outlive", func(p plan) (string, error) { // the test looks what became of it
			return "started", outlive(filepath.Join(filepath.Dir(p.Out), "lingers-"+p.Mark))
		}},
	}
}

// allowCore lifts the limit of core dumps.
func allowCore() (string, error) {
	all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	return "could be left", unix.Setrlimit(unix.RLIMIT_CORE, &all)
}

// byKeeper has the setuid keeper run a program, and returns as which user it ran.
func byKeeper(p plan, wall, access string) (int, error) {
	control, orders, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer orders.Close() //nolint:errcheck // the keeper has ended
	status, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	spec := fmt.Sprintf(`{"grace":1,"silence":5000000000,"program":"/usr/bin/id","args":["-u"],"dir":"/","env":[],"wall":%q,"access":%s}`, wall, access)
	if _, err := orders.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(spec))), spec...)); err != nil {
		return 0, err
	}
	var out bytes.Buffer
	cmd := exec.Command(p.Keeper, "users") //nolint:noctx // the keeper ends by itself
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = []*os.File{control, status}, &out, &out, time.Second
	err = cmd.Run()
	as, aerr := strconv.Atoi(strings.TrimSpace(out.String()))
	return as, errors.Join(aerr, err)
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
	cmd := exec.Command("sh", "-c", `"$0" linger "$1" >/dev/null 2>&1 </dev/null & :`, self, file) //nolint:noctx // that is the attack
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Run()
}

// linger writes until it is killed.
func linger(file string) error {
	for {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err == nil {
			_, err = f.WriteString(time.Now().Format(time.RFC3339Nano) + "\n")
			f.Close() //nolint:errcheck // it writes again
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
	defer unix.SysvShmCtl(id, unix.IPC_RMID, nil) //nolint:errcheck // its namespace ends with it
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	copy(b, secret)
	<-time.After(time.Hour)
	return nil
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
			if err := exec.CommandContext(context.Background(), "sleep", "60").Start(); err != nil {
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
		f, err := os.Create("bomb")
		if err != nil {
			return err
		}
		b := make([]byte, 1<<20)
		for range n {
			if _, err := f.Write(b); err != nil {
				return err
			}
		}
	}
	fmt.Println("boom:", kind)
	return nil
}
