package router

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// tenure is the time in which a project is ours.
type tenure struct {
	r           *Router
	pair        protocol.Pair
	lease       *claim.Lease
	lane        *Lane
	instruction *handlers.Instruction
	handler     *message.Handler
	log         *slog.Logger
}

var errStopping = errors.New("the worker is shutting down and takes no project")

// open begins a tenure: the subscription first, then the handler.
func (r *Router) open(_ context.Context, p protocol.Pair, l *claim.Lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stopping:
		return handBackError{errStopping}
	default:
	}
	t := &tenure{r: r, pair: p, lease: l, log: r.config.Log.With(slog.String("project_id", p.ProjectID), slog.String("user_id", p.UserID))}
	instruction := r.config.Instruction
	instruction.Pair, instruction.Lease, instruction.Names = p, l, r.config.Names
	t.instruction = &instruction
	t.lane = NewLane(LaneConfig{
		Inner: r.config.Queues.Subscriber(nil), Read: t.read, Policy: r.config.Policy,
		Idle: r.config.IdleTimeout, Bind: t.bind,
	})
	topic := r.config.Names.Input(p)
	messages, err := t.lane.Subscribe(r.ctx, topic) //nolint:contextcheck // the tenure outlives the message
	if err != nil {
		return err
	}
	r.n++
	t.handler = r.router.AddHandler("instruction-"+strconv.Itoa(r.n), topic, subscription(messages),
		r.config.Names.Output(p), &answers{t: t}, t.handle)
	t.tell(handlers.Step{Name: handlers.StepClaimed, Text: "working for project " + p.ProjectID + " and user " + p.UserID})
	if err := r.router.RunHandlers(r.ctx); err != nil { //nolint:contextcheck // as above
		t.tell(handlers.Step{Name: handlers.StepReleased})
		return errors.Join(err, t.lane.Close())
	}
	r.tenures.Go(t.run)
	t.log.Info("project claimed", slog.Int64("fence", l.Fence())) //nolint:sloglint // the tenure outlives the message's context
	return nil
}

func (t *tenure) tell(s handlers.Step) {
	if t.instruction.Step != nil {
		s.Pair = t.pair
		t.instruction.Step(s)
	}
}

type handBackError struct{ error }

// Is makes handlers.HandedBack know it.
func (handBackError) Is(target error) bool { return target == handlers.ErrShutdown }

// bind ends a job with the lease, and tells the middleware whose job it is.
func (t *tenure) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return t.lease.Bind(context.WithValue(ctx, instructionKey{}, t.instruction))
}

// subscription is a message.Subscriber whose Subscribe cannot fail: it was made
// before.
type subscription <-chan *message.Message

// Subscribe implements message.Subscriber.
func (s subscription) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return s, nil
}

// Close implements message.Subscriber; the lane is closed by its tenure.
func (subscription) Close() error { return nil }

// run ends the tenure when the project is idle, the worker leaves, or the lease
// is lost.
func (t *tenure) run() {
	defer t.r.gate.unreserve()
	ctx := context.WithoutCancel(t.r.ctx)
	for {
		select {
		case <-t.lane.Idle():
			if t.leave(ctx) {
				return
			}
		case <-t.r.stopping:
			t.shutDown(ctx)
			return
		case <-t.lease.Lost():
			t.lane.Cancel(claim.ErrLeaseLost)
			t.close()
			t.lease.Abandon()
			t.log.Warn("project lost: the lease ran out")
			return
		}
	}
}

// close ends the subscription and waits until the Router has dropped it.
func (t *tenure) close() {
	t.lane.Close() //nolint:errcheck // it cannot fail
	<-t.handler.Stopped()
	t.tell(handlers.Step{Name: handlers.StepReleased})
}

// leave gives an idle project up, unless work arrives at the last moment: false.
// From Releasing on, whoever sends work asks for a claim too; what was sent
// before is seen by the look.
func (t *tenure) leave(ctx context.Context) bool {
	if t.lane.Pause() > 0 {
		t.lane.Resume()
		return false
	}
	if err := t.lease.Releasing(ctx); err != nil {
		t.log.Warn("project not released", slog.Any("error", err)) //nolint:sloglint // no context belongs to it
		t.lane.Resume()
		return false
	}
	look := time.NewTimer(t.r.config.Look)
	defer look.Stop()
	select {
	case <-t.lane.Arrived():
		if err := t.lease.Resume(ctx); err == nil {
			t.lane.Resume()
			return false
		}
	case <-look.C:
	case <-t.r.stopping:
	}
	t.close()
	t.release(ctx)
	return true
}

