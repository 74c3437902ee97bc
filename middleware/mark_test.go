package middleware_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/middleware"
)

func TestMarks(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("save the order: %w", err) }
	tests := []struct {
		name      string
		err       error
		permanent bool
	}{
		{"none", errDown, false},
		{"permanent", middleware.Permanent(errDown), true},
		{"permanent, wrapped", wrap(middleware.Permanent(errDown)), true},
		{"permanent, joined", errors.Join(errStop, middleware.Permanent(errDown)), true},
		{"retry after", middleware.RetryAfter(errDown, time.Second), false},
		{"hand back", middleware.HandBack(errDown), false},
		{"the outermost counts: permanent", middleware.Permanent(wrap(middleware.HandBack(errDown))), true},
		{"the outermost counts: hand back", middleware.HandBack(wrap(middleware.Permanent(errDown))), false},
		{"the outermost counts: retry after", middleware.RetryAfter(wrap(middleware.Permanent(errDown)), 0), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := middleware.IsPermanent(tt.err); got != tt.permanent {
				t.Errorf("IsPermanent(%v) = %t, want %t", tt.err, got, tt.permanent)
			}
			if !errors.Is(tt.err, errDown) {
				t.Errorf("the error is lost: %v", tt.err)
			}
		})
	}
}

func TestMarksLeaveTheTextAndNil(t *testing.T) {
	marks := map[string]func(error) error{
		"Permanent":  middleware.Permanent,
		"HandBack":   middleware.HandBack,
		"RetryAfter": func(err error) error { return middleware.RetryAfter(err, time.Second) },
	}
	for name, mark := range marks {
		if err := mark(nil); err != nil {
			t.Errorf("%s(nil) = %v, want nil", name, err)
		}
		if got := mark(errDown).Error(); got != errDown.Error() {
			t.Errorf("%s: text %q, want %q", name, got, errDown)
		}
	}
	if middleware.IsPermanent(nil) {
		t.Error("IsPermanent(nil)")
	}
}
