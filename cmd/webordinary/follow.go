package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

const (
	// followWait is how long a receive waits for an answer.
	followWait = 2 * time.Second
	// longestRest is between two looks at a queue that has only what is others'.
	longestRest = 5 * time.Second
	// journalEvery is how often the journal is asked, and journalAtOnce of how
	// many commands.
	journalEvery  = time.Second
	journalAtOnce = 5
	// takenAfter is how long an answer that the journal calls published is looked
	// for in the queue: then somebody else has taken it.
	takenAfter = 4 * time.Second
)

// pending is a command that is not answered yet.
type pending struct {
	pair     protocol.Pair
	id       string
	known    bool  // the journal had an answer to an earlier message of this id
	told     int   // marks of the journal that were told
	newest   int64 // time of the newest event of the progress queue; ms
	answered time.Time
}

// follower waits for answers. What was sent by others stays in the queues.
type follower struct {
	*operator
	journal *journal.Journal
	pairs   []protocol.Pair
	mine    map[string]bool // all command ids, by pair

	mu     sync.Mutex
	open   []*pending
	failed int
	err    error // of printing
	left   func()
}

func newFollower(ctx context.Context, o *operator, all []instruction) (*follower, error) {
	f := &follower{operator: o, journal: &journal.Journal{Store: o.tables.Journal()}, mine: map[string]bool{}}
	for _, one := range all {
		p := &pending{pair: one.message.Pair(), id: one.message.CommandID}
		f.mine[p.pair.Key()+" "+p.id] = true
		f.open = append(f.open, p)
		if !slices.Contains(f.pairs, p.pair) {
			f.pairs = append(f.pairs, p.pair)
		}
	}
	for _, p := range f.open {
		e, found, err := f.load(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("the journal cannot be read, so the answer might be missed; nothing was sent: %w", err)
		}
		p.known = found && e.Has(journal.Answered)
		if p.told = len(e.Done); !p.known {
			p.told = 0
		}
	}
	return f, nil
}

func (f *follower) load(ctx context.Context, p *pending) (journal.Entry, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	return f.journal.Load(ctx, p.pair.Key(), p.id)
}

// run returns when all is answered. The error says what is not.
func (f *follower) run(ctx context.Context, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not all is answered within %s", timeout))
		defer cancel()
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	f.left = stop
	var loops sync.WaitGroup
	for _, p := range f.pairs {
		loops.Go(func() { f.readOutput(watching, p) })
		loops.Go(func() { f.readProgress(watching, p) })
	}
	loops.Go(func() { f.readJournal(watching) })
	loops.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case len(f.open) > 0:
		var ids []string
		for _, p := range f.open {
			ids = append(ids, inert(p.id))
		}
		return fmt.Errorf("%w; unanswered: %s. The work goes on; `webordinary status` shows it", context.Cause(ctx), strings.Join(ids, ", "))
	case f.failed > 0:
		return errUnsuccessful
	}
	return nil
}

// awaiting reports whether a pair has open commands.
func (f *follower) awaiting(p protocol.Pair) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.open, func(o *pending) bool { return o.pair == p })
}

// readOutput takes the answers to our commands from the output queue. Each other
// message is visible again at once, and while there are only such ones, those whom
// they are for get more and more time for them.
func (f *follower) readOutput(ctx context.Context, p protocol.Pair) {
	topic := f.names.Output(p)
	f.read(ctx, p, topic, func(l queue.Letter) bool {
		var out protocol.OutputMessage
		if json.Unmarshal([]byte(l.Body), &out) != nil || !f.mine[p.Key()+" "+out.CommandID] {
			return false
		}
		f.answer(p, out, []byte(l.Body))
		return true
	})
}

