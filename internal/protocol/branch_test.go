package protocol_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func TestBranch(t *testing.T) {
	for id, want := range map[string]string{
		"123":                              "thread-123",
		"thread-123":                       "thread-123",
		"thread-":                          "thread-",
		"Thread-1":                         "thread-Thread-1",
		"thread-thread-1":                  "thread-thread-1",
		"a_b.c@d+e=f":                      "thread-a_b.c@d+e=f",
		"-x":                               "thread--x",
		".x":                               "thread-.x",
		"@":                                "thread-@",
		"HEAD":                             "thread-HEAD",
		"18c2a5f0b1d2e3f4":                 "thread-18c2a5f0b1d2e3f4",
		"user-1760000000":                  "thread-user-1760000000",
		"thread-18c2a5f0b1d2e3f4":          "thread-18c2a5f0b1d2e3f4",
		"0b7c8a52-5a3b-4f0e-9c1d-2e3f4":    "thread-0b7c8a52-5a3b-4f0e-9c1d-2e3f4",
		"a b":                              "thread-a-b-c8687a08aa5d6ed",
		"a/b":                              "thread-a-b-c14cddc033f64b9",
		"thread-a b":                       "thread-a-b-3b513fa8e00e15b",
		"..":                               "thread---5ec1f7e700f37c3",
		"x.":                               "thread-x--c92f00b196e2fb0",
		"x...":                             "",
		"x.lock":                           "thread-x-lock-f53b5310e1aea3b",
		"x.LOCK":                           "",
		"x.lock.":                          "",
		"x@{1}":                            "",
		"é":                                "",
		"a\xffb":                           "",
		"a-0123456789abcde":                "", // looks like one with a hash
		strings.Repeat("a", 256):           "",
		strings.Repeat(".", 256):           "",
		strings.Repeat("a", 152) + ".lock": "",
	} {
		got := protocol.Branch(id)
		if want != "" && got != want {
			t.Errorf("Branch(%q) = %q; want %q", id, got, want)
		}
		gitTakes(t.Context(), t, got)
	}
}

// gitTakes asks git itself.
func gitTakes(ctx context.Context, t rapid.TB, branch string) {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatalf("git is missing: run make setup")
	}
	if out, err := exec.CommandContext(ctx, git, "check-ref-format", "--branch", branch).CombinedOutput(); err != nil {
		t.Fatalf("git refuses %q: %v %s", branch, err, out)
	}
	if len(branch) > 176 || !strings.HasPrefix(branch, "thread-") || strings.Contains(branch, "/") {
		t.Fatalf("branch %q", branch)
	}
}

func threadIDs() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOf(rapid.RuneFrom([]rune(`.@{}~^:?*[\/ -=lock`))),
		rapid.Custom(func(t *rapid.T) string {
			return rapid.StringOf(rapid.RuneFrom([]rune("a.é"))).Draw(t, "stem") + rapid.SampledFrom([]string{".lock", "..", ".", "@{", "/", "-"}).Draw(t, "end")
		}),
	)
}

func TestGitTakesEveryBranch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gitTakes(t.Context(), t, protocol.Branch(threadIDs().Draw(t, "id")))
	})
}

// TestThreadsShareNoBranch: two ids have two branches, unless one is the other
// with its prefix. The second id is often the first one's branch, which is what
// somebody would send who wanted to write there.
func TestThreadsShareNoBranch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := threadIDs().Draw(t, "a")
		b := rapid.OneOf(threadIDs(), rapid.SampledFrom([]string{
			protocol.Branch(a), strings.TrimPrefix(protocol.Branch(a), "thread-"), strings.ToUpper(a), a + ".", a + "-",
		})).Draw(t, "b")
		plain := protocol.Branch(a) == a || protocol.Branch(a) == "thread-"+a
		if a == b || plain && strings.TrimPrefix(a, "thread-") == strings.TrimPrefix(b, "thread-") {
			return
		}
		if protocol.Branch(a) == protocol.Branch(b) {
			t.Fatalf("%q and %q share %q", a, b, protocol.Branch(a))
		}
	})
}
