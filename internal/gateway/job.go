package gateway

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Job is the way to the model for one run of an agent. Its methods may be called
// by several goroutines.
type Job struct {
	URL   string // where it listens
	Token string // stands in for the key

	config    Config
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	server    *http.Server
	cancel    context.CancelFunc
	slots     chan struct{}
	served    chan struct{} // closed when nobody listens any more

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // added to under mu, and not once closed
	pause  time.Duration
}

// Close ends the job: nobody listens any more, and calls under way are cut. It
// returns when all that belonged to the job is gone. It may be called again.
func (j *Job) Close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.cancel()
	_ = j.server.Close() // the listener and the connections are closed whatever it says
	j.calls.Wait()
	<-j.served
	j.transport.CloseIdleConnections()
}

// Pause returns the pause that the model's service asked for last, by
// retry-after; zero if its last answer did not.
func (j *Job) Pause() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pause
}

// ServeHTTP lets a call through if it is the job's own and of a kind that an
// agent needs.
func (j *Job) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !j.begin() {
		writeError(w, http.StatusServiceUnavailable, "api_error", "this job is over")
		return
	}
	defer j.calls.Done()
	switch {
	case !j.authorized(r):
		writeError(w, http.StatusUnauthorized, "authentication_error", "this is not the job's token")
		return
	case !allowed(r):
		writeError(w, http.StatusNotFound, "not_found_error", "only POST /v1/messages and /v1/messages/count_tokens pass here")
		return
	case r.ContentLength > j.config.MaxBody:
		tooLarge(w)
		return
	}
	select {
	case j.slots <- struct{}{}:
		defer func() { <-j.slots }()
	default:
		writeError(w, http.StatusTooManyRequests, "rate_limit_error", "too many calls at the same time")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, j.config.MaxBody)
	j.proxy.ServeHTTP(w, r)
}

// begin counts a call, so that Close waits for it; false if it is too late.
func (j *Job) begin() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false
	}
	j.calls.Add(1)
	return true
}

func (j *Job) authorized(r *http.Request) bool {
	got := r.Header.Get("X-Api-Key")
	if got == "" {
		got, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	return subtle.ConstantTimeCompare([]byte(got), []byte(j.Token)) == 1
}

// allowed knows the paths as they are written: an escaped one is another.
func allowed(r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	path := r.URL.EscapedPath()
	return path == "/v1/messages" || path == "/v1/messages/count_tokens"
}

// rewrite turns the agent's call into ours. Hop-by-hop and forwarding headers
// are gone already.
func (j *Job) rewrite(p *httputil.ProxyRequest) {
	p.SetURL(j.config.Upstream)
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	for _, name := range []string{"X-Api-Key", "Authorization", "Cookie"} {
		p.Out.Header.Del(name)
	}
}

// modify looks at an answer before it is passed on.
func (j *Job) modify(r *http.Response) error {
	j.mu.Lock()
	j.pause = 0
	switch r.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, statusOverloaded:
		j.pause = retryAfter(r.Header.Get("Retry-After"), time.Now())
	}
	j.mu.Unlock()
	if r.StatusCode >= 300 && r.StatusCode < 400 {
		return errors.New("the model's service redirects, which is not followed")
	}
	r.Header.Del("Set-Cookie")
	if r.StatusCode >= 400 {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r.Body, maxErrorBody), r.Body}
		r.ContentLength = -1
		r.Header.Del("Content-Length")
	}
	return nil
}

// statusOverloaded is the Anthropic API's own status for overload.
const statusOverloaded = 529

// retryAfter reads the header's two forms; zero if it has neither.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if when, err := http.ParseTime(value); err == nil {
		return max(0, when.Sub(now))
	}
	return 0
}

// failed answers a call that the model's service did not.
func (j *Job) failed(w http.ResponseWriter, r *http.Request, err error) {
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		tooLarge(w)
		return
	}
	if r.Context().Err() == nil {
		j.config.Log.WarnContext(r.Context(), "model call failed", slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	writeError(w, http.StatusBadGateway, "api_error", "the model's service could not be reached")
}

func tooLarge(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // the rest is not read
	writeError(w, http.StatusRequestEntityTooLarge, "request_too_large", "the request is too large")
}

// writeError answers in the API's form.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the agent may be gone
		"type":  "error",
		"error": map[string]string{"type": kind, "message": message},
	})
}
