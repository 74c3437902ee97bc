package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime returns a clock that goes on while the machine is suspended, which Go's
// monotonic clock does not: a lease does not last longer for a sleep. Nobody sets
// it back; it follows the wall clock as it was at the start.
func boottime() func() time.Time {
	start, wall := sinceBoot(), time.Now().Round(0)
	return func() time.Time { return wall.Add(sinceBoot() - start) }
}

func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}
