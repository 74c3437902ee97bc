package platform_test

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// TestSendFollowsTheRow is the orchestrator's rule: the work first, then a claim
// request unless somebody lives.
func TestSendFollowsTheRow(t *testing.T) {
	t.Parallel()
	p := platform.New(t, platform.Options{})
	j := p.AddProject("amelia", "scott")
	for _, step := range []struct {
		status   string
		activity time.Duration // ago
		requests int           // in the queue afterwards
	}{
		{"", 0, 1},
		{"active", 0, 1},
		{"active", 4 * time.Minute, 1},
		{"active", 6 * time.Minute, 2},
		{"releasing", 0, 3},
		{"released", 0, 4},
	} {
		if step.status != "" {
			p.PutRow(j, step.status, time.Now().Add(-step.activity))
		}
		p.Send(p.Command(j, "1", site.Add{}))
		if q, err := p.Queue(p.UnclaimedURL); err != nil || q.Visible != step.requests {
			t.Fatalf("a row %s for %s: %+v requests, want %d (%v)", step.status, step.activity, q, step.requests, err)
		}
	}
	if q, err := p.Queue(j.InputURL); err != nil || q.Visible != 6 {
		t.Errorf("%+v commands, want 6 (%v)", q, err)
	}
}
