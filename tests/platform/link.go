package platform

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Link is the network between one worker and one server. Its methods may be called
// from several goroutines.
type Link struct {
	// heard is told of each request of the worker that passes; nil means nobody
	// listens. It does not change.
	heard func(*http.Request)

	mu      sync.Mutex
	state   linkState
	delay   time.Duration
	changed chan struct{} // closed, and made anew, when state or delay change
	conns   map[net.Conn]bool
}

type linkState int

const (
	linkOpen  linkState = iota
	linkReset           // connections are reset, and new ones refused
	linkHole            // connections are accepted, and no byte passes
)

var errReset = errors.New("the network is cut")

func newLink() *Link {
	return &Link{changed: make(chan struct{}), conns: map[net.Conn]bool{}}
}

// Reset resets all connections, and each new one, until Restore.
func (l *Link) Reset() { l.set(linkReset) }

// Swallow lets no byte pass until Restore, which lets those pass that waited: a
// request that was under way arrives late.
func (l *Link) Swallow() { l.set(linkHole) }

// Restore ends Reset and Swallow.
func (l *Link) Restore() { l.set(linkOpen) }

// Delay holds each piece of data back for a while, in each direction.
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
	l.notify()
}

func (l *Link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	l.notify()
	if s == linkReset {
		for c := range l.conns {
			abort(c)
		}
	}
}

func (l *Link) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// pass waits until data may pass. An error means that the connection is dead.
func (l *Link) pass(done <-chan struct{}) error {
	var late <-chan time.Time
	waited := false
	for {
		l.mu.Lock()
		state, delay, changed := l.state, l.delay, l.changed
		l.mu.Unlock()
		if state == linkReset {
			return errReset
		}
		if state == linkOpen && (delay == 0 || waited) {
			return nil
		}
		if delay > 0 && !waited && late == nil {
			late = time.After(delay)
		}
		select {
		case <-changed:
		case <-late:
			late, waited = nil, true
		case <-done:
			return net.ErrClosed
		}
	}
}

func (l *Link) add(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
}

func (l *Link) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// carry carries data between a worker and a server until one of them, or the link,
// ends the connection.
func (l *Link) carry(worker, server net.Conn, done <-chan struct{}) {
	l.add(worker)
	l.add(server)
	defer l.remove(worker)
	defer l.remove(server)
	var both sync.WaitGroup
	ear := listen(l.heard)
	both.Go(func() { l.copy(server, worker, ear, done) })
	both.Go(func() { l.copy(worker, server, io.Discard, done) })
	both.Wait()
	ear.Close()    //nolint:errcheck // it is a pipe's, or nothing
	worker.Close() //nolint:errcheck // its end is wanted
	server.Close() //nolint:errcheck // its end is wanted
}

func (l *Link) copy(to, from net.Conn, also io.Writer, done <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if perr := l.pass(done); perr != nil {
			abort(to)
			abort(from)
			return
		}
		if n > 0 {
			also.Write(buf[:n]) //nolint:errcheck // who listens does not disturb
			if _, werr := to.Write(buf[:n]); werr != nil {
				abort(from)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			if c, ok := to.(interface{ CloseWrite() error }); ok {
				c.CloseWrite() //nolint:errcheck // the other end may be gone
			}
			return
		}
		if err != nil {
			abort(to)
			return
		}
	}
}

// abort closes a connection in such a way that the other end gets a reset.
func abort(c net.Conn) {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) //nolint:errcheck // then it is an ordinary end
	}
	c.Close() //nolint:errcheck // its end is wanted
}
