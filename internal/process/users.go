package process

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wall of users gives each pair a user and a group of its own. The keeper,
// installed setuid, is the only one who can become that user; so it is the only
// program here that trusts nobody: not its environment, its descriptors, its
// arguments, or what a child left in the pair's directories.
//
// It has three forms, one after the other:
//
//	admission   as root: who calls? Nothing of the caller's is read yet
//	keeper      as the worker's user, with the few capabilities in keeps: it
//	            ends the pair's processes, sets owners, starts the next, stays
//	second      as the pair, with nothing: it becomes the program
//
// The keeper is not the pair's user, so that no child can signal or trace it.

// The users of pairs are firstUser and the 2^30 - 1 above it. Whoever is below is
// of the machine, the worker among them.
const (
	firstUser = 1 << 16
	lastUser  = firstUser + 1<<30 - 1
	// nobodys is a user that is never anybody's, as which the keeper is not to be
	// signalled while it signals.
	nobodys = firstUser - 1
)

// UserID returns the user and group id of a pair, "{projectId}#{userId}".
func UserID(pair string) int {
	sum := sha256.Sum256([]byte(pair))
	return firstUser + int(binary.BigEndian.Uint32(sum[:4])>>2)
}

// keeps are the capabilities of the keeper, with what each is for.
func keeps() map[uint]string {
	return map[uint]string{
		unix.CAP_KILL:         "KILL",         // to end the pair's processes
		unix.CAP_SETUID:       "SETUID",       // to become the pair
		unix.CAP_SETGID:       "SETGID",       //
		unix.CAP_CHOWN:        "CHOWN",        // to hand over what the worker wrote
		unix.CAP_FOWNER:       "FOWNER",       // and to open what the child closed
		unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE", //
	}
}

// raised reports whether this is the setuid keeper.
func raised() bool { return os.Geteuid() == 0 && os.Getuid() != 0 }

// caller is who may use the setuid keeper: the worker.
type caller struct{ uid, gid int }

// admit finds out whether the caller is the worker. Who that is, the installed
// file says: it belongs to root and to the worker's group, and nobody else may
// execute it. A child is of neither, whatever file it finds.
func admit() (caller, error) {
	os.Clearenv()
	c := caller{uid: os.Getuid(), gid: os.Getgid()}
	var self unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &self); err != nil {
		return c, fmt.Errorf("look at the keeper's file: %w", err)
	}
	switch mode := self.Mode & 0o7777; {
	case self.Uid != 0 || mode != 0o4750:
		return c, fmt.Errorf("it must be installed with owner root and mode 4750; it has owner %d and mode %o", self.Uid, mode)
	case c.uid == 0 || c.uid >= nobodys || self.Gid == 0 || c.gid != int(self.Gid):
		return c, fmt.Errorf("it serves a worker of group %d; user %d of group %d is not one", self.Gid, c.uid, c.gid)
	}
	return c, nil
}

// drop turns the keeper into the worker's user with the capabilities that it
// keeps, in all threads.
func (c caller) drop() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	if errno == unix.ENOTSUP {
		return errors.New("the keeper was built with cgo; build it with CGO_ENABLED=0")
	}
	if errno != 0 {
		return fmt.Errorf("keep capabilities: %w", errno)
	}
	err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(c.gid, c.gid, c.gid), syscall.Setresuid(c.uid, c.uid, c.uid))
	if err != nil {
		return fmt.Errorf("become the worker's user: %w", err)
	}
	set, missing := heldCapabilities()
	if len(missing) > 0 {
		return fmt.Errorf("the container has not the capabilities %s; the keeper needs them", strings.Join(missing, ", "))
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_, _, errno = syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&set[0])), 0) //nolint:gosec // the kernel wants addresses
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// heldCapabilities returns what the keeper keeps as the kernel wants it, and the
// names of what it does not have.
func heldCapabilities() (*[2]unix.CapUserData, []string) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have, set [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return &set, []string{err.Error()}
	}
	var missing []string
	for n, name := range keeps() { // all below 32
		set[0].Permitted |= 1 << n
		set[0].Effective |= 1 << n
		if have[0].Permitted&(1<<n) == 0 {
			missing = append(missing, name)
		}
	}
	return &set, missing
}

// usersArg calls the setuid keeper's first stage.
const usersArg = "users"

// refuse says why there is no wall: to the worker, if it is one that called, and
// to whoever else did.
func refuse(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "keeper:", err)                                                           //nolint:errcheck // nobody else to tell
	json.NewEncoder(os.NewFile(statusFD, "status")).Encode(record{Wall: "keeper: " + err.Error()}) //nolint:errcheck // it may not be open
	return 2
}

// raisedMain is the setuid keeper. The argument "users" makes it the first stage,
// "enter PAIR" the second.
func raisedMain(args []string, stderr io.Writer) int {
	c, err := admit()
	if err != nil {
		return refuse(stderr, err)
	}
	if len(args) == 2 && args[0] == enterArg {
		return becomePair(UserID(args[1]))
	}
	if len(args) != 1 || args[0] != usersArg {
		return refuse(stderr, errors.New("it is started by webordinary, not by hand"))
	}
	if err := errors.Join(c.drop(), supervisor()); err != nil {
		return refuse(stderr, err)
	}
	control := os.NewFile(controlFD, "control")
	s, err := readSpec(control)
	k := newKeeper(control, s)
	if err != nil || s.Wall != WallUsers || s.Access == nil || s.Access.Pair == "" {
		k.tell(record{Wall: "keeper: it was told nothing that it may do"})
		return 2
	}
	s.pair = &pairUser{id: UserID(s.Access.Pair), worker: c, access: *s.Access}
	k.pair = s.pair
	if s.Mend {
		rec := record{Ended: true}
		if err := errors.Join(s.pair.endAll(), s.pair.settle(s.Deep)); err != nil {
			rec = record{Wall: err.Error()}
		}
		k.tell(rec)
		return 0
	}
	k.run(s)
	return 0
}

