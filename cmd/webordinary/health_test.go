package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

var amelia = protocol.Pair{ProjectID: "amelia", UserID: "scott"}

// beating runs a heartbeat in a synctest bubble until the func it returns is
// called. A test waits 1 s first, so that the ticks are over when it looks.
func beating(t *testing.T, path string) (*heartbeat, func()) {
	t.Helper()
	c := &config{AgentTimeout: 30 * time.Minute, BuildTimeout: 10 * time.Minute}
	h := newHeartbeat(path, c.stepLimit, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { h.Run(ctx); close(ended) }()
	<-time.After(time.Second)
	synctest.Wait()
	return h, func() { cancel(); <-ended }
}

// pass lets time go by, and the heartbeat write.
func pass(d time.Duration) { <-time.After(d); synctest.Wait() }

// health judges the file as the subcommand does.
func health(t *testing.T, path string) (string, error) {
	t.Helper()
	p, err := readPulse(path)
	if err != nil {
		return "", err
	}
	return p.judge(time.Now())
}

func TestHealthFollowsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "heartbeat")
		h, stop := beating(t, path)
		defer stop()
		for _, tt := range []struct {
			step string
			want string // after 10 s
		}{
			{"", "the worker lives: waiting for a project"},
			{"claim", "the worker lives: amelia#scott idle since 2000-01-01 00:00:11 UTC, for 10s"},
			{"workspace", `the worker lives: amelia#scott in step workspace of command "c1" since 2000-01-01 00:00:21 UTC, for 10s`},
			{"agent", `the worker lives: amelia#scott in step agent of command "c1" since 2000-01-01 00:00:31 UTC, for 10s`},
			{"done", "the worker lives: amelia#scott idle since 2000-01-01 00:00:41 UTC, for 10s"},
			{"release", "the worker lives: waiting for a project"},
		} {
			if tt.step != "" {
				h.Step(handlers.Step{Pair: amelia, CommandID: "c1", Name: tt.step})
			}
			pass(10 * time.Second)
			if got, err := health(t, path); got != tt.want || err != nil {
				t.Errorf("after %q: %q, %v; want %q", tt.step, got, err, tt.want)
			}
		}
		if files, err := os.ReadDir(filepath.Dir(path)); len(files) != 1 || err != nil {
			t.Errorf("files beside the heartbeat: %v, %v", files, err)
		}
	})
}

func TestHealthSaysWhatIsStuck(t *testing.T) {
	for _, tt := range []struct {
		step  string
		limit time.Duration
		want  string
	}{
		{"agent", 35 * time.Minute, "35m1s (it may take 35m0s)"},
		{"build", 25 * time.Minute, "25m1s (it may take 25m0s)"},
		{"push", 15 * time.Minute, "15m1s (it may take 15m0s)"},
	} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "heartbeat")
			h, stop := beating(t, path)
			defer stop()
			h.Step(handlers.Step{Pair: protocol.Pair{ProjectID: "other", UserID: "user"}, Name: "claim"})
			h.Step(handlers.Step{Pair: amelia, CommandID: "c1", Name: tt.step})
			pass(tt.limit)
			if got, err := health(t, path); err != nil {
				t.Errorf("%s at its limit: %q, %v", tt.step, got, err)
			}
			pass(time.Second)
			_, err := health(t, path)
			want := `the worker lives, but is stuck: amelia#scott in step ` + tt.step + ` of command "c1" since 2000-01-01 00:00:01 UTC, for ` + tt.want
			if err == nil || err.Error() != want {
				t.Errorf("%s behind its limit: %v\nwant %s", tt.step, err, want)
			}
		})
	}
}

func TestHealthNoticesTheEndOfAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "heartbeat")
		h, stop := beating(t, path)
		h.Step(handlers.Step{Pair: amelia, CommandID: "c1", Name: "build"})
		pass(10 * time.Second)
		frozen, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := health(t, path); err == nil || !strings.Contains(err.Error(), path+" is not there") {
			t.Errorf("a worker that has ended: %v", err)
		}

		// A frozen worker leaves the file as it was.
		if err := os.WriteFile(path, frozen, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(89 * time.Second) // 90 s after the last beat
		if got, err := health(t, path); err != nil {
			t.Errorf("after 90 s: %q, %v", got, err)
		}
		pass(time.Second)
		_, err = health(t, path)
		const want = `the worker is stuck: its last heartbeat was at 2000-01-01 00:00:10 UTC, 1m31s ago; then it was amelia#scott in step build of command "c1" since 2000-01-01 00:00:01 UTC, for 1m40s`
		if err == nil || err.Error() != want {
			t.Errorf("after 91 s: %v\nwant %s", err, want)
		}
	})
}

func TestHeartbeatGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "later")
		path := filepath.Join(dir, "heartbeat")
		_, stop := beating(t, path)
		defer stop()
		if _, err := health(t, path); err == nil {
			t.Error("healthy without a file")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if _, err := health(t, path); err != nil {
			t.Error(err)
		}
	})
}

func TestUnreadableHeartbeat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "heartbeat")
	for _, body := range []string{"", "{}", "null", "[", `{"time":"yesterday"}`} {
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := health(t, path); err == nil || !strings.Contains(err.Error(), "was not written by") {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// TestPulseIsStable: operators read the file too.
func TestPulseIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "heartbeat")
		h, stop := beating(t, path)
		defer stop()
		h.Step(handlers.Step{Pair: amelia, CommandID: "c1", Name: "push"})
		got, err := json.Marshal(h.pulse())
		const want = `{"time":"2000-01-01T00:00:01Z","every":"10s","claims":[{"project":"amelia#scott","state":"working","command":"c1","step":"push","since":"2000-01-01T00:00:01Z","limit":"15m0s"}]}`
		if string(got) != want || err != nil {
			t.Errorf("pulse %s, %v\nwant %s", got, err, want)
		}
	})
}
