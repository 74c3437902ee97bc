package platform

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestLinkIsHeard tells of each request of a connection that is kept, with a body
// or without one, and takes what is no request.
func TestLinkIsHeard(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 10)
	link := newLink()
	link.heard = func(r *http.Request) { heard <- r.Method + " " + r.URL.Path }
	url := startProxy(t, server(t), alwaysBy(link)).url()
	c := client(t, 10*time.Second)
	body := func(method string, r io.Reader) func(*http.Request) {
		return func(req *http.Request) { req.Method, req.Body, req.ContentLength = method, io.NopCloser(r), -1 }
	}
	for path, edit := range map[string]func(*http.Request){
		"/get": func(*http.Request) {},
		"/put": body(http.MethodPut, strings.NewReader(strings.Repeat("x", 100_000))), // in chunks
		"/post": func(r *http.Request) {
			body(http.MethodPost, strings.NewReader("GET /not/a/request HTTP/1.1\r\n\r\n"))(r)
			r.ContentLength = int64(len("GET /not/a/request HTTP/1.1\r\n\r\n"))
		},
	} {
		if got, err := get(c, url+path, edit); got != path || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		want := strings.ToUpper(path[1:]) + " " + path
		select {
		case got := <-heard: // beside the answer
			if got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s was not heard", want)
		}
	}
	if len(heard) > 0 {
		t.Errorf("heard %q besides", <-heard)
	}
}

// TestListenTakesAnything blocks nobody who writes something else than requests.
func TestListenTakesAnything(t *testing.T) {
	t.Parallel()
	w := listen(func(r *http.Request) { t.Errorf("heard %s of noise", r.URL) })
	for range 100 {
		if n, err := io.WriteString(w, strings.Repeat("noise", 1000)); n != 5000 || err != nil {
			t.Fatalf("took %d bytes, %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
