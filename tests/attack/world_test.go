package attack

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

const (
	workerUID = 1000 // the worker's user and group
	model     = "claude-sonnet-4-5-20250929"
	metadata  = "169.254.169.254:80"
	outside   = "198.51.100.7:443" // an address for documentation: no host has it
	patience  = 2 * time.Minute
)

// world is a machine for one worker: a network of its own in which all that the
// worker could reach is a server of the test, files of its own, and secrets.
type world struct {
	t     *testing.T
	model *modelserver.Server
	git   *gitserver.Server
	front *front
	mark  string // a name that no other world has
	// network is the world's. A test of a test has a thread of its own.
	network *os.File
	// oldKernel is set if the worker's kernel has no Landlock.
	oldKernel bool

	dir, home, state, sockets string
	secrets                   map[string]string
}

// newWorld makes a world for the goroutine that calls it, whose thread goes into
// the world's network and ends with the test.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, secrets: map[string]string{}, mark: "m" + random(), network: enterNetwork(t)}
	for _, of := range []string{"github", "anthropic", "aws", "home", "victim", "transcript", "argument", "shared"} {
		w.secrets[of] = "canary-" + of + "-" + random()
	}
	w.model, w.git = modelserver.Start(t), gitserver.Start(t)
	w.git.SetToken(w.secrets["github"])
	w.front = startFront(t, w.git)

	var err error
	if w.dir, err = os.MkdirTemp("", "attack-world-"); err != nil { //nolint:usetesting // the test's own directory is closed to the worker's user
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(w.dir) }) //nolint:errcheck // a temporary directory
	w.home, w.state, w.sockets = filepath.Join(w.dir, "home"), filepath.Join(w.dir, "state"), filepath.Join(w.dir, "sockets")
	w.must(os.Chmod(w.dir, 0o755))
	for _, d := range []string{w.home, filepath.Join(w.home, ".aws"), w.state, w.tmp(), w.sockets} {
		w.must(os.Mkdir(d, 0o711))
		w.must(os.Chown(d, workerUID, workerUID))
	}
	w.must(os.WriteFile(filepath.Join(w.home, ".aws", "credentials"), []byte(w.secrets["home"]), 0o600))
	w.must(os.Chown(filepath.Join(w.home, ".aws", "credentials"), workerUID, workerUID))
	w.listen()
	return w
}

func random() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tmp() string { return filepath.Join(w.dir, "tmp") }

// project is a project's id, which no other world has: whoever enters the user of a
// pair ends all its processes, on the whole machine.
func (w *world) project(name string) string { return name + w.mark }

// pair is the directory of a project and user.
func (w *world) pair(name, userID string) string {
	return filepath.Join(w.state, "workspace", w.project(name)+"-"+userID)
}

// enterNetwork takes the calling goroutine's thread into a new network, whose
// loopback device has the addresses of the world.
func enterNetwork(t *testing.T) *os.File {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread is of no use to others
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal("no network namespace:", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s) //nolint:errcheck // only asked
	for name, address := range map[string][]byte{"lo": {127, 0, 0, 1}, "lo:1": {169, 254, 169, 254}, "lo:2": {198, 51, 100, 7}} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.SetInet4Addr(address); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlIfreq(s, unix.SIOCSIFADDR, r); err != nil {
			t.Fatalf("address of %s: %v", name, err)
		}
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
			t.Fatalf("%s up: %v", name, err)
		}
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) //nolint:errcheck // only named
	return f
}

// listen starts what an attacker would like to reach.
func (w *world) listen() {
	w.t.Helper()
	greet := func(l net.Listener) {
		w.t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "200 you reached me\n") //nolint:errcheck // the attacker may be gone
				c.Close()                                 //nolint:errcheck // as above
			}
		}()
	}
	for _, at := range []struct{ network, address string }{
		{"tcp", metadata}, {"tcp", outside}, {"unix", filepath.Join(w.sockets, "machine")}, {"unix", "@" + w.mark},
	} {
		l, err := net.Listen(at.network, at.address) //nolint:noctx // it ends with the test
		w.must(err)
		greet(l)
	}
	w.must(os.Chmod(filepath.Join(w.sockets, "machine"), 0o777))
	p, err := net.ListenPacket("udp", outside) //nolint:noctx // it ends with the test
	w.must(err)
	w.t.Cleanup(func() { p.Close() }) //nolint:errcheck // the test is over
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo([]byte("200 you reached me\n"), from) //nolint:errcheck // the attacker may be gone
		}
	}()
}

// front is what the worker knows as the git server.
type front struct {
	host      string
	git       *gitserver.Server
	hang      chan struct{}          // closed when a fetch of slow.git may go on
	hangs     chan struct{}          // closed when it has begun
	elsewhere atomic.Pointer[string] // where moved.git is said to be
}

func startFront(t *testing.T, git *gitserver.Server) *front {
	t.Helper()
	f := &front{git: git, hang: make(chan struct{}), hangs: make(chan struct{})}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.host = strings.TrimPrefix(s.URL, "http://")
	return f
}

func (f *front) url(repo string) string { return fmt.Sprintf("http://%s/%s", f.host, repo) }

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if to := f.elsewhere.Load(); to != nil && strings.HasPrefix(r.URL.Path, "/moved.git") {
		http.Redirect(w, r, *to+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/slow.git/git-upload-pack") {
		select {
		case <-f.hangs:
		default:
			close(f.hangs)
		}
		select {
		case <-f.hang:
		case <-r.Context().Done():
			return
		}
	}
	f.git.ServeHTTP(w, r)
}
