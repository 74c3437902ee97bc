package middleware

import (
	"fmt"
	"reflect"
	"runtime/debug"

	"github.com/ThreeDotsLabs/watermill/message"
)

// PanicError is a panic of a handler.
type PanicError struct {
	// Value is what was passed to panic.
	Value any
	// Stack is the stack of the goroutine that panicked, as debug.Stack writes
	// it. It is for the log and never part of the text.
	Stack []byte
}

// Error returns the type of the value, and its text if it is an error, a
// fmt.Stringer, a string, a number or a bool. Other values, such as structs, may
// hold a payload or a secret and are not shown.
func (e *PanicError) Error() string {
	_, isError := e.Value.(error)
	_, isStringer := e.Value.(fmt.Stringer)
	kind := reflect.ValueOf(e.Value).Kind()
	if isError || isStringer || kind <= reflect.Complex128 || kind == reflect.String {
		return fmt.Sprintf("panic (%T): %v", e.Value, e.Value)
	}
	return fmt.Sprintf("panic (%T)", e.Value)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Recoverer turns a panic of a handler into a Permanent error that wraps a
// *PanicError. It stands innermost, so that the panic passes through Retry, which
// does not try again, and PoisonQueue.
//
// A handler that calls runtime.Goexit returns nothing to turn into an error, and
// the Router would neither acknowledge nor nack its message: Recoverer nacks it.
type Recoverer struct {
	// OnPanic is told of each panic, with its stack; nil means nobody is.
	// CloudWatch logs the panic anyway.
	OnPanic func(*message.Message, *PanicError)
}

// Middleware implements message.HandlerMiddleware.
func (r Recoverer) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (produced []*message.Message, err error) {
		returned := false
		defer func() {
			if returned {
				return
			}
			value := recover()
			if value == nil { // Goexit; panic(nil) has a value since Go 1.21
				msg.Nack()
				return
			}
			p := &PanicError{Value: value, Stack: debug.Stack()}
			if r.OnPanic != nil {
				r.OnPanic(msg, p)
			}
			produced, err = nil, Permanent(p)
		}()
		produced, err = h(msg)
		returned = true
		return produced, err
	}
}
