package router

import (
	"sync"
	"testing"
)

// TestBusyIsToldInOrder: jobs of several projects begin and end at once.
func TestBusyIsToldInOrder(t *testing.T) {
	told, busy := 0, false
	r := &Router{config: Config{Busy: func(on bool) {
		if on == busy {
			t.Errorf("word %d is %t, as the one before", told, on)
		}
		told, busy = told+1, on
	}}}
	var projects sync.WaitGroup
	for range 4 {
		projects.Go(func() {
			for range 5000 {
				r.busy(1)
				r.busy(-1)
			}
		})
	}
	projects.Wait()
	if busy || told == 0 {
		t.Errorf("busy is %t after %d words", busy, told)
	}
}
