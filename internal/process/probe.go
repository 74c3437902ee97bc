package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// probeArg makes the keeper a child that tries out its wall.
const probeArg = "probe"

// probeTimeout is generous: what it bounds takes milliseconds.
const probeTimeout = 10 * time.Second

// attempt is what a probing child tries.
type attempt struct {
	Write  string `json:"write"`  // a file that it may write
	Shut   string `json:"shut"`   // a file that it must not read
	Worker int    `json:"worker"` // a process that it must neither read nor signal
	PIDs   string `json:"pids"`   // the namespace in which that is its number
	Open   string `json:"open"`   // an address that it may connect to
	Closed string `json:"closed"` // an address that it must not connect to; empty if that is not asked
}

// Probe tries out r's wall with a child, and returns nil if it holds; else the
// error says in a sentence what does not. The program is how the keeper is called
// by one who may execute it; it is made readable behind the wall.
func (r *Runner) Probe(ctx context.Context, program []string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "wall-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is in the temporary directory
	write, secret := filepath.Join(dir, "write"), filepath.Join(dir, "secret")
	if err := errors.Join(os.Mkdir(write, 0o700), os.WriteFile(secret, []byte("x"), 0o600)); err != nil {
		return err
	}
	open, err := greet()
	if err != nil {
		return err
	}
	defer open.Close() //nolint:errcheck // nothing was written that matters
	closed, err := greet()
	if err != nil {
		return err
	}
	defer closed.Close() //nolint:errcheck // nothing was written that matters
	a := attempt{
		Write: filepath.Join(write, "file"), Shut: secret, Worker: os.Getpid(), PIDs: ownPIDs(), Open: open.Addr().String(), Closed: closed.Addr().String(),
	}
	if r.Wall == WallUsers {
		a.Closed = ""                                // users alone close no network
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the pair passes through
			return err
		}
	}
	order, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	_, err = r.Run(ctx, Command{
		Path: program[0], Args: append(append([]string{}, program[1:]...), probeArg, string(order)), Dir: write, Stdout: &stdout, Stderr: &stderr,
		Access: &Access{Pair: "probe#probe", Write: []string{write}, Read: program[:1], Proxy: open.Addr().String()},
	})
	if err != nil {
		return errors.Join(err, said(stderr.String()))
	}
	var wrong []string
	if err := json.Unmarshal(stdout.Bytes(), &wrong); err != nil {
		return fmt.Errorf("the probe said nothing: %w", err)
	}
	if len(wrong) > 0 {
		return errors.New("a child behind it " + strings.Join(wrong, ", and it "))
	}
	return nil
}

// said is the first line of what a child said about itself.
func said(stderr string) error {
	line, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
	if line == "" {
		return nil
	}
	return errors.New(line)
}

// greet answers each connection to an address of its own with a byte.
func greet() (net.Listener, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte{1}) //nolint:errcheck // who is not reached says so
			conn.Close()          //nolint:errcheck // see above
		}
	}()
	return l, nil
}

// probeMain is the child: it prints what is wrong, as a list of predicates.
func probeMain(order string) int {
	var a attempt
	if json.Unmarshal([]byte(order), &a) != nil {
		return 2
	}
	if json.NewEncoder(os.Stdout).Encode(a.wrong()) != nil {
		return 1
	}
	return 0
}

func (a attempt) wrong() []string {
	wrong := []string{}
	add := func(bad bool, what string) {
		if bad {
			wrong = append(wrong, what)
		}
	}
	add(os.WriteFile(a.Write, []byte("x"), 0o600) != nil, "cannot write where it should")
	add(readable(a.Shut), "can read the worker's files")
	// In a namespace of its own the number is another's: the worker is process 1
	// in its image, and the keeper is here.
	if ownPIDs() == a.PIDs {
		add(readable("/proc/"+strconv.Itoa(a.Worker)+"/environ"), "can read the worker's environment")
		add(syscall.Kill(a.Worker, 0) == nil, "can send signals to the worker")
	}
	add(!reaches(a.Open), "cannot reach the proxy")
	add(a.Closed != "" && reaches(a.Closed), "can reach other addresses of the machine than the proxy's")
	return wrong
}

// ownPIDs names the namespace of this process's numbers; empty if it cannot be told.
func ownPIDs() string {
	name, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return name
}

func readable(path string) bool {
	f, err := os.Open(path) //nolint:gosec // that is the question
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only opened
	_, err = f.Read(make([]byte, 1))
	return err == nil
}

func reaches(address string) bool {
	conn, err := net.DialTimeout("tcp4", address, probeTimeout/4) //nolint:noctx // it has a timeout
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // it was only read from
	if conn.SetReadDeadline(time.Now().Add(probeTimeout/4)) != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 1))
	return n == 1 && err == nil
}
