// Package matrix is what the platform may expect of its workers, row by row: each a
// test against real worker processes on the emulators, with a platform of its own.
package matrix

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/webordinary/claude-code-container/tests/apicall"
	"github.com/webordinary/claude-code-container/tests/platform"
)

// atOnce is how many rows run at once. They wait most of the time.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			fmt.Fprintln(os.Stderr, "matrix:", err)
			os.Exit(1)
		}
	}
	os.Exit(platform.Main(m))
}

// rows is the matrix.
var rows = []struct {
	name string
	run  func(t *testing.T)
}{
	// Faults, and what comes after them.
	{"worker killed for memory", workerKilled},
	{"ended by SIGTERM", terminated},
	{"build out of memory", buildOutOfMemory},
	{"invalid token, then a valid one", invalidToken},
	{"bucket missing, then there", bucketMissing},
	{"bucket created", bucketCreated},
	{"malformed messages, then a valid one", malformed},
	// Claims.
	{"listens on loopback only", loopbackOnly},
	{"claim within 15 s", claimInTime},
	{"ambiguous ids", ambiguousIDs},
	{"two users, two projects", usersAndProjects},
	{"one shared bucket", sharedBucket},
	{"several threads in one claim", severalThreads},
	{"starts without legacy variables", withoutLegacy},
	{"work by the unclaimed queue", unclaimedWork},
	// Messages.
	{"ids are echoed", idsEchoed},
	{"progress is told", progressTold},
	{"from A to B to A", thereAndBack},
	{"ordered and rapid messages", orderedMessages},
	{"rapid messages that interrupt", rapidMessages},
	{"interrupted two seconds into a build", interruptedBuild},
	{"a newer message two seconds into a build", overtakenBuild},
	// The repository and the bucket.
	{"external push", externalPush},
	{"conflict", conflict},
	{"repository in the first message only", repositoryOnce},
	{"stale files removed", staleFiles},
}

func TestMatrix(t *testing.T) {
	t.Run("rows", func(t *testing.T) { // returns when all have ended
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				row.run(t)
			})
		}
	})
	t.Run("policy is just enough", checkPolicy)
}

// explained are permissions' calls that no row makes, and why they are allowed.
var explained = map[string]string{
	"s3:HeadObject":                         "a look whether an upload arrived whose answer was lost; internal/aws/bucket loses answers",
	"bedrock:InvokeModel":                   "models by Bedrock instead of Anthropic's API; there is no emulator",
	"bedrock:InvokeModelWithResponseStream": "the same, streaming",
	"ecs:UpdateTaskProtection":              "by ECS's own agent, with the task's role",
	"elasticfilesystem:ClientMount":         "by the mount of the workspaces",
	"elasticfilesystem:ClientWrite":         "the same",
	"elasticfilesystem:ClientRootAccess":    "by the keeper, which gives each pair its files",
}

// checkPolicy compares the policy that the worker gets in AWS with what the workers
// of all rows called: nothing is missing, and nothing is too much.
func checkPolicy(t *testing.T) {
	t.Helper()
	body, err := os.ReadFile("../../infra/ecs/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy apicall.Policy
	if err := json.Unmarshal(body, &policy); err != nil {
		t.Fatal(err)
	}
	made := platform.Calls()
	if err := apicall.Compare(policy, append(made, slices.Sorted(maps.Keys(explained))...)); err != nil {
		t.Errorf("the workers called %v:\n%v", made, err)
	}
	t.Logf("the workers called %v", made)
}
