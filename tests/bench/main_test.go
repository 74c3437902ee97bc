package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/platform"
)

var (
	update    = flag.Bool("update", false, "write the tables into docs/benchmarks.md")
	onlyTools = flag.String("tools", "", "tools that deploys are compared with, separated by commas; empty means all")
)

// results is what the benchmarks have measured.
var results = report{rows: map[string]row{}}

const document = "../../docs/benchmarks.md"

func TestMain(m *testing.M) {
	if os.Getenv(deployerVariable) != "" {
		if err := runDeployer(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(agentVariable) != "" {
		if err := runAgent(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	results.begun(time.Now())
	code := platform.Main(m)
	if flag.Lookup("test.bench").Value.String() == "" {
		os.Exit(code)
	}
	fmt.Printf("\n%s\n%s\n", results.markdown(""), results.compared())
	if *update {
		if err := results.write(document); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
