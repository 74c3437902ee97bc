package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// outlet opens a job that has to do with no model, and may reach hosts.
func outlet(t *testing.T, c Config, hosts ...string) *Job {
	t.Helper()
	var err error
	if c.Hosts, err = ParseHosts(hosts); err != nil {
		t.Fatal(err)
	}
	if c.Resolve == nil {
		c.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	}
	j, err := New(c).OpenProxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func basic(password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+password))
}

// say sends the head of a request as it is, and returns the answer's status and
// text.
func say(t *testing.T, j *Job, head ...string) (status int, text string) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", j.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return resp.StatusCode, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// through is a client that goes by the proxy.
func through(t *testing.T, j *Job, tls *http.Transport) *http.Client {
	t.Helper()
	c := client(t)
	transport, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	if tls != nil {
		transport.TLSClientConfig = tls.TLSClientConfig
	}
	transport.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://x:" + j.Token + "@" + j.Address) }
	return c
}

func get(t *testing.T, c *http.Client, address string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestProxyPasses(t *testing.T) {
	var header http.Header
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		_, _ = fmt.Fprint(w, r.Host+" "+r.URL.Path+" "+r.Header.Get("Cookie"))
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	hosts := []string{plain.Listener.Addr().String(), secure.Listener.Addr().String()}
	trust, ok := secure.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	near := outlet(t, Config{}, hosts...)
	// The worker itself may have to take a proxy.
	far := outlet(t, Config{Proxy: func(*http.Request) (*url.URL, error) {
		return url.Parse("http://x:" + near.Token + "@" + near.Address)
	}}, hosts...)
	for name, j := range map[string]*Job{"direct": near, "by another proxy": far} {
		for _, server := range []*httptest.Server{plain, secure} {
			status, body := get(t, through(t, j, trust), server.URL+"/a/b")
			if want := server.Listener.Addr().String() + " /a/b "; status != 200 || body != want {
				t.Errorf("%s: %d %q, want %q", name, status, body, want)
			}
			if header.Get("Proxy-Authorization") != "" || header.Get("X-Forwarded-For") != "" {
				t.Errorf("%s: passed %v", name, header)
			}
		}
	}
	if status, body := say(t, far, "GET http://"+hosts[0]+"/ HTTP/1.1", "Host: evil.example", "Proxy-Authorization: "+basic(far.Token)); status != 200 {
		t.Errorf("another Host: %d %s", status, body)
	}
}

// TestProxyRefuses has what a child may try.
func TestProxyRefuses(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("came through") }))
	defer other.Close()
	addresses := map[string]string{
		"loopback.example": "127.0.0.1", "private.example": "10.0.0.1", "mapped.example": "::ffff:127.0.0.1", "six.example": "::1",
		"metadata.example": "169.254.169.254", "nat.example": "64:ff9b::7f00:1", "cgn.example": "100.64.0.1", "any.example": "0.0.0.0",
		"exact.example": "169.254.169.254", "half.example": "1.1.1.1",
	}
	allowed := []string{"localhost:1"}
	for name := range addresses {
		allowed = append(allowed, name)
	}
	allowed = append(allowed, "exact.example:443", "10.9.9.9", "127.0.0.1", "169.254.169.254")
	var log bytes.Buffer
	j := outlet(t, Config{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			all := []netip.Addr{netip.MustParseAddr(addresses[name])}
			if name == "half.example" { // one is public, the other is not
				all = append(all, netip.MustParseAddr("127.0.0.1"))
			}
			return all, nil
		},
	}, allowed...)
	hosts := []string{
		"169.254.169.254:80", "169.254.169.254", other.Listener.Addr().String(), "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80",
		"localhost.:80", "LOCALHOST:80", "2130706433:80", "0x7f000001:80", "017700000001:80", "127.1:80", "0:80", "127.0.0.1:80",
		"10.9.9.9:443", "registry.npmjs.org:22", "private.example:22", "evil.example:443", "[fe80::1%25eth0]:80", "a@127.0.0.1:80", j.Address,
		"evil\x1b[31m.example:80",
	}
	for name := range addresses {
		hosts = append(hosts, name+":443", name+":80")
	}
	credential := "Proxy-Authorization: " + basic(j.Token)
	for _, host := range hosts {
		for _, line := range []string{"CONNECT " + host + " HTTP/1.1", "GET http://" + host + "/latest/meta-data HTTP/1.1"} {
			if strings.HasPrefix(line, "GET") && host == j.Address { // the way to the model, which this job has not
				line = "POST http://" + host + "/v1/messages HTTP/1.1"
			}
			status, text := say(t, j, line, "Host: registry.npmjs.org", credential)
			ok := status == 403 && strings.Contains(text, "AGENT_ALLOWED_HOSTS")
			if strings.HasPrefix(line, "POST") {
				ok = status == 403 && strings.Contains(text, "no model")
			}
			if !ok && (status != 400 || !strings.ContainsAny(host, "\x1b@%")) { // net/http refuses some by itself
				t.Errorf("%q: %d %q", line, status, text)
			}
		}
	}
	for _, line := range []string{"GET https://private.example/ HTTP/1.1", "GET ftp://private.example/ HTTP/1.1", "CONNECT private.example HTTP/1.1"} {
		if status, text := say(t, j, line, "Host: x", credential); status != 403 && status != 400 {
			t.Errorf("%q: %d %q", line, status, text)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != maxTold || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

func TestProxyToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("came through") }))
	defer server.Close()
	where := server.Listener.Addr().String()
	j, other := outlet(t, Config{}, where), outlet(t, Config{}, where)
	for name, credential := range map[string]string{
		"none": "X: y", "another job's": "Proxy-Authorization: " + basic(other.Token), "bearer": "Proxy-Authorization: Bearer " + j.Token,
		"empty": "Proxy-Authorization: " + basic(""), "no base64": "Proxy-Authorization: Basic " + j.Token,
		"as for the server": "Authorization: " + basic(j.Token), "as for the model": "X-Api-Key: " + j.Token,
	} {
		for _, line := range []string{"CONNECT " + where + " HTTP/1.1", "GET http://" + where + "/ HTTP/1.1"} {
			if status, _ := say(t, j, line, "Host: "+where, credential); status != http.StatusProxyAuthRequired {
				t.Errorf("%s, %s: %d", name, line, status)
			}
		}
	}
}

