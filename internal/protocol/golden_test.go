package protocol_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

var delivery = protocol.Delivery{MessageID: "m-1", Sent: time.UnixMilli(1_760_000_000_000).UTC(), Receives: 1}

// compare holds got against a golden file, or writes it with -update.
func compare(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// goldenInputs compares what decode makes of each file in a directory. Files
// named bad_ are no messages.
func goldenInputs(t *testing.T, dir string, decode func([]byte) (any, error)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v, err := decode(body)
			var undecodable *protocol.DecodeError
			if strings.HasPrefix(filepath.Base(file), "bad_") != errors.As(err, &undecodable) {
				t.Errorf("error = %v", err)
			}
			got := fmt.Sprintln("error:", err)
			if err == nil {
				pretty, err := json.MarshalIndent(v, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = string(pretty) + "\n"
			}
			compare(t, strings.TrimSuffix(file, ".json")+".golden", got)
		})
	}
}

func TestDecodeInput(t *testing.T) {
	goldenInputs(t, "input", func(b []byte) (any, error) { return protocol.DecodeInput(b, delivery) })
}

func TestDecodeUnclaimed(t *testing.T) {
	goldenInputs(t, "unclaimed", func(b []byte) (any, error) { return protocol.DecodeUnclaimed(b, delivery) })
}

func TestOutputMessage(t *testing.T) {
	success := protocol.NewOutput(valid())
	success.Success, success.Summary = true, "Made the header <blue> & bold."
	success.S3Bucket, success.S3URL = "edit.amelia.webordinary.com", "https://edit.amelia.webordinary.com"
	success.DeploymentTime, success.Timestamp = 1_760_000_000_123, 1_760_000_000_456
	success.BuildSuccess, success.DeploySuccess = true, true
	success.Branch, success.CommitID = "thread-t1", "0123456789abcdef0123456789abcdef01234567"
	success.SetFiles([]string{"src/a.astro", "src/ü.css"})
	success.Agent = &protocol.AgentInfo{Turns: 2, CostUSD: 0.01, Tokens: 1234, Model: "claude", DurationMs: 1200}

	unchanged := protocol.NewOutput(valid())
	unchanged.Success, unchanged.Summary, unchanged.BuildSuccess = true, "Nothing had to be changed.", true
	unchanged.Branch, unchanged.CommitID = success.Branch, success.CommitID
	unchanged.SetFiles(nil)

	failed := protocol.NewOutput(valid())
	failed.ErrorCode, failed.Error = protocol.BuildFailed, "bad \x1b[31mred\x1b[0m\tand\u009b2J \uffff\ufffe\xff\n"

	interrupted := protocol.NewOutput(valid())
	interrupted.ErrorCode, interrupted.Interrupted = protocol.Interrupted, true

	redriven := protocol.NewOutput(valid())
	redriven.Success, redriven.Superseded, redriven.Attempt = true, true, 2

	for name, o := range map[string]protocol.OutputMessage{
		"success": success, "unchanged": unchanged, "failed": failed, "interrupted": interrupted, "redriven": redriven,
	} {
		body, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		compare(t, filepath.Join("testdata", "output", name+".json"), string(body)+"\n")
	}
}

func TestForwardedMessages(t *testing.T) {
	full := valid()
	full.PreviousCommit, full.Timestamp, full.Interrupts = "0a1b2c", time.UnixMilli(1_760_000_000_123), true
	damaged := valid()
	damaged.Instruction, damaged.Defect = "", "instruction is not a string"
	for name, encode := range map[string]func() ([]byte, error){
		"command": full.Encode,
		"damaged": damaged.Encode,
		"claim_request": protocol.ClaimRequest{
			ProjectID: "amelia", UserID: "scott", SessionID: "s1", ThreadID: "t1", QueueURL: "https://sqs/q", Work: &full,
		}.Encode,
	} {
		body, err := encode()
		if err != nil {
			t.Fatal(err)
		}
		compare(t, filepath.Join("testdata", "forwarded", name+".json"), string(body)+"\n")
	}
}
