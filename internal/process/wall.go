package process

import (
	"fmt"
	"os"
	"syscall"
)

// Wall is what stands between a child with an Access and the rest of the machine.
type Wall string

// The walls.
const (
	WallOff        Wall = "off"        // children run as the worker, and may do what it may
	WallBubblewrap Wall = "bubblewrap" // namespaces of their own, made by bwrap
	WallUsers      Wall = "users"      // a user of the pair's own, entered through the setuid keeper
	WallLandlock   Wall = "landlock"   // the worker's user, held by Landlock and a filter of system calls
)

// Walls are all walls, the best one first.
func Walls() []Wall { return []Wall{WallBubblewrap, WallUsers, WallLandlock} }

// Leaves says what a wall leaves open, in a sentence or two for an operator.
func (w Wall) Leaves() string {
	switch w {
	case WallBubblewrap:
		return "It shares the kernel with the worker, and its processors."
	case WallUsers:
		const seen = "Agent and npm are a user of their own: they see which processes there are, with their names and arguments. "
		if landlockVersion() >= leastLandlock {
			return seen + "They can connect to the proxy's port on any host: let a security group close all but what the worker needs."
		}
		return seen + "The kernel has no Landlock for them: they can write to /tmp, and connect to all that the container can. " +
			"Let a security group close all but what the worker needs, and give the task's role nothing else."
	case WallLandlock:
		return "The child is the worker's user: it sees which files and processes there are, with their sizes, names and arguments, " +
			"and can change modes and times of the worker's files, though it reads and writes none. " +
			"It can connect to the proxy's port on any host: let a security group close all but what the worker needs."
	case WallOff:
	}
	return "Agent and npm may do all that the worker's user may, can read its secrets, and are held to what they may reach by their environment alone."
}

// launch is what the keeper starts: the program itself, or what leads to it
// through the wall.
type launch struct {
	path string
	argv []string
	attr *syscall.ProcAttr
	// told is where the second stage says what came of it; nil if there is none.
	told *os.File
	// outlet gets the listener of the child's network, whose connections go on
	// to the proxy; nil if the child uses the worker's network.
	outlet *os.File
	// spares is set if what is started is not the program but its namespace's
	// parent: TERM, which is for the program, would end all at once.
	spares bool
	// feed tells the second stage what to do, once it is started; nil if its
	// arguments do.
	feed  func()
	files []*os.File // to be closed once it is started
}

func (l *launch) close() {
	for _, f := range l.files {
		f.Close() //nolint:errcheck // nothing of ours was written
	}
}

// pass gives the child the next descriptor.
func (l *launch) pass(f *os.File) {
	l.attr.Files = append(l.attr.Files, f.Fd())
	l.files = append(l.files, f)
}

// launch returns how the child is started behind its wall.
func (s spec) launch() (*launch, error) {
	l := &launch{
		path: s.Program,
		argv: append([]string{s.Program}, s.Args...),
		attr: &syscall.ProcAttr{
			Env:   os.Environ(), //nolint:forbidigo // the keeper's environment is what the worker chose for the child
			Files: []uintptr{0, 1, 2},
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		},
	}
	if s.Access == nil {
		return l, nil
	}
	switch s.Wall {
	case WallOff, "":
		return l, nil
	case WallBubblewrap:
		return l, s.bubblewrap(l)
	case WallUsers:
		return l, s.users(l)
	case WallLandlock:
		l.path, l.argv = "/proc/self/exe", s.enter()
		return l, l.listen()
	default:
		return nil, fmt.Errorf("unknown wall %q", s.Wall)
	}
}
