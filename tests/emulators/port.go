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
	for range 1000 {
		p, err := claimPort(ctx, lowestPort+rand.IntN(highestPort-lowestPort+1))
		if err == nil {
			return p, nil
		}
	}
	return port{}, errors.New("no free port between 10000 and 32767")
}

// claimPort takes a port if nobody has it.
func claimPort(ctx context.Context, number int) (port, error) {
	var lc net.ListenConfig
	mine, err := lc.Listen(ctx, "unix", fmt.Sprintf("@webordinary-emulators-%d", number))
	if err != nil {
		return port{}, fmt.Errorf("port %d belongs to other emulators: %w", number, err)
	}
	// On every address: one that somebody has on another is not free either.
	probe, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(number))
	if err == nil {
		err = probe.Close()
	}
	if err != nil {
		return port{}, errors.Join(fmt.Errorf("port %d is not free: %w", number, err), mine.Close())
	}
	return port{number: number, mine: mine}, nil
}
