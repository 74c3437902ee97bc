package emulators

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared is the set of this process.
var shared ownSet //nolint:gochecknoglobals // one per test process is what it is for

type ownSet struct {
	mu  sync.Mutex
	set *Set
	err error
}

// Main runs the tests of a package and then ends the emulators that they
// started. It returns the exit code for TestMain.
func Main(m *testing.M) int { return Tests{M: m}.Run() }

// Tests is Main for whoever wants to wrap it again, like goleak.VerifyTestMain.
type Tests struct {
	M interface{ Run() int }
}

// Run is Main.
func (t Tests) Run() int {
	code := t.M.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "emulators:", err)
		code = max(code, 1)
	}
	return code
}

// Shared returns the set of this process: the one that the environment names, or
// one that the first caller starts. Names in it come from Unique, since other
// tests use it too.
func Shared(tb testing.TB) *Set {
	tb.Helper()
	set, err := shared.get()
	if err != nil {
		tb.Fatalf("emulators: %v", err)
	}
	return set
}

func (p *ownSet) get() (*Set, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil && p.err == nil {
		if value := os.Getenv(Variable); value != "" {
			p.set, p.err = Attach(value)
		} else {
			p.set, p.err = Start(context.Background(), Options{})
		}
	}
	return p.set, p.err
}

func (p *ownSet) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil {
		return nil
	}
	set := p.set
	p.set = nil
	return set.Close()
}
