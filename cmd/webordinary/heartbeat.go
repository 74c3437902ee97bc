package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// heartbeatEvery is how often the worker says that it lives.
const heartbeatEvery = 10 * time.Second

// pulse is the content of the heartbeat file.
type pulse struct {
	Time   time.Time    `json:"time"`
	Every  string       `json:"every"`
	Claims []claimPulse `json:"claims"`
}

// claimPulse is what is done for one project and user.
type claimPulse struct {
	Project string    `json:"project"` // projectId#userId
	State   string    `json:"state"`   // idle or working
	Command string    `json:"command,omitempty"`
	Step    string    `json:"step,omitempty"`
	Since   time.Time `json:"since"`
	// Limit is how long the step may take; empty means that nobody knows.
	Limit string `json:"limit,omitempty"`
}

// heartbeat writes what the worker does to a file, for health to read. Step may be
// called by several goroutines.
type heartbeat struct {
	path  string
	limit func(step string) time.Duration // zero means none; nil means none for all
	log   *slog.Logger

	mu     sync.Mutex
	claims map[string]claimPulse
}

func newHeartbeat(path string, limit func(step string) time.Duration, log *slog.Logger) *heartbeat {
	return &heartbeat{path: path, limit: limit, log: log, claims: map[string]claimPulse{}}
}

// Step notes what is told of a claim. What the agent does is a part of its step.
func (h *heartbeat) Step(s handlers.Step) {
	if s.Pair == (protocol.Pair{}) || s.Tool != "" {
		return
	}
	key := s.Pair.Key()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch s.Name {
	case handlers.StepReleased:
		delete(h.claims, key)
	case handlers.StepClaimed, handlers.StepDone:
		h.claims[key] = claimPulse{Project: key, State: "idle", Since: time.Now()}
	default:
		c := claimPulse{Project: key, State: "working", Command: s.CommandID, Step: s.Name, Since: time.Now()}
		if h.limit != nil {
			if d := h.limit(s.Name); d > 0 {
				c.Limit = d.String()
			}
		}
		h.claims[key] = c
	}
}

// Run writes at once and then every 10 s, until ctx ends; then it takes the file
// away. A file that cannot be written is logged once and tried again.
func (h *heartbeat) Run(ctx context.Context) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	failing := false
	for {
		err := h.write()
		if err != nil && !failing {
			h.log.WarnContext(ctx, "heartbeat not written; health will say that the worker is stuck", slog.Any("error", err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			if err := os.Remove(h.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				h.log.WarnContext(ctx, "heartbeat file not removed", slog.Any("error", err))
			}
			return
		case <-tick.C:
		}
	}
}

// write replaces the file in one go: a reader sees the old pulse or the new one.
func (h *heartbeat) write() error {
	body, err := json.Marshal(h.pulse())
	if err != nil {
		return fmt.Errorf("encode heartbeat: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(h.path), "."+filepath.Base(h.path)+"-*")
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	_, err = f.Write(append(body, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), h.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write heartbeat: %w", err), os.Remove(f.Name()))
	}
	return nil
}

func (h *heartbeat) pulse() pulse {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := pulse{Time: time.Now().UTC(), Every: heartbeatEvery.String(), Claims: []claimPulse{}}
	for _, c := range h.claims {
		c.Since = c.Since.UTC()
		p.Claims = append(p.Claims, c)
	}
	slices.SortFunc(p.Claims, func(a, b claimPulse) int { return strings.Compare(a.Project, b.Project) })
	return p
}

// heartbeatFile is where the heartbeat is.
func heartbeatFile(configured string) string {
	if configured != "" {
		return configured
	}
	return filepath.Join(os.TempDir(), "webordinary-heartbeat.json")
}

// stepLimit is how long a step may take before health calls it stuck. Each step
// ends by itself long before; the allowance is for what ends it.
func (c *config) stepLimit(step string) time.Duration {
	const allowance = 5 * time.Minute
	switch step {
	case "agent":
		return c.AgentTimeout + allowance
	case "install", "build": // the latter may install, too
		return 2*c.BuildTimeout + allowance
	}
	return 15 * time.Minute
}
