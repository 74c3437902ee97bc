package modelserver

import (
	"net/http"
	"sync"
)

// Input is what a tool is called with.
type Input map[string]any

// Tool is one use of a tool.
type Tool struct {
	Name  string
	Input Input
}

// Fault is a way in which an answer goes wrong after a status of 200.
type Fault int

// The faults.
const (
	None      Fault = iota
	Silence         // not even a header, until the client goes away
	Hang            // the beginning of a stream, then nothing
	Pings           // the beginning of a stream, then pings only
	Cut             // half a message, then the connection ends
	Garbage         // a stream of bytes that are no events
	Exception       // the beginning of a stream, then an error
)

// Turn is one answer of the model. The zero value is an empty text.
type Turn struct {
	Text  string
	Tools []Tool

	// StopReason is "tool_use" or "end_turn" unless set.
	StopReason string
	// OutputTokens is what the answer is said to have cost; zero means 20.
	OutputTokens int

	// Status is that of an error; zero means 200.
	Status    int
	ErrorType string // "overloaded_error", or Bedrock's "ThrottlingException", ...
	Header    http.Header

	Fault Fault

	// Times is how often this turn is played before the script goes on behind
	// it, for an error or a fault. Zero means always.
	Times int
	// Gate, if set, holds the answer back until it is opened.
	Gate *Gate
}

// Say is the model's last word.
func Say(text string) Turn { return Turn{Text: text} }

// Use is one use of a tool.
func Use(name string, in Input) Turn {
	return Turn{Tools: []Tool{{Name: name, Input: in}}}
}

// Bash is a use of the Bash tool.
func Bash(command string) Turn {
	return Use("Bash", Input{"command": command, "description": "run a command"})
}

// Fail is an error in the API's form.
func Fail(status int, errorType, message string) Turn {
	return Turn{Status: status, ErrorType: errorType, Text: message}
}

// Throw is a stream that ends in an error.
func Throw(errorType, message string) Turn {
	return Turn{Fault: Exception, ErrorType: errorType, Text: message}
}

// Refuse is a refusal by the model.
func Refuse() Turn {
	return Turn{StopReason: "refusal"}
}

// Break is an answer that goes wrong.
func Break(f Fault) Turn {
	return Turn{Fault: f, Text: "This will not be seen whole."}
}

// With returns the turn with a header of its own.
func (t Turn) With(key, value string) Turn {
	t.Header = t.Header.Clone()
	if t.Header == nil {
		t.Header = http.Header{}
	}
	t.Header.Set(key, value)
	return t
}

// First returns the turn played only n times.
func (t Turn) First(n int) Turn {
	t.Times = n
	return t
}

// Behind returns the turn held back by a gate.
func (t Turn) Behind(g *Gate) Turn {
	t.Gate = g
	return t
}

// Gate holds answers back, so that a test can act while the client waits.
type Gate struct {
	reached, opened   chan struct{}
	reachOnce, opener sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{reached: make(chan struct{}), opened: make(chan struct{})}
}

// Reached is closed when the first request waits at the gate.
func (g *Gate) Reached() <-chan struct{} { return g.reached }

// Open lets everything pass, from now on. It may be called again.
func (g *Gate) Open() { g.opener.Do(func() { close(g.opened) }) }

func (g *Gate) arrive() <-chan struct{} {
	g.reachOnce.Do(func() { close(g.reached) })
	return g.opened
}

// script is the turns for instructions that contain match.
type script struct {
	match  string
	turns  []Turn
	played []int // how often each turn with Times was played
}

// turn returns the turn that follows the given number of answers, false if the
// script is over.
func (s *script) turn(answers int) (Turn, bool) {
	for i, t := range s.turns {
		if t.Times > 0 {
			if answers > 0 || s.played[i] >= t.Times {
				continue
			}
			s.played[i]++
			return t, true
		}
		if answers == 0 {
			return t, true
		}
		answers--
	}
	return Turn{}, false
}
