package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterArg makes the keeper its own second stage: it goes through the wall, and
// starts the program on the other side. The first stage stays outside, where the
// program can neither signal nor read it.
const enterArg = "enter"

// The descriptors that the first stage hands to the second.
const (
	toldFD   = 3
	outletFD = 4
)

// enter is how the second stage is called.
func (s spec) enter() []string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it was read from JSON
	}
	return append(slices.Clone(s.keeper), enterArg, string(text))
}

// listen opens the pipe by which the second stage tells.
func (l *launch) listen() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	l.told = r
	l.pass(w)
	return nil
}

// ending is what the second stage told, if it did, and else how the child ended.
// It is called when nothing of the tree is left, so that the pipe has its end.
func (l *launch) ending(rec record) record {
	text, err := io.ReadAll(l.told)
	var told record
	switch {
	case err != nil:
		return record{Wall: err.Error()}
	case len(text) > 0 && json.Unmarshal(text, &told) == nil:
		told.Silent = rec.Silent && told.Signal != 0
		return told
	case l.spares && rec.Signal == 0:
		return record{Wall: fmt.Sprintf("%s ended with code %d; its reason is in the child's stderr", filepath.Base(l.path), rec.Exit)}
	}
	return rec
}

// enterMain is the second stage. It returns only if the program is not started in
// its place.
func enterMain(text string) int {
	runtime.LockOSThread() // walls are of a thread until it executes the program
	told := os.NewFile(toldFD, "told")
	tell := func(r record) int {
		json.NewEncoder(told).Encode(r) //nolint:errcheck // the first stage is gone
		return 1
	}
	var s spec
	if json.Unmarshal([]byte(text), &s) != nil || s.Access == nil {
		return tell(record{Wall: "the keeper's second stage was called wrongly"})
	}
	if err := unix.CloseRange(toldFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return tell(record{Wall: err.Error()})
	}
	if s.Wall == WallBubblewrap {
		return tell(s.first())
	}
	if err := errors.Join(dropPrivileges(), s.landlock(), filterCalls(landlockVersion() >= resolvesUnix)); err != nil {
		return tell(record{Wall: err.Error()})
	}
	err := syscall.Exec(s.Program, append([]string{s.Program}, s.Args...), os.Environ()) //nolint:gosec,forbidigo // it is what the second stage is for
	return tell(record{Error: fmt.Sprintf("%s: %v", filepath.Base(s.Program), err)})
}

// first is process 1 of the child's namespace: when it returns, the kernel ends
// all that is left there.
func (s spec) first() record {
	// What it holds is not the child's.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return record{Wall: err.Error()}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	if s.Access.Proxy != "" {
		if err := handOut(outletFD, s.Access.Proxy); err != nil {
			return record{Wall: "the way to the proxy: " + err.Error()}
		}
	}
	syscall.Close(outletFD) //nolint:errcheck // nothing was written that matters
	env := os.Environ()     //nolint:forbidigo // it is what the worker chose for the child
	if !s.PWD {
		env = slices.DeleteFunc(env, isPWD)
	}
	// Some kinds of sockets know no namespaces. The program inherits the filter.
	if err := filterCalls(true); err != nil {
		return record{Wall: err.Error()}
	}
	child, err := syscall.ForkExec(s.Program, append([]string{s.Program}, s.Args...), &syscall.ProcAttr{ //nolint:gosec // to start it is what it is for
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return record{Error: fmt.Sprintf("%s: %v", filepath.Base(s.Program), err)}
	}
	closeInherited()
	for {
		var ws syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &ws, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return record{Wall: err.Error()}
		case pid == child:
			return ending(ws)
		}
	}
}