// TestModelAndProxy checks that an agent has both at one address, and a build has
// no model.
func TestModelAndProxy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "outside") }))
	defer server.Close()
	hosts, err := ParseHosts([]string{server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	j := open(t, Config{Hosts: hosts}, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "model") })
	if _, body := get(t, through(t, j, nil), server.URL); body != "outside" {
		t.Errorf("proxied: %q", body)
	}
	if _, _, body := do(t, request(t, j, http.MethodPost, "/v1/messages", hello)); body != "model" {
		t.Errorf("called: %q", body)
	}
	// A client that takes the proxy for loopback addresses, too.
	resp, err := through(t, j, nil).Do(request(t, j, http.MethodPost, "/v1/messages", hello))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if _ = resp.Body.Close(); err != nil || string(body) != "model" {
		t.Errorf("called by the proxy: %q, %v", body, err)
	}
	if status, _, body := do(t, request(t, outlet(t, Config{}), http.MethodPost, "/v1/messages", hello)); status != 403 {
		t.Errorf("a build's call: %d %s", status, body)
	}
}

// TestCloseEndsTunnels checks that nothing passes after the job, in either way.
func TestCloseEndsTunnels(t *testing.T) {
	var lc net.ListenConfig
	echo, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	ended := make(chan error, 1)
	go func() {
		c, err := echo.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			_ = c.Close()
		}
		ended <- err
	}()
	j := outlet(t, Config{}, echo.Addr().String())
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", j.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	// What is sent before the answer has come passes, too.
	if _, err := io.WriteString(c, "CONNECT "+echo.Addr().String()+" HTTP/1.1\r\nProxy-Authorization: "+basic(j.Token)+"\r\n\r\nhello"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	j.Close()
	if _, err := in.ReadByte(); err == nil {
		t.Error("the tunnel is open to the child")
	}
	if err := <-ended; err != nil && !errors.Is(err, syscall.ECONNRESET) { // it is closed to the other one
		t.Error(err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", j.Address); err == nil {
		_ = c.Close()
		t.Error("somebody listens")
	}
}

// TestConnectionsAreCapped checks that a child cannot take the worker's
// descriptors, and that places are given back.
func TestConnectionsAreCapped(t *testing.T) {
	j := outlet(t, Config{})
	var all []net.Conn
	for range maxConnections + 1 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", j.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		all = append(all, c)
	}
	last := all[maxConnections]
	if _, err := io.WriteString(last, "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = last.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := last.Read(make([]byte, 1)); err == nil {
		t.Fatalf("one more than allowed is answered: %d", n)
	}
	_ = all[0].Close()
	_ = last.SetReadDeadline(time.Time{})
	resp, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestTunnelsAreCapped(t *testing.T) {
	var lc net.ListenConfig
	silent, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	where := silent.Addr().String()
	j := outlet(t, Config{}, where)
	connect := func() int {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", j.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, "CONNECT "+where+" HTTP/1.1\r\nHost: "+where+"\r\nProxy-Authorization: "+basic(j.Token)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for range maxTunnels {
		if status := connect(); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if status := connect(); status != http.StatusServiceUnavailable {
		t.Errorf("one more: status %d", status)
	}
}

// TestIdleTunnelEnds checks that a tunnel ends when nothing passes, and lives while
// something does.
func TestIdleTunnelEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child, here := net.Pipe()
		there, server := net.Pipe()
		p := &pair{here: here, there: there}
		p.touch()
		done := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
			go func() { p.copy(way[0], way[1]); done <- struct{}{} }()
		}
		for range 3 {
			<-time.After(tunnelIdle - time.Second)
			go func() { _, _ = child.Write([]byte("x")) }()
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		<-done
		<-done
		if d := time.Since(began); d != tunnelIdle {
			t.Errorf("it ended after %s", d)
		}
	})
}

func TestEnv(t *testing.T) {
	j := outlet(t, Config{}, "localhost:4873", "127.0.0.1")
	env := map[string]string{}
	for _, kv := range j.Env() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	if want := "http://x:" + j.Token + "@" + j.Address; env["HTTPS_PROXY"] != want || env["http_proxy"] != want || env["npm_config_https_proxy"] != want {
		t.Error(env)
	}
	if env["NO_PROXY"] != "::1" || env["npm_config_noproxy"] != "::1" { // what is listed is reached by the proxy
		t.Error(env)
	}
}
