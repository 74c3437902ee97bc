package process

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A child in a network namespace of its own reaches the proxy, and nothing else,
// like this: inside, process 1 listens on the proxy's address and hands the
// listening socket out to the keeper, by a pair of sockets that the child never
// sees. The keeper accepts what connects there, and connects it to the proxy.

// pairOfSockets returns two sockets that are connected to each other.
func pairOfSockets() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "outlet"), os.NewFile(uintptr(fds[1]), "outlet"), nil
}

// handOut listens on an address, and sends the socket to the other end of outlet.
func handOut(outlet int, address string) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Is4() {
		return errors.New("want 127.0.0.1:port")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // the other end has its own
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 128); err != nil {
		return err
	}
	return unix.Sendmsg(outlet, []byte{0}, unix.UnixRights(fd), nil, 0)
}

// relay connects the child to the proxy for as long as the keeper runs. An error
// is for the child to see: its connection is closed.
func relay(outlet *os.File, proxy string) {
	l, err := takeIn(outlet)
	if err != nil {
		return // there is no child any more
	}
	defer l.Close() //nolint:errcheck // the keeper ends
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go connect(conn, proxy)
	}
}

// takeIn receives the listener.
func takeIn(outlet *os.File) (net.Listener, error) {
	defer outlet.Close() //nolint:errcheck // nothing was written
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(outlet.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("no listener"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close() //nolint:errcheck // the listener has its own
	return net.FileListener(f)
}

// connect copies both ways until both have ended.
func connect(inside net.Conn, proxy string) {
	defer inside.Close()                   //nolint:errcheck // it has ended
	outside, err := net.Dial("tcp", proxy) //nolint:noctx // it is on this machine
	if err != nil {
		return
	}
	defer outside.Close() //nolint:errcheck // it has ended
	var both sync.WaitGroup
	both.Go(func() { pour(outside, inside) })
	both.Go(func() { pour(inside, outside) })
	both.Wait()
}

// pour copies one way, and passes the end on.
func pour(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()   //nolint:errcheck // it is broken
		from.Close() //nolint:errcheck // it is broken
		return
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() //nolint:errcheck // it may have ended already
	}
}
