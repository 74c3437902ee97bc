package platform

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server answers GET with what was asked for.
func server(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path) //nolint:errcheck // the client sees it
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func get(client *http.Client, url string, edit ...func(*http.Request)) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody) //nolint:noctx // the client has a timeout
	if err != nil {
		return "", err
	}
	for _, e := range edit {
		e(req)
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(res.Body)
	return string(b), errors.Join(err, res.Body.Close())
}

func client(t *testing.T, timeout time.Duration) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: timeout}
}

// TestLink cuts the network under a client that keeps its connection.
func TestLink(t *testing.T) {
	t.Parallel()
	link := newLink()
	url := startProxy(t, server(t), alwaysBy(link)).url()
	c := client(t, 10*time.Second)
	ask := func(want string) {
		t.Helper()
		if got, err := get(c, url+"/"+want); got != "/"+want || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	ask("open")
	link.Reset()
	if _, err := get(c, url+"/reset"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("a reset connection gave %v", err)
	}
	link.Restore()
	ask("restored")

	link.Swallow()
	impatient := client(t, 100*time.Millisecond)
	if _, err := get(impatient, url+"/hole"); !errors.Is(err, os.ErrDeadlineExceeded) && !timedOut(err) {
		t.Errorf("a hole gave %v", err)
	}
	answer := make(chan string, 1)
	go func() {
		got, err := get(c, url+"/late")
		answer <- got
		if err != nil {
			t.Error(err)
		}
	}()
	select {
	case got := <-answer:
		t.Fatalf("a hole answered %q", got)
	case <-time.After(100 * time.Millisecond):
	}
	link.Restore()
	if got := <-answer; got != "/late" {
		t.Errorf("after the hole: %q", got)
	}

	link.Delay(60 * time.Millisecond)
	began := time.Now()
	ask("delayed")
	if took := time.Since(began); took < 120*time.Millisecond {
		t.Errorf("a delay of 60 ms each way took %s", took)
	}
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// TestGitFront finds each worker's link by its token.
func TestGitFront(t *testing.T) {
	t.Parallel()
	front := startGitFront(t, server(t))
	one, two := newLink(), newLink()
	front.add("one", one)
	front.add("two", two)
	as := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("x-access-token", token) }
	}
	one.Reset()
	if _, err := get(client(t, 5*time.Second), front.url()+"/a", as("one")); err == nil {
		t.Error("a worker without a network got an answer")
	}
	if got, err := get(client(t, 5*time.Second), front.url()+"/a", as("two")); got != "/a" || err != nil {
		t.Errorf("the other worker got %q, %v", got, err)
	}
	if _, err := get(client(t, 5*time.Second), front.url()+"/a"); err == nil || !strings.Contains(err.Error(), "EOF") && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a stranger got %v", err)
	}
}
