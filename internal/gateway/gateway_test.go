package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second on a connection whose body it refused.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const (
	key = "sk-ant-real-key"
	// hello is the least that passes.
	hello = `{"model":"claude-test-1"}`
)

// open starts an upstream and a job that leads to it.
func open(t *testing.T, c Config, upstream http.HandlerFunc) *Job {
	t.Helper()
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if c.Upstream != nil {
		u.Path = c.Upstream.Path
	}
	c.Upstream = u
	if c.Signer == nil {
		c.Signer = APIKey(key)
	}
	j, err := New(c).Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// client leaves no connection behind.
func client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func request(t *testing.T, j *Job, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, j.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", j.Token)
	return r
}

func do(t *testing.T, r *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	resp, err := client(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestPasses(t *testing.T) {
	type seen struct {
		Method, Path, Query, Body string
		Header                    http.Header
	}
	var got seen
	j := open(t, Config{Upstream: &url.URL{Path: "/tenant/a"}}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.URL.Path, r.URL.RawQuery, string(b), r.Header}
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Request-Id", "req_1")
		_, _ = fmt.Fprint(w, `{"ok":true}`)
	})
	for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
		for _, bearer := range []bool{false, true} {
			r := request(t, j, http.MethodPost, path+"?beta=true", hello)
			if bearer {
				r.Header.Del("X-Api-Key")
				r.Header.Set("Authorization", "Bearer "+j.Token)
			}
			r.Header.Set("Anthropic-Version", "2023-06-01")
			r.Header.Set("Cookie", "c=d")
			r.Header.Set("Content-Type", "application/json; charset=utf-7")
			r.Header.Set("Content-Encoding", "x")
			r.Header.Set("Proxy-Authorization", "Basic x")
			r.Header.Set("X-Forwarded-For", "10.0.0.1")
			r.Header.Set("Connection", "X-Secret-Hop")
			r.Header.Set("X-Secret-Hop", "1")
			status, header, body := do(t, r)
			if status != 200 || body != `{"ok":true}` || header.Get("Request-Id") != "req_1" {
				t.Errorf("answer %d %q %v", status, body, header)
			}
			if header.Get("Set-Cookie") != "" {
				t.Error("cookie passed")
			}
			want := seen{Method: "POST", Path: "/tenant/a" + path, Query: "beta=true", Body: hello}
			h := got.Header
			got.Header = nil
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if h.Get("X-Api-Key") != key || h.Get("Anthropic-Version") != "2023-06-01" || h.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", h)
			}
			for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Forwarded-For", "X-Secret-Hop", "Content-Encoding"} {
				if h.Get(name) != "" {
					t.Errorf("%s passed: %v", name, h)
				}
			}
		}
	}
}

// TestHeadersThatPass has an agent ask for another protocol, and say what whoever
// stands before the model's service may heed. Only what the CLI needs comes through.
func TestHeadersThatPass(t *testing.T) {
	for _, isBedrock := range []bool{false, true} {
		got := http.Header{}
		j := open(t, Config{Bedrock: isBedrock, Models: []string{"claude-test-1"}}, func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Clone()
			_, _ = io.WriteString(w, "{}")
		})
		path := "/v1/messages"
		if isBedrock {
			path = "/model/claude-test-1/invoke"
		}
		r := request(t, j, http.MethodPost, path, hello)
		for name, value := range map[string]string{
			"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "Http2-Settings": "AAMAAABkAAQAAP__", "Te": "trailers",
			"X-Forwarded-Host": "a", "X-Original-Url": "/v1/files", "X-Http-Method-Override": "DELETE", "X-Amz-Security-Token": "a",
			"Anthropic-Workspace-Id": "a", "X-Litellm-Api-Base": "a", "Range": "bytes=0-1", "Origin": "a",
			"Accept": "application/json", "User-Agent": "claude-cli", "Anthropic-Version": "2023-06-01", "Anthropic-Beta": "x",
		} {
			r.Header.Set(name, value)
		}
		if status, _, body := do(t, r); status != 200 {
			t.Errorf("answer %d %s", status, body)
		}
		for _, name := range []string{"Accept", "User-Agent", "Anthropic-Version", "Anthropic-Beta", "Content-Type", "Content-Length", "X-Api-Key"} {
			if got.Get(name) == "" {
				t.Errorf("Bedrock %v: %s is missing", isBedrock, name)
			}
			got.Del(name)
		}
		got.Del("Accept-Encoding") // empty or identity
		if len(got) > 0 {
			t.Errorf("Bedrock %v: %v came through", isBedrock, got)
		}
	}
}

