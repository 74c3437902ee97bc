package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(emulators.Tests{M: m}) }

// gateway is the URL of the store that all tests share.
func gateway(t *testing.T) string {
	t.Helper()
	return emulators.Shared(t).S3
}

// connect returns a client of the store at a URL, and closes its connections
// with the test. All hosts are that one.
func connect(t *testing.T, base string, pathStyle bool) *s3.Client {
	t.Helper()
	return connectWith(t, base, pathStyle, emulators.SecretKey)
}

func connectWith(t *testing.T, base string, pathStyle bool, secret string) *s3.Client {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, u.Host)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return bucket.NewClient(aws.Config{
		Region: emulators.Region, Credentials: credentials.NewStaticCredentialsProvider(emulators.AccessKey, secret, ""), BaseEndpoint: aws.String("http://localhost:" + u.Port()),
		HTTPClient: &http.Client{Transport: transport},
	}, pathStyle)
}

// create makes an empty bucket of a name with dots.
func create(t *testing.T, client *s3.Client) string {
	t.Helper()
	name := "edit." + emulators.Unique(t, "site") + ".example.com"
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("create bucket: %v", err)
	}
	return name
}

// get is an object as a visitor gets it.
func get(t *testing.T, client *s3.Client, name, key string) (deploy.Object, []byte, bool) {
	t.Helper()
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &name, Key: &key})
	if _, missing := errors.AsType[*types.NoSuchKey](err); missing {
		return deploy.Object{}, nil, false
	}
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	defer out.Body.Close() //nolint:errcheck // it was only read from
	body, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return deploy.Object{
		Key: key, ETag: aws.ToString(out.ETag), ContentType: aws.ToString(out.ContentType), CacheControl: aws.ToString(out.CacheControl),
	}, body, true
}

// site is a build: contents by key.
type site map[string]string

func (s site) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for key, content := range s {
		name := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// contents is what a bucket holds.
func contents(t *testing.T, client *s3.Client, name string) site {
	t.Helper()
	objects, err := bucket.Open(client, name, bucket.Options{}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := site{}
	for _, o := range objects {
		_, body, _ := get(t, client, name, o.Key)
		s[o.Key] = string(body)
	}
	return s
}

// proxy stands before the store and does what that cannot.
type proxy struct {
	*httptest.Server
	forward *httputil.ReverseProxy
	opened  atomic.Int64 // connections
	serving sync.RWMutex // held by each request

	mu       sync.Mutex
	requests []string // method and key or query, in order
	host     string   // of the last one
	fault    fault    // may be nil
}

// fault answers the n-th request, counted from 1, instead of the store; false if
// it does not.
type fault func(p *proxy, w http.ResponseWriter, r *http.Request, n int) bool

func startProxy(t *testing.T) *proxy {
	t.Helper()
	u, err := url.Parse(gateway(t))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	p := &proxy{forward: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.opened.Add(1)
		}
	}
	p.Start()
	t.Cleanup(func() {
		p.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.serving.RLock()
	defer p.serving.RUnlock()
	p.mu.Lock()
	what := r.Method + " " + r.URL.Path
	if r.URL.RawQuery != "" && r.Method != http.MethodPut {
		what = r.Method + " ?" + strings.SplitN(r.URL.RawQuery, "=", 2)[0]
	}
	p.requests = append(p.requests, what)
	p.host = r.Host
	n, fault := len(p.requests), p.fault
	p.mu.Unlock()
	if fault == nil || !fault(p, w, r, n) {
		p.forward.ServeHTTP(w, r)
	}
}

// arm counts requests anew, with a fault in the way.
func (p *proxy) arm(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.fault = nil, f
}

// settle returns when no request is under way, as one may be whose client has
// gone.
func (p *proxy) settle() {
	p.serving.Lock()
	defer p.serving.Unlock()
}

func (p *proxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// cut ends the connection of a request, before the store sees it or after it has
// carried it out.
func (p *proxy) cut(r *http.Request, carriedOut bool) {
	if carriedOut {
		p.forward.ServeHTTP(httptest.NewRecorder(), r)
	} else {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
	}
	panic(http.ErrAbortHandler)
}

// answer is an error as S3 sends it.
func answer(w http.ResponseWriter, status int, code string, header ...string) bool {
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.Header().Set("X-Amz-Request-Id", "R1")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message><RequestId>R1</RequestId></Error>", code)
	return true
}
