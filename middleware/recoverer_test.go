package middleware_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/middleware"
)

type order struct{ Card string }

// blowUp is a name to look for in the stack.
func blowUp(value any) { panic(value) }

func TestRecoverer(t *testing.T) {
	tests := []struct {
		name  string
		value any
		text  string
	}{
		{"string", "no oven", "panic (string): no oven"},
		{"error", io.ErrUnexpectedEOF, "panic (*errors.errorString): unexpected EOF"},
		{"number", 7, "panic (int): 7"},
		{"stringer", time.Second, "panic (time.Duration): 1s"},
		{"marked to be handed back", middleware.HandBack(errStop), "panic (*middleware.markedError): the service stops"},
		{"struct with a secret", order{Card: "4111"}, "panic (middleware_test.order)"},
		{"pointer to one", &order{Card: "4111"}, "panic (*middleware_test.order)"},
		{"payload", []byte("4111"), "panic ([]uint8)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var told *middleware.PanicError
			r := middleware.Recoverer{OnPanic: func(_ *message.Message, p *middleware.PanicError) { told = p }}
			produced, err := r.Middleware(func(*message.Message) ([]*message.Message, error) {
				blowUp(tt.value)
				return nil, nil
			})(newMessage(t, ""))
			if produced != nil || !middleware.IsPermanent(err) {
				t.Errorf("got %v and %v, want a permanent error", produced, err)
			}
			var p *middleware.PanicError
			if !errors.As(err, &p) || p != told {
				t.Fatalf("error %#v, told %#v: want the same *PanicError", err, told)
			}
			if err.Error() != tt.text {
				t.Errorf("text %q, want %q", err, tt.text)
			}
			if !strings.Contains(string(p.Stack), "blowUp") {
				t.Errorf("the stack does not show who panicked:\n%s", p.Stack)
			}
			if fmt.Sprintf("%T", p.Value) != fmt.Sprintf("%T", tt.value) {
				t.Errorf("value %#v, want %#v", p.Value, tt.value)
			}
			if cause, ok := tt.value.(error); ok && !errors.Is(err, cause) {
				t.Errorf("errors.Is does not find %v", cause)
			}
		})
	}
}

func TestRecovererPanicNil(t *testing.T) {
	_, err := middleware.Recoverer{}.Middleware(func(*message.Message) ([]*message.Message, error) {
		panic(nil) //nolint:govet // on purpose
	})(newMessage(t, ""))
	if _, ok := errors.AsType[*runtime.PanicNilError](err); !ok {
		t.Errorf("error %v, want a *runtime.PanicNilError", err)
	}
}

func TestRecovererLeavesOthersAlone(t *testing.T) {
	msg := newMessage(t, "")
	produced, err := middleware.Recoverer{}.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return []*message.Message{msg}, errDown
	})(msg)
	if len(produced) != 1 || err != errDown { //nolint:errorlint // the very same
		t.Errorf("got %v and %v, want both as they were", produced, err)
	}
}

func TestRecovererNacksAfterGoexit(t *testing.T) {
	if err := nackedAfterGoexit(t, middleware.Recoverer{}.Middleware); err != nil {
		t.Error(err)
	}
}

// nackedAfterGoexit checks that a message whose handler ended its goroutine does
// not stay in flight for ever.
func nackedAfterGoexit(t *testing.T, m message.HandlerMiddleware) error {
	t.Helper()
	msg := newMessage(t, "")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m(func(*message.Message) ([]*message.Message, error) {
			runtime.Goexit()
			return nil, nil
		})(msg)
	}()
	<-done
	select {
	case <-msg.Nacked():
		return nil
	default:
		return errors.New("neither acknowledged nor nacked")
	}
}
