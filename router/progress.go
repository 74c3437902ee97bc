package router

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

const (
	// progressEvery is the shortest time between two progress events.
	progressEvery = time.Second
	// progressEnd is how long a command that is done waits for its last events.
	progressEnd = 2 * time.Second
	// progressTries bounds one event's publishing.
	progressTries = 5 * time.Second
	// maxTold bounds what waits to be published: steps, and one tool's use.
	maxTold = 64
	// maxTouched bounds the files that are remembered.
	maxTouched = 10_000
)

// progress tells the log and the pair's progress queue what becomes of the commands
// of a tenure. Nothing of it holds a command up or fails it.
type progress struct {
	t *tenure
	// Owned by the goroutine of the running command.
	looked, exists bool

	mu      sync.Mutex
	running *run   // nil between commands
	command string // the last one
	number  int64  // of its last event
}

// run is one run of one command.
type run struct {
	p       *progress
	command protocol.InputMessage
	log     func(level slog.Level, what string, attrs ...slog.Attr)
	wake    chan struct{} // has room for one
	ending  chan struct{} // closed when nothing more is told
	ended   chan struct{}

	mu      sync.Mutex
	told    []protocol.Progress // what waits to be published
	touched []string
	total   int // of files
}

// begin follows a run of a command until end, which waits for what is told by then
// to be published, if the lease lets it, and not for long.
func (p *progress) begin(ctx context.Context, command protocol.InputMessage) (end func()) {
	ctx, unbind := p.t.lease.Bind(ctx)
	ctx, cancel := context.WithCancel(ctx)
	r := &run{
		p: p, command: command, wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}),
		log: func(level slog.Level, what string, attrs ...slog.Attr) {
			p.t.r.config.Log.LogAttrs(ctx, level, what, attrs...) //nolint:sloglint // each caller gives a constant
		},
	}
	p.mu.Lock()
	if p.command != command.CommandID {
		p.command, p.number = command.CommandID, 0
	}
	p.running = r
	p.mu.Unlock()
	go r.follow(ctx)
	return func() {
		p.mu.Lock()
		p.running = nil
		p.mu.Unlock()
		close(r.ending)
		late := time.AfterFunc(progressEnd, cancel)
		<-r.ended
		late.Stop()
		cancel()
		unbind()
	}
}

// tell takes a step of the running command. It does not block.
func (p *progress) tell(s handlers.Step) {
	p.mu.Lock()
	r := p.running
	p.mu.Unlock()
	if r == nil || r.command.CommandID != s.CommandID {
		return
	}
	if s.Tool == "" {
		r.log(slog.LevelInfo, "step", slog.String("step", s.Name), slog.String("text", s.Text))
	}
	r.tell(s)
}

// tell puts an event behind those that wait; one that only says more of the same
// step takes the place of the last.
func (r *run) tell(s handlers.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.touch(s)
	e := protocol.NewProgress(r.command)
	e.Step, e.Tool, e.Text, e.Timestamp = s.Name, s.Tool, s.Text, time.Now().UnixMilli()
	e.Files, e.FilesTotal = r.touched, r.total
	if last := len(r.told) - 1; last >= 0 && (r.told[last].Step == e.Step || last+1 >= maxTold) {
		r.told[last] = e
	} else {
		r.told = append(r.told, e)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// touch notes the files of a step. Behind the commit, those that it holds are all
// there are.
func (r *run) touch(s handlers.Step) {
	if s.Tool == "" {
		if len(s.Files) > 0 {
			r.touched, r.total = s.Files, len(s.Files)
		}
		return
	}
	for _, f := range s.Files {
		if !slices.Contains(r.touched, f) && len(r.touched) < maxTouched {
			r.touched = append(slices.Clip(r.touched), f)
			r.total++
		}
	}
}

// follow publishes what is told, one event in a second; when the run ends, what is
// left at once.
func (r *run) follow(ctx context.Context) {
	defer close(r.ended)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-r.wake:
		case <-r.ending:
			r.rest(ctx)
			return
		}
		for more := true; more; {
			select {
			case <-pause.C:
			case <-r.ending:
				r.rest(ctx)
				return
			}
			more = r.next(ctx)
			pause.Reset(progressEvery)
		}
	}
}

func (r *run) rest(ctx context.Context) {
	for r.next(ctx) {
	}
}

// next publishes an event; false if there is none.
func (r *run) next(ctx context.Context) bool {
	r.mu.Lock()
	if len(r.told) == 0 {
		r.mu.Unlock()
		return false
	}
	e := r.told[0]
	r.told = r.told[1:]
	r.mu.Unlock()
	r.p.mu.Lock()
	r.p.number++
	e.Sequence = r.p.number
	r.p.mu.Unlock()
	if ctx.Err() == nil {
		r.publish(ctx, e)
	}
	return true
}

func (r *run) publish(ctx context.Context, e protocol.Progress) {
	p := r.p
	if e.Tool != "" { // steps are logged when they begin; what the agent says may be what the user said
		r.log(slog.LevelInfo, "tool", slog.String("step", e.Step), slog.String("tool", e.Tool), slog.Int("files", e.FilesTotal))
		r.log(slog.LevelDebug, "tool at work", slog.String("tool", e.Tool), slog.String("text", e.Text))
	}
	ctx, cancel := context.WithTimeout(ctx, progressTries)
	defer cancel()
	if !p.wanted(ctx) || p.t.lease.Check() != nil {
		return
	}
	body, err := e.Encode()
	if err != nil {
		r.log(slog.LevelDebug, "progress not told", slog.Any("error", err))
		return
	}
	m := message.NewMessage(watermill.NewUUID(), body)
	m.SetContext(ctx)
	for k, v := range e.Attributes(middleware.CorrelationIDFrom(ctx)) {
		m.Metadata.Set(k, v)
	}
	if err := p.t.r.config.Queues.Publish(p.topic(), m); err != nil {
		r.log(slog.LevelDebug, "progress not told", slog.Any("error", err))
	}
}

func (p *progress) topic() string { return p.t.r.config.Names.Progress(p.t.pair) }

// wanted reports whether there is a queue for progress. It asks once in a tenure,
// and again if there was no answer.
func (p *progress) wanted(ctx context.Context) bool {
	if p.looked || p.t.r.config.CreateProgress {
		return p.exists || p.t.r.config.CreateProgress
	}
	exists, err := p.t.r.config.Queues.Exists(ctx, p.topic())
	if err != nil {
		p.t.r.config.Log.DebugContext(ctx, "no look for a progress queue", slog.Any("error", err))
		return false
	}
	p.looked, p.exists = true, exists
	return exists
}
