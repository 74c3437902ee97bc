package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process"
)

// agentVariable makes the program of these tests one that starts the CLI: a process of
// its own and of an unprivileged user, as the worker is, so that what it grows by is
// the work's.
const agentVariable = "BENCH_AGENT"

// agentSetup is the first line on its input.
type agentSetup struct {
	CLI    string       // the program
	Model  string       // URL of the model's service
	Wall   process.Wall // empty means that the CLI is started by hand
	Keeper string       // the small program
	Setuid string       // the same, installed setuid
	Dir    string       // for site, job and conversations
	Pair   string       // the project; the user has the same name
	Read   []string     // what children may read
	Env    []string     // what they see
}

// agentOrder is each further line: an instruction in a new conversation.
type agentOrder struct{ Thread, Instruction string }

// agentRan is the line that answers each.
type agentRan struct {
	Error        string
	Began, Ended time.Time
	CPU          time.Duration // of this process and of all that it started
}

// runAgent answers orders until its input ends, or one fails.
func runAgent(in io.Reader, out io.Writer) error {
	ctx := context.Background()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var s agentSetup
	if err := orders.Decode(&s); err != nil {
		return err
	}
	claude, err := s.claude()
	if err == nil {
		err = errors.Join(os.Mkdir(filepath.Join(s.Dir, "site"), 0o770), answers.Encode(agentRan{}))
	}
	if err != nil {
		return err
	}
	for {
		var o agentOrder
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var ran agentRan
		if s.Wall == "" {
			ran, err = s.byHand(ctx, claude, o)
		} else {
			err = ran.measure(func() error {
				_, err := claude.Run(ctx, s.request(o))
				return err
			})
		}
		if err != nil {
			ran.Error = err.Error()
		}
		if err := answers.Encode(ran); err != nil {
			return err
		}
	}
}

// measure runs the CLI.
func (r *agentRan) measure(run func() error) error {
	before := processorTime(syscall.RUSAGE_SELF) + processorTime(syscall.RUSAGE_CHILDREN)
	r.Began = time.Now()
	err := run()
	r.Ended = time.Now()
	r.CPU = processorTime(syscall.RUSAGE_SELF) + processorTime(syscall.RUSAGE_CHILDREN) - before
	return err
}

func (s agentSetup) request(o agentOrder) agent.Request {
	return agent.Request{
		ProjectID: s.Pair, UserID: s.Pair, ThreadID: o.Thread, Instruction: o.Instruction, Pair: s.Pair,
		Site: filepath.Join(s.Dir, "site"), Job: filepath.Join(s.Dir, "job"), Conversations: filepath.Join(s.Dir, "conversations"),
	}
}

// claude is the agent as the worker makes it.
func (s agentSetup) claude() (*agent.Claude, error) {
	upstream, err := url.Parse(s.Model)
	if err != nil {
		return nil, err
	}
	g := gateway.New(gateway.Config{Upstream: upstream, Signer: gateway.APIKey("sk-ant-upstream")})
	return &agent.Claude{
		Path: s.CLI, MaxTurns: 20, Env: s.Env,
		Runner: &process.Runner{Keeper: []string{s.Keeper}, Setuid: []string{s.Setuid}, Wall: s.Wall, Read: s.Read},
		Model: func(ctx context.Context, maxTokens int64) (agent.ModelSession, error) {
			j, err := g.Open(ctx, maxTokens)
			if err != nil {
				return agent.ModelSession{}, err
			}
			return agent.ModelSession{Proxy: j.Address, ProxyEnv: j.Env(), BaseURL: j.URL, Token: j.Token, Pause: j.Pause, Tokens: j.Tokens, Close: j.Close}, nil
		},
	}, nil
}

// recorder stands in for the CLI, and keeps what it is started with.
const recorder = `#!/bin/sh
printf '%s\0' "$@" > "$TMPDIR/arguments"
env -0 > "$TMPDIR/environ"
cat > "$TMPDIR/stdin"
`

// byHand starts the CLI with the arguments, the environment, the input and the
// directories that the worker gives it, but for the way to the model, which is the
// straight one. All is ready before the time begins.
func (s agentSetup) byHand(ctx context.Context, claude *agent.Claude, o agentOrder) (agentRan, error) {
	var ran agentRan
	double := *claude
	double.Path = filepath.Join(s.Dir, "recorder")
	if err := os.WriteFile(double.Path, []byte(recorder), 0o700); err != nil {
		return ran, err
	}
	r := s.request(o)
	if _, err := double.Run(ctx, r); err == nil {
		return ran, errors.New("the recorder passes for the CLI")
	}
	tmp := filepath.Join(r.Job, "tmp")
	arguments, err1 := os.ReadFile(filepath.Join(tmp, "arguments"))
	environ, err2 := os.ReadFile(filepath.Join(tmp, "environ"))
	stdin, err3 := os.ReadFile(filepath.Join(tmp, "stdin"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return ran, err
	}
	split := func(text []byte) []string { return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00") }
	cmd := exec.CommandContext(ctx, s.CLI, split(arguments)...)
	cmd.Dir, cmd.Stdin = r.Site, strings.NewReader(string(stdin))
	cmd.Env = process.With(slices.DeleteFunc(split(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasSuffix(strings.ToUpper(name), "_PROXY")
	}), "ANTHROPIC_BASE_URL="+s.Model)
	said := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := ran.measure(cmd.Run); err != nil || !strings.Contains(said.String(), "Said.") {
		return ran, fmt.Errorf("the CLI, started by hand: %w: %s", err, said)
	}
	return ran, nil
}
