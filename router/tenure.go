package router

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
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
	polls       *polls
	lane        *Lane
	instruction *handlers.Instruction
	handler     *message.Handler
	interrupts  *interrupts // nil if there is no such queue
	tidy        *tidy
	progress    *progress
	// unsure is set when a message may be invisible that nobody works on.
	unsure atomic.Bool
	// cut ends what the tenure still does when the worker leaves and has
	// waited long enough.
	cut    context.Context //nolint:containedctx // it is that of a time, not of a call
	cutOff context.CancelCauseFunc
	log    *slog.Logger
}

var errStopping = errors.New("the worker is shutting down and takes no project")

// open begins a tenure: the subscription first, then the handler.
func (r *Router) open(ctx context.Context, p protocol.Pair, l *claim.Lease) error {
	t := &tenure{r: r, pair: p, lease: l, log: r.config.Log.With(slog.String("project_id", p.ProjectID), slog.String("user_id", p.UserID))}
	t.unsure.Store(l.Unclean())
	instruction := r.config.Instruction
	instruction.Pair, instruction.Lease, instruction.Names = p, l, r.config.Names
	t.progress = &progress{t: t}
	instruction.Step, instruction.Took, instruction.Concluded = t.told, r.took, r.concluded
	t.instruction = &instruction
	t.tidy = &tidy{trim: instruction.Tidy, log: t.log}
	if l.Unclean() {
		if err := instruction.TakeOver(ctx); err != nil {
			return err
		}
	}
	interrupted, err := r.config.Queues.Exists(ctx, r.config.Names.Interrupts(p))
	if err != nil {
		t.log.WarnContext(ctx, "no interrupts queue", slog.Any("error", err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stopping:
		return handBackError{errStopping}
	default:
	}
	if err := t.subscribe(interrupted); err != nil {
		return err
	}
	r.tenures.Go(t.run)
	t.log.InfoContext(ctx, "project claimed", slog.Int64("fence", l.Fence()), slog.Bool("unclean", l.Unclean()))
	return nil
}

// subscribe opens the queues, then adds the handlers, whose Subscribe cannot
// fail. It is called under the router's lock.
func (t *tenure) subscribe(interrupted bool) error {
	r := t.r
	t.cut, t.cutOff = context.WithCancelCause(r.last)
	t.polls = newPolls(t.lease, r.config.Poll+r.config.Poll/5)
	c := LaneConfig{
		Inner: r.config.Queues.Subscriber(t.polls.gate, func() { t.unsure.Store(true) }), Read: t.read, Policy: r.config.Policy,
		Idle: r.config.IdleTimeout, Bind: t.bind, Drop: r.config.Drop, HandBack: r.config.HandBack,
	}
	if unseen := t.lease.Unseen(r.config.Visibility); unseen > 0 { // what the dead owner held keeps its place
		c.Gather, c.Quiet = unseen, unseen
	}
	t.lane = NewLane(c)
	topic := r.config.Names.Input(t.pair)
	messages, err := t.lane.Subscribe(r.ctx, topic)
	if err != nil {
		return err
	}
	r.n++
	t.handler = r.router.AddHandler("instruction-"+strconv.Itoa(r.n), topic, subscription(messages),
		r.config.Names.Output(t.pair), &answers{t: t}, t.handle)
	if interrupted {
		if t.interrupts, err = t.openInterrupts(); err != nil {
			t.log.Warn("no interrupts queue", slog.Any("error", err))
		}
	}
	t.tell(handlers.Step{Name: handlers.StepClaimed, Text: "working for project " + t.pair.ProjectID + " and user " + t.pair.UserID})
	if err := r.router.RunHandlers(r.ctx); err != nil {
		t.tell(handlers.Step{Name: handlers.StepReleased})
		if t.interrupts != nil {
			err = errors.Join(err, t.interrupts.subscriber.Close())
		}
		return errors.Join(err, t.lane.Close())
	}
	return nil
}

// tell tells a step of the tenure's own.
func (t *tenure) tell(s handlers.Step) {
	s.Pair = t.pair
	t.told(s)
}

// told passes a step on.
func (t *tenure) told(s handlers.Step) {
	if t.r.config.Instruction.Step != nil {
		t.r.config.Instruction.Step(s)
	}
	t.progress.tell(s)
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
	defer t.cutOff(nil)
	ctx := context.WithoutCancel(t.r.ctx)
	for {
		select {
		case <-t.lease.Lost():
			t.lose()
			return
		case <-t.r.stopping:
			t.shutDown()
			return
		case <-t.lane.Idle():
			if t.leave(ctx) {
				return
			}
		}
	}
}

// received is what the lane's messages carry.
type received struct {
	command *protocol.InputMessage
	err     error
}

// read decodes a message, once, for the lane and for the handler.
func (t *tenure) read(msg *message.Message) Item {
	d := protocol.DeliveryOf(msg.Context())
	in, err := protocol.DecodeInput(msg.Payload, d)
	switch {
	case err != nil:
		return Item{Sent: d.Sent, Refused: true, Value: received{err: err}}
	case in.Interrupt != nil:
		return Item{Sent: d.Sent, Interrupts: true, Only: true, Refused: !t.concerns(in.Interrupt)}
	}
	cmd := in.Command
	msg.Metadata.Set(protocol.AttrCommandID, cmd.CommandID) // it stays with the message into a dead-letter queue
	item := Item{
		ID: d.MessageID, Key: cmd.CommandID + "\x00" + cmd.Digest(), Command: cmd.CommandID, Thread: cmd.ThreadID, Sent: d.Sent,
		Again: d.Receives > 1 || d.Resent, Interrupts: cmd.Interrupts, Value: received{command: cmd},
	}
	item.Refused = cmd.Pair() != t.pair || cmd.Validate(t.instruction.Rules) != nil
	item.Known = func() bool {
		ctx, cancel := context.WithTimeout(t.r.ctx, 2*time.Second)
		defer cancel()
		return t.instruction.Known(ctx, *cmd)
	}
	return item
}

// handle adapts handlers.Instruction.
func (t *tenure) handle(msg *message.Message) ([]*message.Message, error) {
	in := receivedOf(msg.Context())
	if in.err != nil {
		return nil, middleware.Permanent(in.err) // nobody can be answered
	}
	defer t.tell(handlers.Step{Name: handlers.StepDone, CommandID: in.command.CommandID})
	t.r.busy(1)
	defer t.r.busy(-1)
	t.tidy.stop()
	defer t.progress.begin(msg.Context(), *in.command)()
	answer, err := t.instruction.Handle(withCorrelation(msg.Context()), *in.command)
	return produce(msg, answer), classify(err, t.r.config.RetryPause)
}

// busy counts the running jobs. Under the lock, or the word of one that ends could
// come after that of one that begins.
func (r *Router) busy(change int) {
	r.jobsMu.Lock()
	defer r.jobsMu.Unlock()
	was := r.jobs > 0
	r.jobs += change
	if is := r.jobs > 0; is != was {
		r.config.Busy(is)
	}
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
		if err := a.publish(topic, m); err != nil {
			return err
		}
		if in.command == nil {
			continue
		}
		if err := a.t.instruction.Answered(m.Context(), *in.command); err != nil {
			a.t.log.WarnContext(m.Context(), "answer may be published again", slog.Any("error", err))
		}
		a.t.tidy.start(m.Context())
	}
	return nil
}

// publish ends with the lease, or when the worker must be gone.
func (a *answers) publish(topic string, m *message.Message) error {
	if err := a.t.lease.Check(); err != nil {
		return err
	}
	outer := m.Context()
	ctx, unbind := a.t.lease.Bind(outer)
	defer unbind()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.t.cut, func() { cancel(handlers.ErrShutdown) })()
	m.SetContext(ctx)
	defer m.SetContext(outer)
	return a.t.r.config.Queues.Publish(topic, m)
}

// Close implements message.Publisher.
func (*answers) Close() error { return nil }
