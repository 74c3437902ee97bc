package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/process"
)

// staleAfter is the age at which a heartbeat has stopped.
const staleAfter = 90 * time.Second

func healthCommand(sys system) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Say whether the worker of this container lives and gets on",
		Long: "Reads the heartbeat that `webordinary run` writes every 10 s (HEARTBEAT_FILE; by default in the\n" +
			"temporary directory). Exit code 0 means that the worker lives. 1 means that the heartbeat is missing\n" +
			"or older than 90 s, or that a step takes longer than it may; a sentence says what is stuck, and\n" +
			"since when.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// It has the worker's environment, and children may be of the same user.
			if err := process.Harden(); err != nil {
				return err
			}
			vars, err := readVariables(sys.environ)
			if err != nil {
				return err
			}
			p, err := readPulse(heartbeatFile(vars["HEARTBEAT_FILE"]))
			var text string
			if err == nil {
				text, err = p.judge(time.Now())
			}
			if output == outputJSON {
				return healthJSON(cmd.OutOrStdout(), p, text, err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	outputFlag(cmd, &output, "an object with healthy, text and the heartbeat")
	return cmd
}

// healthJSON says the same to programs, with the same exit code.
func healthJSON(w io.Writer, p pulse, text string, err error) error {
	v := struct {
		Healthy   bool   `json:"healthy"`
		Text      string `json:"text"` // in a sentence; what is stuck, and since when
		Heartbeat *pulse `json:"heartbeat"`
	}{Healthy: err == nil, Text: text}
	if err != nil {
		v.Text = err.Error()
	}
	if !p.Time.IsZero() {
		v.Heartbeat = &p
	}
	if werr := writeJSON(w, v); werr != nil || err == nil {
		return werr
	}
	return errUnsuccessful
}

func readPulse(path string) (pulse, error) {
	var p pulse
	body, err := os.ReadFile(path) //nolint:gosec // where it is, is configured
	if errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("no heartbeat: %s is not there; either `webordinary run` has not begun or has ended, or its HEARTBEAT_FILE is another one", path)
	}
	if err != nil {
		return p, fmt.Errorf("no heartbeat: %w", err)
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Time.IsZero() {
		return p, fmt.Errorf("no heartbeat: %s was not written by `webordinary run`", path)
	}
	return p, nil
}

// judge says in a sentence how the worker is. The error says what is stuck, and
// since when.
func (p pulse) judge(now time.Time) (string, error) {
	if age := now.Sub(p.Time); age > staleAfter {
		return "", fmt.Errorf("the worker is stuck: its last heartbeat was at %s, %s ago; then it was %s", clock(p.Time), round(age), p.doing(now))
	}
	var stuck []string
	for _, c := range p.Claims {
		limit, err := time.ParseDuration(c.Limit)
		if err == nil && c.State == "working" && now.Sub(c.Since) > limit {
			stuck = append(stuck, fmt.Sprintf("%s (it may take %s)", c.doing(now), round(limit)))
		}
	}
	if len(stuck) > 0 {
		return "", errors.New("the worker lives, but is stuck: " + strings.Join(stuck, "; "))
	}
	return "the worker lives: " + p.doing(now), nil
}

func (p pulse) doing(now time.Time) string {
	if len(p.Claims) == 0 {
		return "waiting for a project"
	}
	var all []string
	for _, c := range p.Claims {
		all = append(all, c.doing(now))
	}
	return strings.Join(all, "; ")
}

func (c claimPulse) doing(now time.Time) string {
	since := fmt.Sprintf("since %s, for %s", clock(c.Since), round(now.Sub(c.Since)))
	if c.State == "idle" {
		return fmt.Sprintf("%s idle %s", c.Project, since)
	}
	return fmt.Sprintf("%s in step %s of command %q %s", c.Project, c.Step, c.Command, since)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func round(d time.Duration) time.Duration { return max(d, 0).Round(time.Second) }
