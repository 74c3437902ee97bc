package processtest

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/webordinary/claude-code-container/internal/process"
)

// WorkerID is the user and group of an unprivileged worker in tests.
const WorkerID = 64001

// Users is the wall of users on this machine: a keeper that is installed setuid
// for an unprivileged worker, and a directory for its files that all may pass
// through.
type Users struct {
	Dir    string // the worker's
	Keeper string // installed setuid
}

// NewUsers installs the keeper. A test that is not root cannot, and fails.
func NewUsers(tb testing.TB) Users {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Fatal("the wall of users installs a setuid program: run this test as root")
	}
	dir, err := os.MkdirTemp("", "users-") //nolint:usetesting // the test's own directory is closed to others
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // what is left is in a temporary directory
	u := Users{Dir: filepath.Join(dir, "worker"), Keeper: filepath.Join(dir, "keeper")}
	built := Build(tb, "github.com/webordinary/claude-code-container/cmd/keeper")
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	u.Install(tb, built, u.Keeper, 0o4750)
	u.Mkdir(tb, "", 0o755)
	return u
}

// Install copies a program, which then belongs to root and the worker's group.
// The mode is as chmod(1) has it.
func (u Users) Install(tb testing.TB, from, to string, mode uint32) {
	tb.Helper()
	install := exec.CommandContext(tb.Context(), "install", "-o", "0", "-g", strconv.Itoa(WorkerID), "-m", strconv.FormatUint(uint64(mode), 8), from, to)
	if msg, err := install.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", install.Args, err, msg)
	}
}

// Mkdir makes a directory of the worker's, below its own, and returns its path.
func (u Users) Mkdir(tb testing.TB, name string, perm fs.FileMode) string {
	tb.Helper()
	path := filepath.Join(u.Dir, name)
	for _, err := range []error{os.MkdirAll(path, perm), os.Chmod(path, perm), os.Chown(path, WorkerID, WorkerID)} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return path
}

// As is what makes a command run as a user and group: its first words. The options
// are of setpriv, which itself has yet what root may; so env starts the command.
func As(id int, options ...string) []string {
	n := strconv.Itoa(id)
	return slices.Concat([]string{"setpriv", "--reuid=" + n, "--regid=" + n, "--clear-groups"}, options, []string{"env"})
}

// Runner is a runner whose keeper believes to be called by the unprivileged
// worker.
func (u Users) Runner(tb testing.TB) *process.Runner {
	tb.Helper()
	r := Runner(tb)
	r.Wall, r.Setuid = process.WallUsers, append(As(WorkerID), u.Keeper)
	return r
}
