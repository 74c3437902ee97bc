package router

import (
	"container/heap"
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
)

// run owns the lane's state until the lane is closed and its last message is
// settled.
func (s *laneState) run() {
	defer close(s.ended)
	defer close(s.out)
	defer s.config.Inner.Close() //nolint:errcheck // nothing is left to lose
	s.gather()
	idle := time.NewTimer(s.config.Idle)
	idle.Stop()
	idling, isIdle := false, false
	for {
		s.heedClosing()
		if s.closed && s.running == nil {
			return
		}
		switch empty := s.count() == 0 && s.config.Idle > 0; {
		case empty && !idling:
			idling, isIdle = true, false
			idle.Reset(s.config.Idle)
		case !empty && idling:
			idling, isIdle = false, false
			idle.Stop()
		}
		select {
		case m, ok := <-s.receive():
			s.arrive(m, ok)
		case s.handOut() <- s.next():
			s.start()
		case <-s.acked():
			s.settle(func(m *message.Message) { m.Ack() })
		case <-s.nacked():
			s.settle(s.refused())
		case <-idle.C:
			isIdle = true
		case when(isIdle, s.idle) <- struct{}{}:
		case when(s.paused && s.count() > 0, s.arrived) <- struct{}{}:
		case f := <-s.requests:
			f(s)
		case <-unless(s.closed, s.closing): // see heedClosing
		}
	}
}

// heedClosing comes before all else that is possible: once closing began,
// nothing is handed out.
func (s *laneState) heedClosing() {
	select {
	case <-unless(s.closed, s.closing):
		s.stopReceiving()
	default:
	}
}

// gather receives what is there before the first message is handed out, so
// that the order of sending is kept among them.
func (s *laneState) gather() {
	end := time.NewTimer(s.config.Gather)
	defer end.Stop()
	quiet := time.NewTimer(s.config.Quiet)
	defer quiet.Stop()
	for len(s.waiting) < s.config.Hold {
		select {
		case m, ok := <-s.in:
			s.arrive(m, ok)
			if !ok {
				return
			}
			quiet.Reset(s.config.Quiet)
		case f := <-s.requests:
			f(s)
		case <-quiet.C:
			return
		case <-end.C:
			return
		case <-s.closing:
			return
		}
	}
}

// when and unless make a case of a select conditional.
func when[T any](ok bool, c chan T) chan T {
	if ok {
		return c
	}
	return nil
}

func unless[T any](not bool, c chan T) chan T { return when(!not, c) }

func (s *laneState) receive() <-chan *message.Message {
	if s.closed || s.count() >= s.config.Hold {
		return nil
	}
	return s.in
}

// handOut is nil while nothing may be handed to the Router.
func (s *laneState) handOut() chan<- *message.Message {
	if s.closed || s.paused || s.running != nil || len(s.waiting) == 0 {
		return nil
	}
	return s.out
}

// next makes the message that the Router would get now.
func (s *laneState) next() *message.Message {
	if s.handOut() == nil {
		return nil
	}
	h := s.waiting[0]
	if h.outer == nil {
		ctx := context.WithValue(context.WithoutCancel(h.receipt.Context()), itemKey{}, h.item)
		ctx, h.unbind = s.config.Bind(ctx)
		ctx, h.cancel = context.WithCancelCause(ctx)
		h.outer = h.receipt.Copy()
		h.outer.SetContext(ctx)
	}
	return h.outer
}

func (s *laneState) start() { s.running = heap.Pop(&s.waiting).(*held) } //nolint:forcetypeassert // the heap holds nothing else

func (s *laneState) acked() <-chan struct{} {
	if s.running == nil {
		return nil
	}
	return s.running.outer.Acked()
}

func (s *laneState) nacked() <-chan struct{} {
	if s.running == nil {
		return nil
	}
	return s.running.outer.Nacked()
}

// refused says what to do with the running message that was nacked: who ended it,
// or the lane, gives it to somebody else; one that failed by itself may have to wait.
func (s *laneState) refused() func(*message.Message) {
	if s.closed || s.running.outer.Context().Err() != nil {
		return s.config.HandBack
	}
	return func(m *message.Message) { m.Nack() }
}

func (s *laneState) settle(how func(*message.Message)) {
	h := s.running
	s.running = nil
	h.release()
	how(h.receipt)
}

// release frees what next made.
func (h *held) release() {
	if h.outer != nil {
		h.cancel(context.Canceled)
		h.unbind()
		h.outer = nil
	}
}

func (s *laneState) stopReceiving() {
	s.closed = true
	for _, h := range s.waiting {
		h.release()
		s.config.HandBack(h.receipt)
	}
	s.waiting = nil
}

// arrive takes one delivery.
func (s *laneState) arrive(m *message.Message, ok bool) {
	if !ok {
		s.in = nil
		s.beginClose()
		return
	}
	item := s.config.Read(m)
	if h := s.find(item.Key); h != nil {
		s.again(h, item, m)
		return
	}
	if s.interrupted(item) {
		s.running.cancel(&handlers.InterruptError{By: item.Command})
	}
	if item.Only {
		m.Ack()
		return
	}
	s.seq++
	heap.Push(&s.waiting, &held{item: item, receipt: m, seq: s.seq})
}

// again takes one more delivery of a held command.
func (s *laneState) again(h *held, item Item, m *message.Message) {
	old := h.receipt
	if item.ID != h.item.ID && !item.Sent.Before(h.item.Sent) {
		m.Ack()
		return
	}
	h.receipt = m
	if h != s.running {
		h.release() // the Router gets the latest
	}
	if item.ID == h.item.ID {
		s.config.Drop(old)
		return
	}
	h.item = item
	heap.Init(&s.waiting)
	old.Ack()
}

func (s *laneState) find(key string) *held {
	if key == "" {
		return nil
	}
	if s.running != nil && s.running.item.Key == key {
		return s.running
	}
	for _, h := range s.waiting {
		if h.item.Key == key {
			return h
		}
	}
	return nil
}

// interrupted reports whether a message that arrives now stops what runs.
func (s *laneState) interrupted(by Item) bool {
	if s.running == nil || s.config.Policy == Never || by.Refused {
		return false
	}
	runs := s.running.item
	if !by.Sent.After(runs.Sent) {
		return false
	}
	if by.Only {
		return true
	}
	if by.Again || by.Command == runs.Command {
		return false
	}
	if !by.Interrupts && s.config.Policy != AnyThread && by.Thread != runs.Thread {
		return false
	}
	return by.Known == nil || !by.Known()
}

// itemHeap is a heap of messages, the one sent first on top.
type itemHeap []*held

func (h itemHeap) Len() int { return len(h) }

func (h itemHeap) Less(i, j int) bool {
	if !h[i].item.Sent.Equal(h[j].item.Sent) {
		return h[i].item.Sent.Before(h[j].item.Sent)
	}
	return h[i].seq < h[j].seq
}

func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *itemHeap) Push(x any) { *h = append(*h, x.(*held)) } //nolint:forcetypeassert // see start

// Pop implements heap.Interface.
func (h *itemHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
