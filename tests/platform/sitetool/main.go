// Command sitetool is the scripted agent ("sitetool agent", the instruction on
// stdin) and the build ("sitetool build") of the tests' site. It writes each of
// its runs into the file that RUN_LOG names, if it names one, and watches that nobody else runs in
// the same checkout. Called as npm or node it stands in for them, as far as the
// site needs them: theirs is a second of computing for each command.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform/runlog"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

func main() {
	if err := called(filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sitetool:", err)
		os.Exit(1)
	}
}

// called does what is asked under a name.
func called(name string, args []string) error {
	switch {
	case name == "node":
		_, err := fmt.Println("v20.0.0")
		return err
	case name == "npm" && len(args) > 0 && args[0] == "ci":
		return install()
	case name == "npm" && len(args) == 2 && args[0] == "run":
		return run(args[1:])
	case name == "npm":
		return fmt.Errorf("this npm cannot %v", args)
	}
	return run(args)
}

// install leaves what npm leaves: its list of what is there.
func install() error {
	if err := os.MkdirAll("node_modules", 0o755); err != nil {
		return err
	}
	return os.WriteFile("node_modules/.package-lock.json", []byte("{}\n"), 0o644)
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want agent or build")
	}
	r := runlog.Run{Kind: args[0], Pid: os.Getpid(), Worker: os.Getenv("WORKER_NAME")}
	info, err := os.Stat(".")
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		r.Inode = st.Ino
	}
	if r.Dir, err = os.Getwd(); err != nil {
		return err
	}
	before, err := os.ReadFile(site.Content)
	if err != nil {
		return err
	}
	switch args[0] {
	case "agent":
		return agent(r, string(before))
	case "build":
		return build(r, string(before))
	}
	return fmt.Errorf("%q is neither agent nor build", args[0])
}

// agent carries an instruction out: half of its time before it writes, half of it
// after.
func agent(r runlog.Run, before string) error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	add, err := site.Parse(string(in))
	if err != nil {
		return err
	}
	r.Token = add.Token
	return alone(r, func() error {
		wait(add.Work / 2)
		if err := os.WriteFile(site.Content, []byte(add.Apply(before)), 0o600); err != nil {
			return err
		}
		wait(add.Work / 2)
		_, err := fmt.Println("Added " + add.Token + ".")
		return err
	})
}

func build(r runlog.Run, content string) error {
	add, _ := site.Last(content) // a site that nobody changed builds too
	r.Token = add.Token
	return alone(r, func() error {
		if err := os.RemoveAll("dist"); err != nil {
			return err
		}
		wait(add.Build)
		for name, body := range site.Build(content) {
			path := filepath.Join("dist", name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
				return err
			}
		}
		return publish()
	})
}

// publish copies what is to be served as it is.
func publish() error {
	err := os.CopyFS("dist", os.DirFS("public"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is nothing
	}
	return err
}

// alone logs a run. The lock lies on the checkout itself, wherever it is moved,
// and the kernel drops it with the process: who does not get it is not alone.
func alone(r runlog.Run, work func() error) error {
	name := os.Getenv("RUN_LOG")
	dir, err := os.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // it drops the lock, and so does our end
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		r.Event = runlog.Overlap
		return errors.Join(fmt.Errorf("somebody else works in this checkout: %w", err), runlog.Append(name, r))
	}
	if name == "" {
		return work()
	}
	r.Event = runlog.Start
	if err := runlog.Append(name, r); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	r.Event = runlog.End
	return runlog.Append(name, r)
}

func wait(d time.Duration) { <-time.After(d) }
