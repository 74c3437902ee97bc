package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

// protocols are the two ways to speak to a model.
var protocols = map[string]func(t *testing.T) *fixture{
	"anthropic": newFixture,
	"bedrock":   func(t *testing.T) *fixture { t.Helper(); return newBedrock(t, bedrockModel) },
}

const workerEnv = "AGENT_TEST_WORKER"

// order is what a worker of its own process is to do.
type order struct {
	CLI, Upstream string
	Keeper        []string
	Env           []string
	Bedrock       bool
	Request       Request
}

// work is the main of such a worker: it prints the Result.
func work() int {
	var o order
	result, err := Result{}, json.NewDecoder(os.Stdin).Decode(&o)
	if err == nil {
		var upstream *url.URL
		if upstream, err = url.Parse(o.Upstream); err == nil {
			c := &Claude{
				Path: o.CLI, Runner: &process.Runner{Keeper: o.Keeper}, Env: o.Env, MaxTurns: 20,
				Model: sessions(upstream, gateway.Config{Bedrock: o.Bedrock}),
			}
			if o.Bedrock {
				c.ModelID = bedrockModel
			}
			result, err = c.Run(context.Background(), o.Request)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if json.NewEncoder(os.Stdout).Encode(result) != nil {
		return 1
	}
	return 0
}

// worker is the test's program as a worker, with a home of its own and the
// workspace somewhere of its own.
func (f *fixture) worker(t *testing.T, bedrock bool, instruction string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	root, home := filepath.Join(t.TempDir(), "mounted"), t.TempDir()
	if err := os.Rename(f.root, root); err != nil {
		t.Fatal(err)
	}
	f.root = root
	r := f.request(instruction)
	raw, err := json.Marshal(struct {
		order
		Request map[string]string
	}{
		order{CLI: cli(t), Upstream: f.model.URL(), Keeper: f.claude.Runner.Keeper, Env: f.claude.Env, Bedrock: bedrock},
		map[string]string{
			"ProjectID": r.ProjectID, "UserID": r.UserID, "ThreadID": r.ThreadID, "Instruction": r.Instruction,
			"Site": r.Site, "Job": r.Job, "Conversations": r.Conversations,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{workerEnv + "=1", "HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin, cmd.Stderr = bytes.NewReader(raw), os.Stderr
	out := &bytes.Buffer{}
	cmd.Stdout = out
	return cmd, out
}

// TestAnotherWorkerResumes: the conversation goes on in another process, on what
// might be another machine: nothing but the workspace is the same, and that lies
// elsewhere.
func TestAnotherWorkerResumes(t *testing.T) {
	for name, fixture := range protocols {
		t.Run(name, func(t *testing.T) {
			f := fixture(t)
			f.model.Play("first thing", modelserver.Bash("echo forty-two"), modelserver.Say("first done"))
			f.model.Play("second thing", modelserver.Say("second done"))
			var results [2]Result
			for i, instruction := range []string{"first thing", "second thing"} {
				f.model.Forget()
				cmd, out := f.worker(t, name == "bedrock", instruction)
				if err := cmd.Run(); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(out.Bytes(), &results[i]); err != nil {
					t.Fatal(err)
				}
			}
			if first, second := results[0], results[1]; first.Resumed || !second.Resumed || first.SessionID != second.SessionID || second.Summary != "second done" {
				t.Errorf("first %+v, second %+v", first, second)
			}
			f.saysAll(t, "first thing", "forty-two", "first done", "second thing")
		})
	}
}

// TestAnotherWorkerResumesAfterACrash: the first one is killed while the model
// thinks.
func TestAnotherWorkerResumesAfterACrash(t *testing.T) {
	for name, fixture := range protocols {
		t.Run(name, func(t *testing.T) {
			f := fixture(t)
			gate := modelserver.NewGate()
			defer gate.Open()
			f.model.Play("first thing", modelserver.Bash("echo forty-two"), modelserver.Say("never").Behind(gate))
			f.model.Play("second thing", modelserver.Say("second done"))
			cmd, _ := f.worker(t, name == "bedrock", "first thing")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-gate.Reached()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			f.model.Forget()
			cmd, out := f.worker(t, name == "bedrock", "second thing")
			var result Result
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(out.Bytes(), &result); err != nil || !result.Resumed || result.Summary != "second done" {
				t.Errorf("got %+v, %v", result, err)
			}
			f.saysAll(t, "first thing", "second thing")
		})
	}
}

// saysAll looks for a request that holds all parts. With Bedrock the first one only
// asks whether the model is there.
func (f *fixture) saysAll(t *testing.T, parts ...string) {
	t.Helper()
	var text string
	for _, req := range f.model.Requests() {
		text = req.Last()
		if !slices.ContainsFunc(parts, func(part string) bool { return !req.Says(part) }) {
			return
		}
	}
	t.Errorf("no request holds all of %q; the last one ends with %q", parts, text)
}

// done is what git says of the thread.
func done(context.Context) ([]string, error) { return []string{"Make it blue"}, nil }

// TestDamagedConversation is an agent that spoils its own transcript, in every way
// but the last one of which the CLI could go on with.
func TestDamagedConversation(t *testing.T) {
	damages := map[string]string{
		"garbage":     `echo garbage >>$f; echo garbage >>$f`,
		"cut":         `truncate -s 100 $f; echo >>$f`,
		"directory":   `rm $f; mkdir $f`,
		"link":        `mv $f $TMPDIR/x; ln -s $TMPDIR/x $f`,
		"another's":   `sed -i s/` + ConversationID("amelia", "scott", "t1", 0) + `/` + ConversationID("amelia", "scott", "t2", 0) + `/ $f`,
		"long":        `truncate -s 40M $f`,
		"linked away": `mv $CLAUDE_CONFIG_DIR $TMPDIR/y; ln -s $TMPDIR/y $CLAUDE_CONFIG_DIR`,
	}
	for name, fixture := range protocols {
		for what, damage := range damages {
			if name == "bedrock" && what != "garbage" {
				continue // a transcript is the same
			}
			t.Run(name+" "+what, func(t *testing.T) {
				f := fixture(t)
				f.model.Play("thing one", modelserver.Say("done"))
				f.model.Play("thing two", modelserver.Bash("f=$(echo $CLAUDE_CONFIG_DIR/projects/*/*.jsonl); "+damage), modelserver.Say("done"))
				f.model.Play("thing three", modelserver.Say("done"))
				for _, instruction := range []string{"thing one", "thing two", "thing three"} {
					f.model.Forget()
					r := f.request(instruction)
					r.History = done
					got, err := f.claude.Run(t.Context(), r)
					if err != nil || got.Summary != "done" {
						t.Fatalf("%s: got %+v, %v", instruction, got, err)
					}
					if instruction == "thing three" && (got.Resumed || got.SessionID != ConversationID("amelia", "scott", "t1", 1)) {
						t.Errorf("%s: got %+v", instruction, got)
					}
				}
				f.saysAll(t, "Note: "+restarted+" The newest of it:\n- Make it blue\n", "thing three")
			})
		}
	}
}

// TestLostConversation: whatever lies where the transcript was, the thread goes on
// in a conversation that is told what was done.
func TestLostConversation(t *testing.T) {
	id := ConversationID("amelia", "scott", "t1", 0)
	for what, content := range map[string]string{
		"damaged": "this is no transcript\n", "empty": "", "half": `{"type":"user","mess`,
		"nothing in it":    `{"sessionId":"` + id + `"}` + "\n",
		"not a transcript": `{"sessionId":"` + id + `","type":"assistant","message":5,"uuid":[]}` + "\n",
	} {
		for name, fixture := range protocols {
			t.Run(name+" "+what, func(t *testing.T) {
				f := fixture(t)
				f.model.Play("thing", modelserver.Say("done"))
				if _, err := f.claude.Run(t.Context(), f.request("thing")); err != nil {
					t.Fatal(err)
				}
				f.write(t, f.transcript(0), content)
				f.model.Forget()
				r := f.request("thing two")
				r.History = done
				got, err := f.claude.Run(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if got.Resumed || got.SessionID != ConversationID("amelia", "scott", "t1", 1) {
					t.Errorf("got %+v", got)
				}
				f.saysAll(t, "Note: "+restarted+" The newest of it:\n- Make it blue\n")
				got, err = f.claude.Run(t.Context(), f.request("thing three"))
				if err != nil || !got.Resumed || got.SessionID != ConversationID("amelia", "scott", "t1", 1) {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
	}
}

// TestMissingConversation is a thread whose conversation was lost with the
// directory, or never brought home.
func TestMissingConversation(t *testing.T) {
	f := newFixture(t)
	f.model.Play("thing", modelserver.Say("done"))
	for i := range 2 {
		f.model.Forget()
		r := f.request("thing")
		if i > 0 {
			r.History = done
		}
		got, err := f.claude.Run(t.Context(), r)
		if err != nil || got.Resumed {
			t.Errorf("got %+v, %v", got, err)
		}
		if told := strings.Contains(f.model.Requests()[0].Last(), "\n- Make it blue\n"); told != (i > 0) {
			t.Errorf("run %d: told: %v", i, told)
		}
		if err := os.Remove(filepath.Join(f.root, f.transcript(0))); err != nil {
			t.Fatal(err)
		}
	}
}