func TestRefused(t *testing.T) {
	j := open(t, Config{MaxBody: 10}, func(http.ResponseWriter, *http.Request) {
		t.Error("came through")
	})
	other := open(t, Config{}, func(http.ResponseWriter, *http.Request) {
		t.Error("came through")
	})
	tests := map[string]struct {
		method, path, token, body string
		status                    int
		kind                      string
	}{
		"no token":          {"POST", "/v1/messages", "", "", 401, "authentication_error"},
		"wrong token":       {"POST", "/v1/messages", "x", "", 401, "authentication_error"},
		"another job's":     {"POST", "/v1/messages", other.Token, "", 401, "authentication_error"},
		"the real key":      {"POST", "/v1/messages", key, "", 401, "authentication_error"},
		"get":               {"GET", "/v1/messages", j.Token, "", 404, "not_found_error"},
		"models":            {"POST", "/v1/models", j.Token, "", 404, "not_found_error"},
		"files":             {"POST", "/v1/files", j.Token, "", 404, "not_found_error"},
		"batches":           {"POST", "/v1/messages/batches", j.Token, "", 404, "not_found_error"},
		"dots":              {"POST", "/v1/messages/../files", j.Token, "", 404, "not_found_error"},
		"escaped dots":      {"POST", "/v1/messages/%2e%2e/files", j.Token, "", 404, "not_found_error"},
		"escaped slash":     {"POST", "/v1%2fmessages", j.Token, "", 404, "not_found_error"},
		"double slash":      {"POST", "//v1/messages", j.Token, "", 404, "not_found_error"},
		"trailing slash":    {"POST", "/v1/messages/", j.Token, "", 404, "not_found_error"},
		"too large a body":  {"POST", "/v1/messages", j.Token, "01234567890", 413, "request_too_large"},
		"escaped, but same": {"POST", "/v1/m%65ssages", j.Token, "", 404, "not_found_error"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(t, j, tt.method, tt.path, tt.body)
			r.Header.Del("X-Api-Key")
			if tt.token != "" {
				r.Header.Set("X-Api-Key", tt.token)
			}
			status, _, body := do(t, r)
			if status != tt.status || errorKind(t, body) != tt.kind {
				t.Errorf("got %d %s, want %d %s", status, body, tt.status, tt.kind)
			}
		})
	}
}

func errorKind(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Type  string
		Error struct{ Type, Message string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Type != "error" || e.Error.Message == "" {
		t.Fatalf("no error of the API: %q", body)
	}
	return e.Error.Type
}

// TestChunkedBody checks the bound where no length is announced.
func TestChunkedBody(t *testing.T) {
	j := open(t, Config{MaxBody: 1000}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	r := request(t, j, http.MethodPost, "/v1/messages", "")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 5000))))
	r.ContentLength = -1
	status, _, body := do(t, r)
	if status != 413 || errorKind(t, body) != "request_too_large" {
		t.Errorf("got %d %s", status, body)
	}
}

