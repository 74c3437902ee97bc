package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// slowProxy stands before an emulator, holds each request for a while, as the
// distance to AWS does, and counts.
type slowProxy struct {
	url string
	// seen is told of each request when it is answered, with the answer's size; nil
	// means nobody listens.
	seen func(r *http.Request, began time.Time, size int)

	delay    atomic.Int64 // ns
	requests atomic.Int64
	sent     atomic.Int64 // bytes of request bodies
}

func startSlowProxy(tb testing.TB, emulator string) *slowProxy {
	tb.Helper()
	target, err := url.Parse(emulator)
	if err != nil {
		tb.Fatal(err)
	}
	p := &slowProxy{}
	transport := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // it is signed
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // the tool hung up
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		began, out := time.Now(), &sized{ResponseWriter: w}
		r.Body = &counted{r.Body, &p.sent}
		if d := time.Duration(p.delay.Load()); d > 0 {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		forward.ServeHTTP(out, r)
		if p.seen != nil {
			p.seen(r, began, out.n)
		}
	}))
	tb.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	p.url = server.URL
	return p
}

// reset begins a measurement.
func (p *slowProxy) reset(delay time.Duration) {
	p.delay.Store(int64(delay))
	p.requests.Store(0)
	p.sent.Store(0)
}

// sized counts what is written of an answer.
type sized struct {
	http.ResponseWriter
	n int
}

// Write implements http.ResponseWriter.
func (s *sized) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	s.n += n
	return n, err
}

// counted counts what is read from a body.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
