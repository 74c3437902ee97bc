package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// TestSiteHandler serves what a bucket's website would, and nothing that is hidden.
func TestSiteHandler(t *testing.T) {
	h := siteHandler(fstest.MapFS{
		"index.html": {Data: []byte("home")}, "menu/index.html": {Data: []byte("menu")}, "style.css": {Data: []byte("css")},
		".state/secret": {Data: []byte("secret")}, "empty/x.txt": {Data: []byte("x")},
	})
	for path, want := range map[string]string{
		"/": "200 home", "/menu/": "200 menu", "/style.css": "200 css", "/.state/secret": "404", "/empty/": "404", "/none": "404",
		"/../etc/passwd": "404", "/menu": "404",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		code, text, _ := strings.Cut(want, " ")
		if got := http.StatusText(w.Code); w.Code == http.StatusOK != (code == "200") || text != "" && body != text {
			t.Errorf("%s: %d %s %q, want %s", path, w.Code, got, body, want)
		}
	}
}