// readProgress tells what the progress queue says of our commands. Where there is
// none, the journal says less.
func (f *follower) readProgress(ctx context.Context, p protocol.Pair) {
	topic := f.names.Progress(p)
	if d, err := f.depth(ctx, topic); err != nil || d.Missing {
		return
	}
	f.read(ctx, p, topic, func(l queue.Letter) bool {
		var e protocol.Progress
		if json.Unmarshal([]byte(l.Body), &e) != nil || !f.mine[p.Key()+" "+e.CommandID] {
			return false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, o := range f.open {
			if o.pair == p && o.id == e.CommandID && e.Timestamp >= o.newest { // queues keep no order
				o.newest = max(e.Timestamp, 1)
				f.tell(o, e.Step, strings.TrimSpace(e.Tool+" "+e.Text))
			}
		}
		return true
	})
}

// read reads a queue for as long as the pair has open commands. What take does not
// take is put back.
func (f *follower) read(ctx context.Context, p protocol.Pair, topic string, take func(queue.Letter) bool) {
	rest, complained := time.Duration(0), false
	for ctx.Err() == nil && f.awaiting(p) {
		letters, err := f.queues.Receive(ctx, topic, queue.Look{Wait: followWait})
		if err != nil && !complained {
			f.note("%s; the journal is asked instead", inert(err.Error()))
			complained = true
		}
		took := false
		var others []queue.Letter
		for _, l := range letters {
			if !take(l) {
				others = append(others, l)
				continue
			}
			took = true
			if err := f.queues.Remove(ctx, l); err != nil {
				f.note("%s", inert(err.Error()))
			}
		}
		if err := f.queues.Return(ctx, others...); err != nil {
			f.note("%s", inert(err.Error()))
		}
		switch {
		case took || len(letters) == 0 && err == nil:
			rest = 0
		default:
			rest = min(max(2*rest, 500*time.Millisecond), longestRest)
		}
		pause(ctx, rest)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readJournal tells of finished steps, and finds the answers that somebody else has
// taken from the queue.
func (f *follower) readJournal(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.Lock()
		some := slices.Clone(f.open[:min(len(f.open), journalAtOnce)])
		f.mu.Unlock()
		for _, p := range some {
			if p.known {
				continue // only the queue can tell the new answer from the old one
			}
			if e, found, err := f.load(ctx, p); err == nil && found {
				f.see(p, e)
			}
		}
		pause(ctx, journalEvery)
	}
}

func (f *follower) see(p *pending, e journal.Entry) {
	f.mu.Lock()
	for ; p.told < len(e.Done); p.told++ {
		if word := stepWords[e.Done[p.told]]; word != "" && p.newest == 0 && slices.Contains(f.open, p) {
			f.tell(p, word, "")
		}
	}
	if e.Has(journal.Answered) && p.answered.IsZero() {
		p.answered = time.Now()
	}
	taken := !p.answered.IsZero() && time.Since(p.answered) > takenAfter
	f.mu.Unlock()
	var out protocol.OutputMessage
	if taken && json.Unmarshal(e.Output, &out) == nil {
		f.answer(p.pair, out, e.Output)
	}
}

// stepWords are the marks of the journal for people.
var stepWords = map[journal.Mark]string{ //nolint:gochecknoglobals // a table
	journal.Opened: "begun", journal.Agent: "agent has ended", journal.Committed: "committed", journal.Built: "built",
	journal.Deployed: "deployed", journal.Pushed: "pushed", journal.DeadLettered: "given up",
}

// tell prints a line of progress. The lock is held.
func (f *follower) tell(p *pending, step, text string) {
	id := ""
	if len(f.mine) > 1 {
		id = inert(p.id) + "  "
	}
	f.note("%s%s", id, strings.TrimRight(fmt.Sprintf("%-11s %s", inert(step), short(text, 100)), " "))
}

// answer prints an answer, once, and ends the wait for it.
func (f *follower) answer(pair protocol.Pair, out protocol.OutputMessage, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.open, func(p *pending) bool { return p.pair == pair && p.id == out.CommandID })
	if i < 0 {
		return // a copy
	}
	f.open = slices.Delete(f.open, i, i+1)
	if !out.Success {
		f.failed++
	}
	f.err = errors.Join(f.err, f.print(out, body))
	if len(f.open) == 0 {
		f.left()
	}
}

func (f *follower) print(out protocol.OutputMessage, body []byte) error {
	if f.json {
		var line bytes.Buffer
		if err := json.Compact(&line, body); err != nil {
			return err
		}
		_, err := fmt.Fprintln(f.sys.stdout, line.String())
		return err
	}
	return printAnswer(f.sys.stdout, f.style, out)
}

// printAnswer says to a person what became of a command.
func printAnswer(w io.Writer, s style, out protocol.OutputMessage) error {
	g := &grid{}
	if out.Success {
		g.add(painted(green, "done"), plain(out.CommandID))
	} else {
		g.add(painted(red, "failed"), plain(out.CommandID+"  "+string(out.ErrorCode)))
		g.add(plain("error"), plain(out.Error))
	}
	for _, line := range []struct{ name, text string }{
		{"summary", out.Summary},
		{"branch", strings.TrimSpace(out.Branch + " " + shortSHA(out.CommitID))},
		{"files", filesLine(out)},
		{"site", out.S3URL},
	} {
		if line.text != "" {
			g.add(plain(line.name), plain(line.text))
		}
	}
	return g.write(w, s)
}

func filesLine(out protocol.OutputMessage) string {
	const most = 5
	n := max(out.FilesChangedTotal, len(out.FilesChanged))
	shown := out.FilesChanged[:min(len(out.FilesChanged), most)]
	text := strings.Join(shown, ", ")
	if n > len(shown) {
		text += fmt.Sprintf(" and %d more", n-len(shown))
	}
	return text
}

func shortSHA(sha string) string { return sha[:min(len(sha), 8)] }