// A spec is written to the setuid keeper before the orders: arguments are seen by
// everyone on the machine. It is preceded by its length.
const maxSpec = 1 << 20

func writeSpec(w io.Writer, s spec) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(text) > maxSpec {
		return fmt.Errorf("arguments and environment have %d bytes; %d are possible", len(text), maxSpec)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)) //nolint:gosec // see above
	return err
}

func readSpec(r io.Reader) (spec, error) {
	var (
		s    spec
		size [4]byte
	)
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return s, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxSpec {
		return s, errors.New("the spec is too long")
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// The descriptors of the second stage, besides the program's own.
const (
	enterSpecFD = 3
	enterToldFD = 4
)

// becomePair is the second stage: it gives up all it has, and becomes the
// program. It returns only if it cannot. Nothing is read before it is the pair.
func becomePair(id int) int {
	told := os.NewFile(enterToldFD, "told")
	tell := func(r record) int {
		json.NewEncoder(told).Encode(r) //nolint:errcheck // the first stage is gone
		return 1
	}
	runtime.LockOSThread() // users are of a thread until it executes the program
	if err := forsake(id); err != nil {
		return tell(record{Wall: err.Error()})
	}
	syscall.Umask(0o007)
	from := os.NewFile(enterSpecFD, "spec")
	s, err := readSpec(from)
	if err != nil {
		return tell(record{Wall: "the second stage was told nothing: " + err.Error()})
	}
	if err := unix.CloseRange(enterSpecFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return tell(record{Wall: err.Error()})
	}
	if err := s.confineUser(); err != nil {
		return tell(record{Wall: err.Error()})
	}
	err = syscall.Exec(s.Program, append([]string{s.Program}, s.Args...), s.Env) //nolint:gosec // it is what the second stage is for
	return tell(record{Error: fmt.Sprintf("%s: %v", filepath.Base(s.Program), err)})
}

// forsake makes this thread the pair's, without a way back.
func forsake(id int) error {
	if id < firstUser || id > lastUser {
		return fmt.Errorf("%d is nobody's user", id)
	}
	if err := threadIDs(unix.SYS_SETGROUPS, 0, 0, 0); err != nil {
		return fmt.Errorf("give up groups: %w", err)
	}
	if err := threadIDs(unix.SYS_SETRESGID, id, id, id); err != nil {
		return fmt.Errorf("become the pair's group: %w", err)
	}
	// The bounding set can only be changed by root, and before.
	for c := range uintptr(64) {
		unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) //nolint:errcheck // without it no_new_privs keeps them away
	}
	if err := threadIDs(unix.SYS_SETRESUID, id, id, id); err != nil {
		return fmt.Errorf("become the pair's user: %w", err)
	}
	if err := loseCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if threadIDs(unix.SYS_SETRESUID, 0, 0, 0) == nil {
		return errors.New("root could be had back")
	}
	return nil
}

// threadIDs sets ids of this thread only; the standard library would set them in
// all.
func threadIDs(call uintptr, a, b, c int) error {
	if _, _, errno := unix.RawSyscall(call, uintptr(a), uintptr(b), uintptr(c)); errno != 0 {
		return errno
	}
	return nil
}

// loseCapabilities gives up all capabilities of this thread, and looks.
func loseCapabilities() error {
	var none, have [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if err := unix.Capget(&header, &have[0]); err != nil || have != none {
		return errors.Join(err, errors.New("capabilities are left"))
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// users returns how the second stage is started: as root again, since the pair may
// not execute the keeper.
func (s spec) users(l *launch) error {
	if s.pair == nil {
		return errors.New("the wall of users is entered through the setuid keeper, by a worker that is not root")
	}
	if err := errors.Join(s.pair.endAll(), s.pair.takeStreams(), s.pair.settle(false)); err != nil {
		return err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	told, toldW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, from.Close(), to.Close())
	}
	l.path, l.argv, l.attr.Env = "/proc/self/exe", []string{"keeper", enterArg, s.Access.Pair}, []string{}
	l.pass(from)
	l.pass(toldW)
	l.told = told
	l.feed = func() {
		defer to.Close() //nolint:errcheck // its end is seen
		writeSpec(to, s) //nolint:errcheck // then the child is gone, and its end says why
	}
	return nil
}

// confineUser adds to what the user may not what the kernel has of Landlock, and
// the filter of system calls.
func (s spec) confineUser() error {
	// As many for the pair as the worker's user has beyond its own.
	if err := lower(unix.RLIMIT_NPROC, spareTasks, true); err != nil {
		return err
	}
	v := landlockVersion()
	if v > 0 {
		if err := s.restrict(); err != nil {
			return err
		}
	}
	return filterCalls(v >= resolvesUnix)
}
