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
	WallOff Wall = "off" // children run as the worker, and may do what it may
)

// launch is what the keeper starts: the program itself, or what leads to it
// through the wall.
type launch struct {
	path string
	argv []string
	attr *syscall.ProcAttr
}

// launch returns how the child is started behind its wall.
func (s spec) launch() (launch, error) {
	plain := launch{
		path: s.Program,
		argv: append([]string{s.Program}, s.Args...),
		attr: &syscall.ProcAttr{
			Env:   os.Environ(), //nolint:forbidigo // the keeper's environment is what the worker chose for the child
			Files: []uintptr{0, 1, 2},
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		},
	}
	if s.Access == nil {
		return plain, nil
	}
	switch s.Wall {
	case WallOff, "":
		return plain, nil
	default:
		return launch{}, fmt.Errorf("unknown wall %q", s.Wall)
	}
}
