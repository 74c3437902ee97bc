// Package apicall records which API calls reach the emulators, and says which IAM
// permissions they need. So the policy that the worker gets in AWS is compared with
// what the worker did in the tests: nothing that it needs is missing, and nothing is
// allowed that it does not need.
package apicall

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Variable is the environment variable that names a file. Where it is set, each
// Recorder adds the calls it sees for the first time to it, a line each, for the
// list of all suites.
const Variable = "WEBORDINARY_API_CALLS"

// Name returns a request's call as service:Operation, or "" for what is none, as a
// look whether the emulator is ready. Buckets are expected in the path.
func Name(r *http.Request) string {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		service, operation, _ := strings.Cut(target, ".")
		switch {
		case service == "AmazonSQS":
			return "sqs:" + operation
		case strings.HasPrefix(service, "DynamoDB_"):
			return "dynamodb:" + operation
		case strings.HasPrefix(service, "Logs_"):
			return "logs:" + operation
		}
		return service + ":" + operation
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-") {
		return ""
	}
	return "s3:" + s3Operation(r)
}

func s3Operation(r *http.Request) string {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	if bucket == "" {
		return "ListBuckets"
	}
	if key == "" {
		return bucketOperation(r.Method, q)
	}
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPut && q.Has("uploadId"):
		return "UploadPart"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		return "CopyObject"
	}
	known := map[string]string{
		http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodPut: "PutObject", http.MethodDelete: "DeleteObject",
	}
	for _, sub := range []string{"acl", "tagging", "attributes", "legal-hold", "retention"} {
		if q.Has(sub) {
			return r.Method + "?" + sub
		}
	}
	if name := known[r.Method]; name != "" {
		return name
	}
	return r.Method
}

func bucketOperation(method string, q url.Values) string {
	switch {
	case method == http.MethodGet && q.Get("list-type") == "2":
		return "ListObjectsV2"
	case method == http.MethodPost && q.Has("delete"):
		return "DeleteObjects"
	case method == http.MethodHead:
		return "HeadBucket"
	}
	q.Del("x-id")
	if method == http.MethodGet && q.Has("website") {
		return "GetBucketWebsite"
	}
	if method == http.MethodGet && q.Has("policy") {
		return "GetBucketPolicy"
	}
	if len(q) > 0 {
		var subs []string
		for name := range q {
			subs = append(subs, name)
		}
		slices.Sort(subs)
		return method + "?" + strings.Join(subs, "&")
	}
	return map[string]string{http.MethodGet: "ListObjects", http.MethodPut: "CreateBucket", http.MethodDelete: "DeleteBucket"}[method]
}

// Recorder remembers calls. Its zero value works.
type Recorder struct {
	// Apart is set for calls that are not the worker's: they go to no file.
	Apart bool

	mu    sync.Mutex
	calls map[string]int
}

// Proxy starts a server that passes all on to an emulator, and records it. Its URL
// is for the worker alone: what the tests themselves do is of no interest. It keeps
// the Host header, which S3's signatures cover.
func (c *Recorder) Proxy(tb testing.TB, emulator string) string {
	tb.Helper()
	target, err := url.Parse(emulator)
	if err != nil {
		tb.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		Transport: &http.Transport{},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // a worker that was killed has hung up
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.Note(Name(r)); err != nil {
			tb.Error(err)
		}
		proxy.ServeHTTP(w, r)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// Note records a call that was seen in another way.
func (c *Recorder) Note(name string) error {
	if c.Apart {
		return c.note(name, "")
	}
	return c.note(name, os.Getenv(Variable))
}

func (c *Recorder) note(name, file string) error {
	if name == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[name]++
	if c.calls[name] > 1 || file == "" {
		return nil
	}
	f, err := os.OpenFile(path.Clean(file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("record API calls: %w", err)
	}
	if _, err := f.WriteString(name + "\n"); err != nil {
		f.Close() //nolint:errcheck // the first error counts
		return fmt.Errorf("record API calls: %w", err)
	}
	return f.Close()
}

// Calls returns the recorded calls in the order of their names.
func (c *Recorder) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.calls {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