func TestStreams(t *testing.T) {
	next := make(chan struct{})
	j := open(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	resp, err := client(t).Do(request(t, j, http.MethodPost, "/v1/messages", hello))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n') // an event comes before the next is sent
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

func TestUpstreamFails(t *testing.T) {
	tests := map[string]struct {
		upstream http.HandlerFunc
		signer   Signer
		status   int
		body     string // part of it
	}{
		"cut before the answer": {
			upstream: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			status:   502, body: "api_error",
		},
		"redirect": {
			upstream: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://169.254.169.254/", http.StatusTemporaryRedirect)
			},
			status: 502, body: "api_error",
		},
		"error passes": {
			upstream: func(w http.ResponseWriter, _ *http.Request) {
				writeError(w, 529, "overloaded_error", "Overloaded")
			},
			status: 529, body: "overloaded_error",
		},
		"no credentials": {
			upstream: func(http.ResponseWriter, *http.Request) {},
			signer:   signer(func(*http.Request) error { return errors.New("no credentials") }),
			status:   502, body: "api_error",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			j := open(t, Config{Signer: tt.signer}, tt.upstream)
			status, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
}

type signer func(*http.Request) error

func (s signer) Sign(r *http.Request) error { return s(r) }

func TestErrorBodyIsBounded(t *testing.T) {
	j := open(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10*maxErrorBody))
	})
	_, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
	if len(body) != maxErrorBody {
		t.Errorf("%d bytes", len(body))
	}
}

func TestUpstreamIsAway(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	j, err := New(Config{Upstream: u, Signer: APIKey(key)}).Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	status, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
	if status != 502 || errorKind(t, body) != "api_error" {
		t.Errorf("got %d %s", status, body)
	}
}

func TestPause(t *testing.T) {
	status, after := 429, "7"
	j := open(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(status)
	})
	ask := func() time.Duration {
		do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
		return j.Pause()
	}
	if got := ask(); got != 7*time.Second {
		t.Errorf("429: %s", got)
	}
	status = 529
	if got := ask(); got != 7*time.Second {
		t.Errorf("529: %s", got)
	}
	status = 200
	if got := ask(); got != 0 {
		t.Errorf("200: %s", got)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := map[string]time.Duration{
		"": 0, "0": 0, "30": 30 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	}
	for value, want := range tests {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func TestConcurrencyIsCapped(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	j := open(t, Config{MaxConcurrent: 2}, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() {
			if status, _, _ := do(t, request(t, j, http.MethodPost, "/v1/messages", hello)); status != 200 {
				t.Errorf("got %d", status)
			}
		})
		<-arrived
	}
	status, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello))
	if status != 429 || errorKind(t, body) != "rate_limit_error" {
		t.Errorf("got %d %s", status, body)
	}
	close(release)
	calls.Wait()
}

// TestClose checks that a call under way is cut, and that nobody listens after.
func TestClose(t *testing.T) {
	for name, end := range map[string]func(*Job, context.CancelFunc){
		"closed":        func(j *Job, _ context.CancelFunc) { j.Close() },
		"context ended": func(_ *Job, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				close(arrived)
				<-r.Context().Done()
			}))
			defer server.Close()
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			j, err := New(Config{Upstream: u, Signer: APIKey(key)}).Open(ctx, 0)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client(t).Do(request(t, j, http.MethodPost, "/v1/messages", hello))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			<-arrived
			end(j, cancel)
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Error("the call was not cut")
			}
			j.Close()
			j.Close()
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", strings.TrimPrefix(j.URL, "http://"))
			if err == nil {
				_ = conn.Close()
				t.Error("somebody still listens")
			}
		})
	}
}

func TestLogsNoSecrets(t *testing.T) {
	var log bytes.Buffer
	handler := slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	j := open(t, Config{Log: slog.New(handler)}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	do(t, request(t, j, http.MethodPost, "/v1/messages", `{"model":"the-body"}`))
	j.Close()
	if log.Len() == 0 {
		t.Error("nothing logged")
	}
	for _, secret := range []string{key, j.Token, "the-body"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q in the log: %s", secret, &log)
		}
	}
}