// shutDown hands back what waits, lets the running job finish for a while, cuts
// it, and announces that there may be work.
func (t *tenure) shutDown(ctx context.Context) {
	cut := time.AfterFunc(max(t.r.config.ShutdownGrace-10*time.Second, 0), func() { t.lane.Cancel(handlers.ErrShutdown) })
	defer cut.Stop()
	t.close()
	if err := t.lease.Releasing(ctx); err != nil {
		t.log.Warn("claim row not written", slog.Any("error", err)) //nolint:sloglint // no context belongs to it
	}
	if err := t.r.Resend(ctx, protocol.ClaimRequest{ProjectID: t.pair.ProjectID, UserID: t.pair.UserID}, 0); err != nil {
		t.log.Warn("project not announced", slog.Any("error", err)) //nolint:sloglint // no context belongs to it
	}
	t.release(ctx)
}

func (t *tenure) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := t.lease.Release(ctx); err != nil {
		t.log.Warn("project not released", slog.Any("error", err)) //nolint:sloglint // no context belongs to it
		return
	}
	t.log.Info("project released") //nolint:sloglint // no context belongs to it
}

// received is what the lane's messages carry.
type received struct {
	command *protocol.InputMessage
	err     error
}

// read decodes a message, once, for the lane and for the handler.
func (t *tenure) read(msg *message.Message) Item {
	d := DeliveryOf(msg.Context())
	d.CommandID = msg.Metadata.Get("commandId")
	in, err := protocol.DecodeInput(msg.Payload, d)
	switch {
	case err != nil:
		return Item{Sent: d.Sent, Refused: true, Value: received{err: err}}
	case in.Interrupt != nil:
		return Item{Sent: d.Sent, Interrupts: true, Only: true}
	}
	cmd := in.Command
	msg.Metadata.Set("commandId", cmd.CommandID) // it stays with the message into a dead-letter queue
	item := Item{
		Key: cmd.CommandID + "\x00" + cmd.Digest(), Command: cmd.CommandID, Thread: cmd.ThreadID, Sent: d.Sent,
		Again: d.Receives > 1 || d.Resent, Interrupts: cmd.Interrupts, Value: received{command: cmd},
	}
	ctx, cancel := context.WithTimeout(t.r.ctx, 2*time.Second)
	defer cancel()
	item.Refused = cmd.Pair() != t.pair || cmd.Validate(t.instruction.Rules) != nil || t.instruction.Known(ctx, *cmd)
	return item
}

// handle adapts handlers.Instruction.
func (t *tenure) handle(msg *message.Message) ([]*message.Message, error) {
	in := receivedOf(msg.Context())
	if in.err != nil {
		return nil, middleware.Permanent(in.err) // nobody can be answered
	}
	defer t.tell(handlers.Step{Name: handlers.StepDone, CommandID: in.command.CommandID})
	answer, err := t.instruction.Handle(withCorrelation(msg.Context()), *in.command)
	return produce(msg, answer), classify(err)
}

// produce makes the message that the Router publishes.
func produce(msg *message.Message, a protocol.Answer) []*message.Message {
	if a.Body == nil {
		return nil
	}
	out := message.NewMessage(watermill.NewUUID(), a.Body)
	for k, v := range a.Attributes {
		out.Metadata.Set(k, v)
	}
	out.SetContext(context.WithoutCancel(msg.Context()))
	return []*message.Message{out}
}

// answers publishes what the handler returned, to the output queue of the
// command's own pair. The Router closes a handler's publisher with the handler;
// this one stays.
type answers struct{ t *tenure }

// Publish implements message.Publisher.
func (a *answers) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		in := receivedOf(m.Context())
		if in.command != nil {
			topic = a.t.r.config.Names.Output(in.command.Pair())
		}
		if err := a.t.lease.Check(); err != nil {
			return err
		}
		if err := a.t.r.config.Queues.Publish(topic, m); err != nil {
			return err
		}
		if in.command == nil {
			continue
		}
		if err := a.t.instruction.Answered(m.Context(), *in.command); err != nil {
			a.t.log.WarnContext(m.Context(), "answer may be published again", slog.Any("error", err))
		}
	}
	return nil
}

// Close implements message.Publisher.
func (*answers) Close() error { return nil }
