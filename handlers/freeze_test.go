package handlers_test

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// TestFrozenWorkerBlamesNobody: a build that was ended since the worker was
// frozen has not failed.
func TestFrozenWorkerBlamesNobody(t *testing.T) {
	w := newWorld(t)
	w.step = func(name string) {
		if name == "build" {
			w.runner.Silence, w.runner.Heartbeat = 3*time.Second, time.Hour
		}
	}
	m := w.message("t", "c-1", "page WAIT")
	if f := w.refuse(m); f.Permanent || f.Code != protocol.Internal {
		t.Errorf("got %+v", f)
	}
	if e := w.entry(); e.Tries != 1 || e.Blamed {
		t.Errorf("entry %+v", e)
	}
}
