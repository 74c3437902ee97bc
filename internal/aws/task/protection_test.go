package task_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/aws/task"
)

const (
	heeded   = `{"protection":{"ExpirationDate":"2026-01-01T00:00:00Z","ProtectionEnabled":%s,"TaskArn":"` + arn + `"}}`
	enable   = `{"ProtectionEnabled":true,"ExpiresInMinutes":10}`
	disable  = `{"ProtectionEnabled":false}`
	standing = "TASK_NOT_VALID"
)

// ecs is an ECS agent that writes down what it was told, and when.
type ecs struct {
	t     *testing.T
	mu    sync.Mutex
	began time.Time
	told  []string
	// answer is what it says; nil means that it does what it is told.
	answer func(r *http.Request, body string) (int, string)
}

// ServeHTTP implements http.Handler.
func (e *ecs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		e.t.Error(err)
	}
	body := string(raw)
	if r.Method != http.MethodPut || r.URL.Path != "/api/1/task-protection/v1/state" || r.Header.Get("Content-Type") != "application/json" {
		e.t.Errorf("request %s %s, %v", r.Method, r.URL, r.Header)
	}
	e.mu.Lock()
	e.told = append(e.told, time.Since(e.began).String()+" "+body)
	answer := e.answer
	e.mu.Unlock()
	status, said := http.StatusOK, fmt.Sprintf(heeded, strings.TrimSuffix(strings.TrimPrefix(strings.Split(body, ",")[0], `{"ProtectionEnabled":`), "}"))
	if answer != nil {
		status, said = answer(r, body)
	}
	w.WriteHeader(status)
	io.WriteString(w, said) //nolint:errcheck // a test's
}

// RoundTrip implements http.RoundTripper: without a network, so that time can be
// a test's.
func (e *ecs) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func (e *ecs) answers(f func(r *http.Request, body string) (int, string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

// heard returns what was told since it was last asked.
func (e *ecs) heard() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := e.told
	e.told = nil
	return told
}

// inBubble runs a test of a protection in a time of its own. stop ends it.
func inBubble(t *testing.T, test func(t *testing.T, e *ecs, p *task.Protection, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &ecs{t: t, began: time.Now()}
		p, err := task.NewProtection([]string{"ECS_AGENT_URI=http://169.254.170.2/api/1"}, task.Options{Transport: e})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx) }()
		stop := func() { cancel(); <-done }
		defer stop()
		test(t, e, p, stop)
	})
}

func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func want(t *testing.T, e *ecs, told ...string) {
	t.Helper()
	if d := cmp.Diff(told, e.heard()); d != "" {
		t.Errorf("the agent was told (-want +got):\n%s", d)
	}
}

func TestOnWhileBusyAndOffAfter(t *testing.T) {
	inBubble(t, func(t *testing.T, e *ecs, p *task.Protection, stop func()) {
		t.Helper()
		wait(time.Hour)
		want(t, e)
		p.Busy(true)
		wait(12 * time.Minute)
		want(t, e, "1h0m0s "+enable, "1h5m0s "+enable, "1h10m0s "+enable)
		p.Busy(false)
		wait(time.Minute)
		want(t, e, "1h12m30s "+disable)
		wait(time.Hour)
		stop()
		want(t, e)
	})
}

func TestRowOfJobsDoesNotFlap(t *testing.T) {
	inBubble(t, func(t *testing.T, e *ecs, p *task.Protection, _ func()) {
		t.Helper()
		for range 5 {
			p.Busy(true)
			wait(10 * time.Second)
			p.Busy(false)
			wait(29 * time.Second)
		}
		want(t, e, "0s "+enable)
		wait(2 * time.Second)
		want(t, e, "3m16s "+disable)
	})
}

func TestOffAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, e *ecs, p *task.Protection, stop func()) {
		t.Helper()
		p.Busy(true)
		wait(time.Second)
		stop()
		want(t, e, "0s "+enable, "1s "+disable)
	})
}

// An agent that does not answer delays neither a job nor the end.
func TestAgentThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, e *ecs, p *task.Protection, stop func()) {
		t.Helper()
		e.answers(func(r *http.Request, _ string) (int, string) { <-r.Context().Done(); return 200, "" })
		p.Busy(true)
		wait(time.Second)
		began := time.Now()
		p.Busy(false)
		p.Busy(true)
		if took := time.Since(began); took != 0 {
			t.Errorf("Busy took %s", took)
		}
		stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the end took %s", took)
		}
		want(t, e, "0s "+enable, "1s "+disable)
	})
}

func TestFailuresAreTriedAgain(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"failure":     {200, `{"failure":{"Arn":"` + arn + `","Detail":null,"Reason":"TASK_NOT_VALID"}}`},
		"error":       {400, `{"error":{"Arn":"` + arn + `","Code":"AccessDeniedException","Message":"no"},"requestID":"1"}`},
		"status":      {500, `oops`},
		"nothing":     {200, `{}`},
		"the reverse": {200, fmt.Sprintf(heeded, "false")},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *ecs, p *task.Protection, _ func()) {
				t.Helper()
				e.answers(func(*http.Request, string) (int, string) { return answer.status, answer.body })
				p.Busy(true)
				wait(6 * time.Minute)
				want(t, e, "0s "+enable, "5s "+enable, "15s "+enable, "35s "+enable, "1m15s "+enable, "2m35s "+enable, "5m5s "+enable)
				e.answers(nil)
				wait(2 * time.Minute)
				want(t, e, "7m35s "+enable)
				p.Busy(false)
				e.answers(func(*http.Request, string) (int, string) { return 500, "" })
				wait(31 * time.Second)
				want(t, e, "8m30s "+disable)
				e.answers(nil)
				wait(5 * time.Second)
				want(t, e, "8m35s "+disable)
				e.answers(func(*http.Request, string) (int, string) { return 500, "" })
				p.Busy(true) // soon after it was off
				wait(6 * time.Second)
				want(t, e, "8m36s "+enable, "8m41s "+enable)
			})
		})
	}
}

func TestFailuresAreLogged(t *testing.T) {
	e := &ecs{t: t, began: time.Now()}
	told := make(chan struct{}, 10)
	e.answers(func(*http.Request, string) (int, string) {
		told <- struct{}{}
		return 200, `{"failure":{"Arn":"` + arn + `","Detail":"not of a service","Reason":"` + standing + `"}}`
	})
	server := httptest.NewServer(e)
	defer server.Close()
	var log bytes.Buffer
	p, err := task.NewProtection([]string{"ECS_AGENT_URI=" + server.URL + "/api/1/"}, task.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	p.Busy(true)
	<-told
	cancel()
	<-done
	if n := len(e.heard()); n != 2 || !strings.Contains(log.String(), standing+" not of a service") {
		t.Errorf("%d requests, log:\n%s", n, log.String())
	}
}

func TestProtectionOutsideOfECS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := task.NewProtection(nil, task.Options{Transport: refuse{t}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p.Busy(true)
		p.Run(ctx)
	})
}

type refuse struct{ t *testing.T }

// RoundTrip implements http.RoundTripper.
func (r refuse) RoundTrip(*http.Request) (*http.Response, error) {
	r.t.Error("somebody was asked")
	return nil, errors.New("no")
}

func TestExpiresIsWholeMinutes(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 90 * time.Second, 49 * time.Hour, -time.Minute} {
		if _, err := task.NewProtection(nil, task.Options{Expires: d}); err == nil {
			t.Errorf("%s is accepted", d)
		}
	}
}
