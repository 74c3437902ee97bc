package emulators

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports we choose from. From 32768 on the kernel hands them out to whoever
// connects: a readiness request could even meet itself.
const (
	lowestPort  = 10000
	highestPort = 32767
)

// port is a loopback port that no other set of emulators has.
type port struct {
	number int
	// mine is a socket in the kernel's abstract namespace: it marks the port
	// as taken from the choice on, and goes when this process goes.
	mine net.Listener
}

func (p port) address() string { return "127.0.0.1:" + strconv.Itoa(p.number) }

// takePort finds a free port.
func takePort(ctx context.Context) (port, error) {
	var lc net.ListenConfig
	for range 1000 {
		p := port{number: lowestPort + rand.IntN(highestPort-lowestPort+1)}
		mine, err := lc.Listen(ctx, "unix", fmt.Sprintf("@webordinary-emulators-%d", p.number))
		if err != nil {
			continue
		}
		// On every address: one that somebody has on another is not free either.
		probe, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(p.number))
		if err != nil {
			mine.Close() //nolint:errcheck // it was never used
			continue
		}
		if err := probe.Close(); err != nil {
			return port{}, err
		}
		p.mine = mine
		return p, nil
	}
	return port{}, errors.New("no free port between 10000 and 32767")
}
