package gateway

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	maxConnections = 128             // of a job, to us
	maxTunnels     = 64              // of a job, to others
	maxTold        = 20              // refused hosts that are logged, of a job
	tunnelIdle     = 2 * time.Minute // without a byte in either direction
)

// blockedError says that a child may not reach what it wants to.
type blockedError struct {
	host string // as it was written, bounded
	why  string
}

// Error implements error.
func (e *blockedError) Error() string {
	return fmt.Sprintf("%s %s; AGENT_ALLOWED_HOSTS lists what can be reached from here", e.host, e.why)
}

// Env are the variables by which programs find the proxy.
func (j *Job) Env() []string {
	var env []string
	address := "http://x:" + j.Token + "@" + j.Address
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "npm_config_proxy", "npm_config_https_proxy"} {
		env = append(env, name+"="+address)
	}
	direct := strings.Join(j.config.Hosts.direct(), ",")
	for _, name := range []string{"NO_PROXY", "no_proxy", "npm_config_noproxy"} {
		env = append(env, name+"="+direct)
	}
	return append(env, "NODE_USE_ENV_PROXY=1") // else Node's own fetch goes its own way
}

// outward proxies a request of the child to somebody else.
func (j *Job) outward(w http.ResponseWriter, r *http.Request) {
	if !j.mayProxy(r) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="webordinary"`)
		http.Error(w, "this is not the job's token", http.StatusProxyAuthRequired)
		return
	}
	select {
	case j.tunnels <- struct{}{}:
		defer func() { <-j.tunnels }()
	default:
		http.Error(w, "too many connections at the same time", http.StatusServiceUnavailable)
		return
	}
	t, exact, err := j.target(r)
	if err != nil {
		j.refuse(w, r, err)
		return
	}
	if r.Method == http.MethodConnect {
		j.tunnel(w, r, t, exact)
		return
	}
	j.forwarding.ServeHTTP(w, r)
}

func (j *Job) mayProxy(r *http.Request) bool {
	encoded, ok := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	if !ok {
		return false
	}
	pair, err := base64.StdEncoding.DecodeString(encoded)
	_, got, _ := strings.Cut(string(pair), ":")
	return err == nil && subtle.ConstantTimeCompare([]byte(got), []byte(j.Token)) == 1
}

// target is what a request is to reach, if it is listed.
func (j *Job) target(r *http.Request) (target, bool, error) {
	where := r.URL.Host
	if r.Method != http.MethodConnect && r.URL.Scheme != "http" {
		return target{}, false, &blockedError{bounded(where), "is asked for by another protocol than http"}
	}
	host, port, err := parseHost(where)
	if err == nil && port == 0 && r.Method != http.MethodConnect {
		port = portHTTP
	}
	if err != nil || port == 0 {
		return target{}, false, &blockedError{bounded(where), "is not a host that can be listed"}
	}
	t := target{host, port}
	listed, exact := j.config.Hosts.listed(t)
	if !listed {
		return target{}, false, &blockedError{t.String(), "is not allowed"}
	}
	return t, exact, nil
}

// bounded makes a text that is somebody's fit for a line.
func bounded(s string) string { return fmt.Sprintf("%q", s[:min(len(s), maxName)]) }

// refuse says why a request does not pass, and logs a host that is refused once.
func (j *Job) refuse(w http.ResponseWriter, r *http.Request, err error) {
	blocked, ok := errors.AsType[*blockedError](err)
	if !ok {
		http.Error(w, "the host could not be reached", http.StatusBadGateway)
		j.config.Log.DebugContext(r.Context(), "proxied request failed", slog.Any("error", err))
		return
	}
	http.Error(w, blocked.Error(), http.StatusForbidden)
	j.mu.Lock()
	told := j.told[blocked.host] || len(j.told) >= maxTold
	if !told {
		j.told[blocked.host] = true
	}
	last := !told && len(j.told) == maxTold
	j.mu.Unlock()
	if !told {
		j.config.Log.WarnContext(r.Context(), "host refused to a child", slog.String("host", blocked.host),
			slog.String("reason", blocked.why), slog.Bool("last_told", last))
	}
}

// tunnel connects the child with what it may reach, until one of them is done, no
// byte passes for a while, or the job ends.
func (j *Job) tunnel(w http.ResponseWriter, r *http.Request, t target, exact bool) {
	ctx := r.Context()
	there, err := j.dial(ctx, t, exact)
	if err != nil {
		j.refuse(w, r, err)
		return
	}
	defer there.Close() //nolint:errcheck // both ends have said what they had to
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "no tunnel through this connection", http.StatusInternalServerError)
		return
	}
	here, buffered, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer here.Close() //nolint:errcheck // as above
	stop := context.AfterFunc(ctx, func() { _, _ = here.Close(), there.Close() })
	defer stop()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	p := &pair{here: here, there: there}
	p.touch()
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.copy(here, there)
	}()
	// What came with the request is in the buffer.
	p.copy(there, buffered.Reader)
	<-back
}

// pair are the two ends of a tunnel.
type pair struct{ here, there net.Conn }

// touch notes that something passed.
func (p *pair) touch() {
	until := time.Now().Add(tunnelIdle)
	_, _ = p.here.SetDeadline(until), p.there.SetDeadline(until) // one that is closed says so when it is read
}

// copy passes on what comes, and its end. An error ends the other direction, too.
func (p *pair) copy(to net.Conn, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.touch()
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if errors.Is(err, io.EOF) {
			if c, ok := to.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = p.here.Close(), p.there.Close()
}

// forwarder passes requests on that are not in a tunnel.
func (j *Job) forwarder() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Host = p.In.URL.Host // whatever else was said
			p.Out.Header.Del("Upgrade")
			p.Out.Header.Del("Connection")
		},
		Transport:     j.outside,
		FlushInterval: -1,
		ErrorHandler:  j.refuse,
		ErrorLog:      slog.NewLogLogger(j.config.Log.Handler(), slog.LevelDebug),
	}
}

// outsideDial is the dialer of requests that are not in a tunnel.
func (j *Job) outsideDial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := parseHost(address)
	if err != nil {
		return nil, err
	}
	t := target{host, port}
	listed, exact := j.config.Hosts.listed(t)
	if !listed {
		return nil, &blockedError{t.String(), "is not allowed"}
	}
	return j.dial(ctx, t, exact)
}

// dial connects with a target at an address that was looked at, or by the proxy
// that the worker itself has to take. That one looks names up itself.
func (j *Job) dial(ctx context.Context, t target, exact bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var addresses []netip.Addr
	literal, err := netip.ParseAddr(t.host)
	if err == nil {
		addresses = []netip.Addr{literal}
	}
	scheme := "https"
	if t.port == portHTTP {
		scheme = "http"
	}
	proxy, err := j.config.Proxy(&http.Request{URL: &url.URL{Scheme: scheme, Host: t.String()}})
	if err != nil {
		return nil, fmt.Errorf("find the worker's proxy: %w", err)
	}
	if addresses == nil && proxy == nil {
		if addresses, err = j.config.Resolve(ctx, t.host); err != nil {
			return nil, fmt.Errorf("look up %s: %w", t.host, err)
		}
	}
	for _, a := range addresses {
		if !mayBe(t, exact, a) {
			return nil, &blockedError{t.String(), "has an address that is not public, and is not listed with this port"}
		}
	}
	if proxy != nil {
		return throughProxy(ctx, proxy, t)
	}
	var failed []error
	for _, a := range addresses {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(a, t.port).String())
		if err == nil {
			return c, nil
		}
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("connect: %w", errors.Join(failed...))
}

// throughProxy connects by another proxy.
func throughProxy(ctx context.Context, proxy *url.URL, t target) (_ net.Conn, err error) {
	address := proxy.Host
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, fmt.Errorf("the worker's proxy speaks %s, and only http and https are known", proxy.Scheme)
	case proxy.Port() == "" && proxy.Scheme == "http":
		address = net.JoinHostPort(proxy.Hostname(), "80")
	case proxy.Port() == "":
		address = net.JoinHostPort(proxy.Hostname(), "443")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect with the worker's proxy: %w", err)
	}
	raw := c
	defer func() {
		if err != nil {
			raw.Close() //nolint:errcheck // the first error counts
		}
	}()
	stop := context.AfterFunc(ctx, func() { raw.Close() }) //nolint:errcheck // what waits sees it
	defer stop()
	if proxy.Scheme == "https" {
		c = tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	request := "CONNECT " + t.String() + " HTTP/1.1\r\nHost: " + t.String() + "\r\n"
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return nil, fmt.Errorf("ask the worker's proxy: %w", err)
	}
	answer := bufio.NewReader(io.LimitReader(c, maxHeader))
	resp, err := http.ReadResponse(answer, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("hear the worker's proxy: %w", err)
	}
	resp.Body.Close() //nolint:errcheck // a tunnel's answer has none
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the worker's proxy answers %d", resp.StatusCode)
	}
	if answer.Buffered() > 0 {
		return nil, errors.New("the worker's proxy speaks before it is asked")
	}
	return c, nil
}

// fewConnections bounds a listener: a child that opens connections without end
// must not take the worker's descriptors.
type fewConnections struct {
	net.Listener
	slots chan struct{}
	done  <-chan struct{}
}

// Accept implements net.Listener. It waits while there are too many connections.
func (l fewConnections) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &fewConn{Conn: c, slots: l.slots}, nil
}

// fewConn gives its place back when it is closed.
type fewConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

// Close implements net.Conn.
func (c *fewConn) Close() error {
	defer c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}

// CloseWrite says that no more is written.
func (c *fewConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
