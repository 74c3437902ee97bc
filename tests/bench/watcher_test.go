package bench

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/apicall"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

// call is one API call.
type call struct {
	name string // service:Operation
	at   time.Time
}

// watcher notes the calls of one worker.
type watcher struct {
	mu      sync.Mutex
	calls   []call
	first   map[string]chan struct{} // closed with the first call of a name
	servers []string                 // as the environment has them
}

// watch starts proxies to the emulators for one worker.
func watch(tb testing.TB, set *emulators.Set) *watcher {
	tb.Helper()
	w := &watcher{first: map[string]chan struct{}{}}
	for service, server := range map[string]string{"SQS": set.SQS, "DYNAMODB": set.DynamoDB, "S3": set.S3} {
		w.servers = append(w.servers, "AWS_ENDPOINT_URL_"+service+"="+w.proxy(tb, server))
	}
	return w
}

// straight is the environment of a worker without a proxy between it and the
// emulators.
func straight(set *emulators.Set) []string {
	return []string{"AWS_ENDPOINT_URL_SQS=" + set.SQS, "AWS_ENDPOINT_URL_DYNAMODB=" + set.DynamoDB, "AWS_ENDPOINT_URL_S3=" + set.S3}
}

func (w *watcher) proxy(tb testing.TB, server string) string {
	tb.Helper()
	target, err := url.Parse(server)
	if err != nil {
		tb.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // S3's signatures cover it
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64},
		ErrorHandler: func(out http.ResponseWriter, _ *http.Request, _ error) { out.WriteHeader(http.StatusBadGateway) }, // the worker hung up
	}
	front := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if name := apicall.Name(r); name != "" {
			w.note(call{name, time.Now()})
		}
		proxy.ServeHTTP(out, r)
	}))
	tb.Cleanup(front.Close)
	return front.URL
}

func (w *watcher) note(c call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := slices.ContainsFunc(w.calls, func(old call) bool { return old.name == c.name })
	w.calls = append(w.calls, c)
	if !known {
		close(w.firstOf(c.name))
	}
}

func (w *watcher) firstOf(name string) chan struct{} {
	if w.first[name] == nil {
		w.first[name] = make(chan struct{})
	}
	return w.first[name]
}

// await returns when the first call of a name was made.
func (w *watcher) await(tb testing.TB, name string) time.Time {
	tb.Helper()
	w.mu.Lock()
	made := w.firstOf(name)
	w.mu.Unlock()
	select {
	case <-made:
	case <-time.After(patience):
		tb.Fatalf("no call of %s within %s", name, patience)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[slices.IndexFunc(w.calls, func(c call) bool { return c.name == name })].at
}

// between returns the times of the calls in a window, by name.
func (w *watcher) between(from, to time.Time) map[string][]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string][]time.Time{}
	for _, c := range w.calls {
		if !c.at.Before(from) && c.at.Before(to) {
			found[c.name] = append(found[c.name], c.at)
		}
	}
	return found
}

// counts is how many calls there are, by name.
type counts map[string]float64

// rates is how many calls a window has in an hour. Of calls that repeat, it is their
// mean distance that counts: so a window's ends do not matter.
func rates(window map[string][]time.Time, length time.Duration) counts {
	all := counts{}
	for name, at := range window {
		all[name] = float64(len(at)) / length.Hours()
		if n := len(at); n > 2 {
			all[name] = float64(n-1) / at[n-1].Sub(at[0]).Hours()
		}
	}
	return all
}

// String is the sum, and what it consists of.
func (c counts) text(decimals int) string {
	names := slices.Sorted(maps.Keys(c))
	slices.SortStableFunc(names, func(a, b string) int { return int(c[b]*10) - int(c[a]*10) })
	sum := 0.0
	var parts []string
	for _, name := range names {
		sum += c[name]
		parts = append(parts, fmt.Sprintf("%s %.*f", name, decimals, c[name]))
	}
	return fmt.Sprintf("%.*f: %s", decimals, sum, strings.Join(parts, ", "))
}

func TestRates(t *testing.T) {
	from := time.Now()
	at := func(seconds ...int) (all []time.Time) {
		for _, s := range seconds {
			all = append(all, from.Add(time.Duration(s)*time.Second))
		}
		return all
	}
	got := rates(map[string][]time.Time{"sqs:ReceiveMessage": at(4, 9, 14), "dynamodb:Scan": at(1, 2)}, time.Minute)
	if text := got.text(0); text != "840: sqs:ReceiveMessage 720, dynamodb:Scan 120" {
		t.Errorf("got %q", text)
	}
}
