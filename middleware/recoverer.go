package middleware

import (
	"fmt"
	"runtime/debug"

	"github.com/ThreeDotsLabs/watermill/message"
)

// PanicError is a panic of a handler. Its text names the type and the value; the
// stack is for the log, and in no message.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic (%T): %v", e.Value, e.Value) }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Recoverer turns a panic of a handler into a Permanent error that wraps a
// *PanicError. It stands innermost: a panic is not tried again.
type Recoverer struct {
	// OnPanic is told of each panic, with its stack; nil means nobody is.
	OnPanic func(*message.Message, *PanicError)
}

// Middleware implements message.HandlerMiddleware.
func (r Recoverer) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (produced []*message.Message, err error) {
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			p := &PanicError{Value: value, Stack: debug.Stack()}
			if r.OnPanic != nil {
				r.OnPanic(msg, p)
			}
			produced, err = nil, Permanent(p)
		}()
		return h(msg)
	}
}
