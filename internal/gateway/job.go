package gateway

import (
	"bytes"
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

// Job is the way out for one run of a child: to the model, and to the hosts that
// may be reached. Its methods may be called by several goroutines.
type Job struct {
	Address string // where it listens, as host:port
	URL     string // the same, as what a program takes for the model's service
	Token   string // stands in for the key, and is the password of the proxy

	config     Config
	transport  *http.Transport        // to the model; nil if there is none
	proxy      *httputil.ReverseProxy // to the model; nil if there is none
	outside    *http.Transport        // to others, outside of tunnels
	forwarding *httputil.ReverseProxy // to others, outside of tunnels
	server     *http.Server
	cancel     context.CancelFunc
	slots      chan struct{} // of calls of the model
	tunnels    chan struct{} // of what goes to others
	served     chan struct{} // closed when nobody listens any more
	tokens     account
	examining  sync.Mutex

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // added to under mu, and not once closed
	pause  time.Duration
	chosen string          // the model, if none is configured; empty until the first call
	told   map[string]bool // refused hosts that were logged
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
	j.outside.CloseIdleConnections()
	if j.transport != nil {
		j.transport.CloseIdleConnections()
	}
}

// Pause returns the pause that the model's service asked for last, by
// retry-after; zero if its last answer did not.
func (j *Job) Pause() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pause
}

// Tokens returns how many tokens the job used, and whether a call was refused
// because they were as many as it may use. A call under way counts as far as its
// answer has come.
func (j *Job) Tokens() (used int64, refused bool) { return j.tokens.state() }

// ServeHTTP lets a call of the model through if it is the job's own, of a kind that
// an agent needs, and within the job's limits, and proxies what is for others.
func (j *Job) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !j.begin() {
		writeError(w, http.StatusServiceUnavailable, "api_error", "this job is over")
		return
	}
	defer j.calls.Done()
	switch {
	case r.Method == http.MethodConnect, r.URL.IsAbs() && r.URL.Host != j.Address:
		j.outward(w, r)
	case j.proxy == nil:
		writeError(w, http.StatusForbidden, "permission_error", "there is no model for this job")
	default:
		j.model(w, r)
	}
}

// model passes a call of the model on.
func (j *Job) model(w http.ResponseWriter, r *http.Request) {
	if !j.authorized(r) {
		writeError(w, http.StatusUnauthorized, "authentication_error", "this is not the job's token")
		return
	}
	c, known := j.config.call(r)
	switch {
	case !known:
		writeError(w, http.StatusNotFound, "not_found_error", "this call does not pass here")
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
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, j.config.MaxBody))
	if err != nil {
		if _, big := errors.AsType[*http.MaxBytesError](err); big {
			tooLarge(w)
		}
		return // else the agent is gone
	}
	if refused := j.examine(&c, body); refused != nil {
		writeError(w, refused.status, refused.kind, refused.message)
		return
	}
	if !c.free {
		if !j.tokens.reserve(r.Context(), c.most) {
			refused := invalid("the tokens that one instruction may cost are used up")
			writeError(w, refused.status, refused.kind, refused.message)
			return
		}
		defer j.tokens.release(c.most)
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
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

// rewrite turns the agent's call into ours: of its headers only what is known to be
// harmless is signed. Answers are asked for as they are, so that their tokens can be
// counted.
func (j *Job) rewrite(p *httputil.ProxyRequest) {
	p.SetURL(j.config.Upstream)
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	if j.config.Bedrock {
		p.Out.URL.RawQuery = ""
	}
	h := http.Header{"Content-Type": {"application/json"}} // the service reads the body as it was looked at here
	for _, name := range []string{"Accept", "User-Agent", "Anthropic-Beta", "Anthropic-Version"} {
		if v, ok := p.Out.Header[name]; ok {
			h[name] = v
		}
	}
	p.Out.Header = h
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
		return nil
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return errors.New("the model's service compresses its answer, which it was not asked to")
	}
	r.Body = j.tokens.count(r.Body, r.Header.Get("Content-Type"))
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
	if r.Context().Err() == nil {
		j.config.Log.WarnContext(r.Context(), "model call failed", slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	writeError(w, http.StatusBadGateway, "api_error", "the model's service could not be reached")
}

func tooLarge(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // the rest is not read
	writeError(w, http.StatusRequestEntityTooLarge, "request_too_large", "the request is too large")
}

// writeError answers in a form that is both the API's and Bedrock's.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the agent may be gone
		"type":    "error",
		"error":   map[string]string{"type": kind, "message": message},
		"message": message,
	})
}
