package platform_test

import (
	"os"
	"testing"

	"github.com/webordinary/claude-code-container/tests/platform"
)

func TestMain(m *testing.M) { os.Exit(platform.Main(m)) }
