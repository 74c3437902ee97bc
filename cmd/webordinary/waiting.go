package main

import (
	"context"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
)

// waiting tells which calls of AWS have no answer yet, once for each outage.
type waiting struct {
	after time.Duration // in which nobody wonders what goes on
	note  func(format string, args ...any)

	mu    sync.Mutex
	since map[string]time.Time // by call: the first try without an answer; zero if it was told
}

// add makes a client's calls known. A receive is not one: to wait is its purpose.
func (w *waiting) add(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Waiting",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			name, call := awsmiddleware.GetServiceID(ctx), awsmiddleware.GetOperationName(ctx)
			if call == "ReceiveMessage" {
				return next.HandleInitialize(ctx, in)
			}
			notice := time.AfterFunc(w.after-w.began(name+call), func() { w.tell(name, call) })
			out, metadata, err := next.HandleInitialize(ctx, in)
			notice.Stop()
			if err == nil {
				w.answered(name + call)
			}
			return out, metadata, err
		}), middleware.After)
}

// began returns how long there has been no answer.
func (w *waiting) began(key string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since == nil {
		w.since = map[string]time.Time{}
	}
	if _, again := w.since[key]; !again {
		w.since[key] = time.Now()
	}
	return time.Since(w.since[key])
}

func (w *waiting) answered(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.since, key)
}

func (w *waiting) tell(name, call string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since, untold := w.since[name+call]; !untold || since.IsZero() {
		return
	}
	w.since[name+call] = time.Time{}
	w.note("%s has not answered %s yet; still waiting", name, call)
}
