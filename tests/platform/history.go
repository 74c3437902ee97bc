package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// Answer is one message of an output queue.
type Answer struct {
	Body       []byte
	Attributes map[string]string
	Output     protocol.OutputMessage
	Queue      string // its name
	At         time.Time
}

// history is what was sent, answered and broken.
type history struct {
	p       *Platform
	reading context.Context //nolint:containedctx // it is that of the test
	readers sync.WaitGroup

	mu       sync.Mutex
	commands []*Command
	answers  map[string][]Answer // by command id
	arrived  chan struct{}       // closed, and made anew, with each answer
	faults   []Fault
	watched  []*watch
}

// The kinds of faults that workers have methods for.
const (
	Kill       = "kill"
	KillTree   = "kill tree"
	Freeze     = "freeze"
	FreezeTree = "freeze tree"
	Term       = "term"
	Reset      = "cut (reset)"
	Silence    = "cut (silence)"
)

// Fault is something that a test did to a worker.
type Fault struct {
	Worker   string
	Kind     string
	Boundary string // the mark at which it happened, or empty
	From, To time.Time
}

func (h *history) start(p *Platform) {
	ctx, cancel := context.WithCancel(context.Background())
	h.p, h.reading, h.answers, h.arrived = p, ctx, map[string][]Answer{}, make(chan struct{})
	p.tb.Cleanup(func() {
		cancel()
		h.readers.Wait()
	})
}

func (h *history) sent(c *Command, late bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.commands, c) {
		c.Sent, c.Late = time.Now(), late
		h.commands = append(h.commands, c)
	}
}

// Commands returns what was sent, in this order.
func (p *Platform) Commands() []*Command {
	p.history.mu.Lock()
	defer p.history.mu.Unlock()
	return append([]*Command{}, p.history.commands...)
}

// Answers returns what the output queue had for a command so far.
func (p *Platform) Answers(commandID string) []Answer {
	p.history.mu.Lock()
	defer p.history.mu.Unlock()
	return append([]Answer{}, p.history.answers[commandID]...)
}

// Note adds a fault to the history; To stays zero for one that lasts. It returns a
// func that ends it.
func (p *Platform) Note(f Fault) (end func()) {
	h := &p.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.From.IsZero() {
		f.From = time.Now()
	}
	h.faults = append(h.faults, f)
	at := len(h.faults) - 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.faults[at].To = time.Now()
	}
}

// Faults returns what was noted.
func (p *Platform) Faults() []Fault {
	p.history.mu.Lock()
	defer p.history.mu.Unlock()
	return append([]Fault{}, p.history.faults...)
}

// read reads an output queue until the test ends.
func (h *history) read(j *Project) {
	h.readers.Go(func() {
		for h.reading.Err() == nil {
			h.poll(j)
		}
	})
}

func (h *history) poll(j *Project) {
	out, err := h.p.sqs.ReceiveMessage(h.reading, &sqs.ReceiveMessageInput{
		QueueUrl: &j.OutputURL, MaxNumberOfMessages: 10, WaitTimeSeconds: 5, VisibilityTimeout: 60, MessageAttributeNames: []string{"All"},
	})
	if err != nil {
		if h.reading.Err() == nil {
			h.p.tb.Errorf("receive answers of %s: %v", j.Key(), err)
		}
		return
	}
	for _, m := range out.Messages {
		a := Answer{Body: []byte(aws.ToString(m.Body)), Attributes: attributesOf(m), Queue: queueName(j.OutputURL), At: time.Now()}
		if err := json.Unmarshal(a.Body, &a.Output); err != nil {
			h.p.tb.Errorf("an answer that is none: %q", a.Body)
		}
		h.take(a)
		if _, err := h.p.sqs.DeleteMessage(context.WithoutCancel(h.reading), &sqs.DeleteMessageInput{QueueUrl: &j.OutputURL, ReceiptHandle: m.ReceiptHandle}); err != nil {
			h.p.tb.Errorf("acknowledge an answer: %v", err)
		}
	}
}

func attributesOf(m sqstypes.Message) map[string]string {
	all := map[string]string{}
	for name, v := range m.MessageAttributes {
		all[name] = aws.ToString(v.StringValue)
	}
	return all
}

func (h *history) take(a Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[a.Output.CommandID] = append(h.answers[a.Output.CommandID], a)
	close(h.arrived)
	h.arrived = make(chan struct{})
}

// missing returns the commands without an answer.
func (h *history) missing(of []*Command) (left []*Command, arrived chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range of {
		if len(h.answers[c.ID]) == 0 {
			left = append(left, c)
		}
	}
	return left, h.arrived
}

// Queue is how many messages are in a queue.
type Queue struct{ Visible, InFlight, Delayed int }

// Queue counts the messages of a queue.
func (p *Platform) Queue(url string) (Queue, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	out, err := p.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll}})
	if err != nil {
		return Queue{}, err
	}
	n := func(name sqstypes.QueueAttributeName) int {
		v, err := strconv.Atoi(out.Attributes[string(name)])
		if err != nil {
			return -1
		}
		return v
	}
	return Queue{
		n(sqstypes.QueueAttributeNameApproximateNumberOfMessages), n(sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		n(sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed),
	}, nil
}

func queueName(url string) string { return url[strings.LastIndex(url, "/")+1:] }

// unrest lists what is not at rest: messages in queues other than the dead-letter
// ones, and rows that name an owner.
func (p *Platform) unrest() []string {
	var all []string
	urls := []string{p.UnclaimedURL}
	for _, j := range p.Projects() {
		urls = append(urls, j.InputURL, j.OutputURL, j.InterruptsURL)
		row, err := p.Row(j)
		if err != nil || row.Status != "released" && row.Status != "" {
			all = append(all, fmt.Sprintf("row %s: %+v %v", j.Key(), row, err))
		}
	}
	for _, url := range urls {
		if q, err := p.Queue(url); err != nil || q != (Queue{}) {
			all = append(all, fmt.Sprintf("queue %s: %+v %v", queueName(url), q, err))
		}
	}
	return all
}

// state describes the platform for a person.
func (p *Platform) state() string {
	lines := p.unrest()
	for _, d := range p.TakeDead() {
		lines = append(lines, fmt.Sprintf("dead letter in %s: %s %v", d.Queue, d.Body, d.Attributes))
	}
	for _, w := range p.Workers() {
		lines = append(lines, fmt.Sprintf("worker %s: alive %v", w.Name, w.Alive()))
	}
	for _, f := range p.Faults() {
		lines = append(lines, fmt.Sprintf("fault %+v", f))
	}
	return strings.Join(lines, "\n")
}
