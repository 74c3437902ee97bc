package platform

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// proxy listens on loopback and carries each connection to a server.
type proxy struct {
	listener net.Listener
	target   string
	// route finds the link of a connection, and the connection to read from:
	// it may have been read from already.
	route func(net.Conn) (*Link, net.Conn, error)
	done  chan struct{}
	conns sync.WaitGroup
}

// startProxy starts a proxy that ends with the test.
func startProxy(tb testing.TB, target string, route func(net.Conn) (*Link, net.Conn, error)) *proxy {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{listener: l, target: strings.TrimPrefix(target, "http://"), route: route, done: make(chan struct{})}
	p.conns.Go(p.accept)
	tb.Cleanup(func() {
		close(p.done)
		l.Close() //nolint:errcheck // its end is wanted
		p.conns.Wait()
	})
	return p
}

func (p *proxy) url() string  { return "http://" + p.host() }
func (p *proxy) host() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.conns.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	ended := make(chan struct{})
	defer close(ended)
	p.conns.Go(func() { // also one that says nothing ends with the proxy
		select {
		case <-p.done:
			c.Close() //nolint:errcheck // its end is wanted
		case <-ended:
		}
	})
	link, worker, err := p.route(c)
	if err != nil {
		abort(c)
		return
	}
	if link.pass(p.done) != nil {
		abort(c)
		return
	}
	var d net.Dialer
	server, err := d.DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		abort(c)
		return
	}
	link.carry(worker, server, p.done)
}

// alwaysBy is the route of a proxy that one worker has for itself.
func alwaysBy(l *Link) func(net.Conn) (*Link, net.Conn, error) {
	return func(c net.Conn) (*Link, net.Conn, error) { return l, c, nil }
}

// gitFront is the git server's address. All workers use the same one, as it is part
// of the messages; each has a token of its own, by which its link is found.
type gitFront struct {
	*proxy
	mu    sync.Mutex
	links map[string]*Link // by token
}

func startGitFront(tb testing.TB, target string) *gitFront {
	tb.Helper()
	g := &gitFront{links: map[string]*Link{}}
	g.proxy = startProxy(tb, target, g.find)
	return g
}

func (g *gitFront) add(token string, l *Link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.links[token] = l
}

// find reads the first request's headers.
func (g *gitFront) find(c net.Conn) (*Link, net.Conn, error) {
	var seen strings.Builder
	in := bufio.NewReader(c)
	token := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, nil, err
		}
		seen.WriteString(line)
		if strings.TrimSpace(line) == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		if http.CanonicalHeaderKey(name) == "Authorization" {
			token = password(strings.TrimSpace(value))
		}
	}
	g.mu.Lock()
	link := g.links[token]
	g.mu.Unlock()
	if link == nil {
		return nil, nil, fmt.Errorf("a git request without a worker's token: %q", seen.String())
	}
	return link, &readAgain{Conn: c, first: strings.NewReader(seen.String()), rest: in}, nil
}

// password returns that of a Basic authorization.
func password(header string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "Basic "))
	if err != nil {
		return ""
	}
	_, p, _ := strings.Cut(string(b), ":")
	return p
}

// readAgain is a connection whose first bytes were read before.
type readAgain struct {
	net.Conn
	first *strings.Reader
	rest  *bufio.Reader
}

// Read implements net.Conn.
func (r *readAgain) Read(p []byte) (int, error) {
	if r.first.Len() > 0 {
		return r.first.Read(p)
	}
	return r.rest.Read(p)
}

// NetConn returns the connection itself.
func (r *readAgain) NetConn() net.Conn { return r.Conn }

// CloseWrite ends what is written.
func (r *readAgain) CloseWrite() error {
	if c, ok := r.Conn.(*net.TCPConn); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
