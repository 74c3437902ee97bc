package emulators_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		helper() // never returns
	}
	goleak.VerifyTestMain(emulators.Tests{M: m})
}
