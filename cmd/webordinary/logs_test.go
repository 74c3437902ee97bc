package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// logService is CloudWatch Logs as far as it is asked.
type logService struct {
	t  *testing.T
	mu sync.Mutex
	// events are all there are; a page holds two.
	events  []logEvent
	fail    int // how often it does not answer
	filters []string
}

type logEvent struct {
	ID        string `json:"eventId"`
	Timestamp int64  `json:"timestamp"`
	Message   string `json:"message"`
}

func (s *logService) add(id string, ago time.Duration, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, logEvent{id, time.Now().Add(-ago).UnixMilli(), message})
}

// ServeHTTP implements http.Handler.
func (s *logService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in struct {
		LogGroupName, FilterPattern, NextToken string
		StartTime                              int64
	}
	if r.Header.Get("X-Amz-Target") != "Logs_20140328.FilterLogEvents" || json.NewDecoder(r.Body).Decode(&in) != nil {
		s.t.Errorf("call %s", r.Header.Get("X-Amz-Target"))
	}
	s.filters = append(s.filters, in.FilterPattern)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch {
	case s.fail > 0:
		s.fail--
		http.Error(w, `{"__type":"InvalidParameterException","message":"not now"}`, http.StatusBadRequest)
		return
	case in.LogGroupName != defaultGroup:
		http.Error(w, `{"__type":"ResourceNotFoundException","message":"none"}`, http.StatusBadRequest)
		return
	}
	var found []logEvent
	for _, e := range s.events {
		if e.Timestamp >= in.StartTime {
			found = append(found, e)
		}
	}
	out := struct {
		Events []logEvent `json:"events"`
		Next   string     `json:"nextToken,omitempty"`
	}{Events: found}
	if len(found) > 2 && in.NextToken == "" {
		out.Events, out.Next = found[:2], "more"
	} else if in.NextToken != "" {
		out.Events = found[2:]
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		s.t.Error(err)
	}
}

func (s *logService) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"logs"}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(childEnv(), "TZ=UTC", "AWS_REGION=us-west-2", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=secret", "AWS_MAX_ATTEMPTS=1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+server.URL)
	return cmd
}

func stepLine(command, step string) string {
	return fmt.Sprintf(`{"time":"2026-03-01T10:02:41Z","level":"INFO","msg":"step","step":%q,"text":"begun","command_id":%q,"project_key":"amelia#scott"}`, step, command)
}

func TestLogsFromCloudWatch(t *testing.T) {
	t.Parallel()
	s := &logService{t: t}
	s.add("0", 2*time.Hour, stepLine("c-1", "too old"))
	for i, step := range []string{"workspace", "agent", "commit"} {
		s.add(fmt.Sprint(i+1), time.Minute, stepLine("c-1", step))
	}
	s.add("9", time.Minute, stepLine("c-2", "another"))
	cmd := s.command(t, "--command", "c-1", "--output", "json")
	out, err := cmd.CombinedOutput()
	want := stepLine("c-1", "workspace") + "\n" + stepLine("c-1", "agent") + "\n" + stepLine("c-1", "commit") + "\n"
	if err != nil || string(out) != want {
		t.Errorf("%v:\n%s", err, out)
	}
	if want := `{ ($.command_id = "c-1") || ($.correlation_id = "c-1") }`; s.filters[0] != want {
		t.Errorf("filter %s, want %s", s.filters[0], want)
	}

	out, err = s.command(t, "--group", "/none").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "there is no log group /none in us-west-2; name another one with --group") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLogsFollowCloudWatch: each line comes once, also what becomes visible late; a
// look that fails is made again; Ctrl-C is no failure.
func TestLogsFollowCloudWatch(t *testing.T) {
	t.Parallel()
	s := &logService{t: t}
	s.add("1", 10*time.Second, stepLine("c-1", "first"))
	cmd := s.command(t, "--follow")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	lines := startLines(t, cmd)
	wantLine(t, lines, "2026-03-01")
	wantLine(t, lines, "first")
	s.mu.Lock()
	s.fail = 1
	s.mu.Unlock()
	s.add("3", 0, stepLine("c-1", "third"))
	s.add("2", 20*time.Second, stepLine("c-1", "late"))
	wantLine(t, lines, "third")
	wantLine(t, lines, "late")
	s.add("4", 0, stepLine("c-1", "last"))
	wantLine(t, lines, "last")
	interruptAndWait(t, cmd)
	if !strings.Contains(stderr.String(), "no new lines: ") {
		t.Errorf("stderr %q", stderr.String())
	}
}

func TestLogsFollowAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log.jsonl")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is a test's
	s := &logService{t: t}
	cmd := s.command(t, "-f", file)
	lines := startLines(t, cmd)
	text := stepLine("c-1", "first") + "\n"
	for _, part := range []string{text[:20], text[20:]} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	wantLine(t, lines, "2026-03-01")
	wantLine(t, lines, "first")
	if _, err := f.WriteString(stepLine("c-1", "second") + "\n"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, lines, "second")
	interruptAndWait(t, cmd)
	if len(s.filters) > 0 {
		t.Error("CloudWatch was asked")
	}
}

func startLines(t *testing.T, cmd *exec.Cmd) <-chan string {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
	}()
	return lines
}

func wantLine(t *testing.T, lines <-chan string, part string) {
	t.Helper()
	select {
	case line := <-lines:
		if !strings.Contains(line, part) {
			t.Fatalf("line %q, want one with %q", line, part)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no line with %q", part)
	}
}

func interruptAndWait(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
}

// TestPaint: colours are for terminals, and what comes from outside has none.
func TestPaint(t *testing.T) {
	line := logLine{names: []string{"level", "msg", "x"}, values: map[string]any{"level": "ERROR", "msg": "bad", "x": "\x1b[2J"}}
	on := logLines{style: style{on: true}, zone: time.UTC}
	off := logLines{zone: time.UTC}
	colourful, plainText := on.render(line), off.render(line)
	if !strings.Contains(colourful, "\x1b[31merror     \x1b[0m") || strings.Contains(plainText, "\x1b") || strings.Contains(colourful, "\x1b[2J") {
		t.Errorf("%q, %q", colourful, plainText)
	}
	var b bytes.Buffer
	if styleOf(&b, nil).on || !slices.Contains([]string{"a…", "a"}, short("abc", 2)) {
		t.Error("a buffer is no terminal")
	}
}
