package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
)

const (
	// retries is how often the CLI asks the model's service again by itself:
	// enough for a hiccup in a long run, little enough that an outage becomes
	// the worker's to wait for within seconds.
	retries = 2
	// longPause is what the CLI may be asked to wait before the worker does it
	// instead.
	longPause = 20 * time.Second
)

// errLost says that the CLI does not know the conversation it should resume.
var errLost = errors.New("conversation lost")

// ModelSession is a way to the model, and out to what else may be reached, for the
// length of one run.
type ModelSession struct {
	BaseURL  string   // what the CLI takes for the model's service
	Token    string   // what it takes for the key
	Proxy    string   // where both listen, for process.Access; empty if that is not known
	ProxyEnv []string // by which programs find the way out
	// BedrockRegion is set if the way speaks Bedrock's protocol: the region that
	// the CLI takes models to be in.
	BedrockRegion string
	// Tokens returns how many tokens were used, and whether a call was refused
	// because there are no more; nil if nobody counts.
	Tokens func() (used int64, refused bool)
	// Pause returns the pause that the service asked for last; nil or zero if
	// nothing is known.
	Pause func() time.Duration
	Close func() // nil if there is nothing to close
}

// Claude runs the Claude Code CLI. It may be used by several goroutines, but not
// twice at once with the same directories.
type Claude struct {
	Path   string // the CLI; a name without a slash is looked up in Env's PATH
	Runner *process.Runner
	// Model opens a way to the model for as many tokens, zero for any number;
	// it is closed when the run is over.
	Model func(ctx context.Context, maxTokens int64) (ModelSession, error)
	Env   []string // what else the CLI and the commands it runs see
	// ModelID is the model to use; empty means the CLI's choice.
	ModelID    string
	MaxTurns   int           // of one command; zero means no limit
	MaxCostUSD float64       // of one command; zero means no limit
	MaxTokens  int64         // of one command; zero means no limit
	Timeout    time.Duration // of one run; zero means 30 min
	// Idle is how long the model may be silent while its answer is awaited;
	// zero means 5 min. The time tools take does not count.
	Idle time.Duration
	Log  *slog.Logger // nil means none
}

// Run carries an instruction out, in the thread's conversation. A conversation
// that cannot be resumed is given up and a new one is begun. The error is an
// *Error, the cause of ctx, or another one if the job's directories cannot be
// used or the worker was frozen (process.ErrSilence); Result then holds what is
// known.
func (c *Claude) Run(ctx context.Context, r Request) (Result, error) {
	began := time.Now()
	left, err := c.left(r.Spent)
	if err != nil {
		return Result{}, err
	}
	conv, err := openConversation(r)
	if err != nil {
		return Result{}, fmt.Errorf("open conversation: %w", err)
	}
	defer conv.close()

	result, err := c.run(ctx, conv, left)
	if errors.Is(err, errLost) {
		c.warn(ctx, "conversation lost, beginning a new one", err)
		if err := conv.end(); err != nil {
			return Result{}, fmt.Errorf("give up conversation: %w", err)
		}
		result, err = c.run(ctx, conv, left)
	}
	result.Duration = time.Since(began)
	return result, err
}

// run runs the CLI once.
func (c *Claude) run(ctx context.Context, conv *conversation, left limits) (Result, error) {
	r := conv.request
	text, err := prompt(r, c.notes(ctx, conv))
	if err != nil {
		return Result{}, fmt.Errorf("write prompt: %w", err)
	}
	if err := conv.lend(); err != nil {
		return Result{}, fmt.Errorf("lend conversation: %w", err)
	}
	defer c.takeBack(ctx, conv)

	model, err := c.Model(ctx, left.tokens)
	if err != nil {
		return Result{}, fmt.Errorf("open way to the model: %w", err)
	}
	if model.Close != nil {
		defer model.Close()
	}
	o := c.execute(ctx, process.Command{
		Path: c.Path, Args: c.args(conv, left), Dir: r.Site, Env: c.env(r.Job, model), Stdin: strings.NewReader(text),
		Access: r.access(model.Proxy),
	}, model, r.Progress)
	if o.stream.reached {
		if err := conv.forget(); err != nil {
			c.warn(ctx, "notes stay for another run", err)
		}
	}
	return c.judge(ctx, conv, model, o)
}

// execute runs the process to its end.
func (c *Claude) execute(ctx context.Context, cli process.Command, model ModelSession, progress func(Event)) outcome {
	o := outcome{timeout: orDefault(c.Timeout, defaultTimeout), idle: orDefault(c.Idle, defaultIdle)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer stop()

	silence := time.AfterFunc(o.idle, func() { cancel(errStalled) })
	defer silence.Stop()
	o.stream = &stream{
		site:     cli.Dir,
		progress: progress,
		heard: func(awaiting bool) {
			silence.Stop()
			if awaiting {
				silence.Reset(o.idle)
			}
		},
		retrying: func(delay time.Duration, status int) {
			if delay > longPause {
				cancel(&throttledError{status: status, delay: delay})
			}
		},
	}
	stderr := &process.Tail{}
	cli.Stdout, cli.Stderr = &lines{each: o.stream.take}, stderr
	_, o.err = c.Runner.Run(ctx, cli)
	o.stderr = stderr.String()
	if model.Pause != nil {
		o.asked = model.Pause()
	}
	if model.Tokens != nil {
		o.tokens, o.noTokens = model.Tokens()
	}
	return o
}

// judge says what a run that is over came to.
func (c *Claude) judge(ctx context.Context, conv *conversation, model ModelSession, o outcome) (Result, error) {
	result := o.stream.result()
	result.SessionID, result.Resumed, result.Tokens = conv.id, conv.resumed, o.tokens
	var exit *process.ExitError
	ended := o.err == nil || errors.As(o.err, &exit) && exit.Result.Signal == 0
	switch {
	case ended && o.stream.succeeded():
		result.Summary = redact(result.Summary, model.Token)
		return result, nil
	case ctx.Err() != nil && !ended:
		return result, context.Cause(ctx)
	case errors.Is(o.err, process.ErrSilence):
		return result, o.err
	case conv.resumed && o.lost():
		return result, errLost
	}
	e := o.failure()
	e.Message = redact(clean(e.Message), model.Token)
	if e.Err != nil && !errors.Is(e.Err, process.ErrNotFound) {
		e.Err = errors.New(redact(clean(e.Err.Error()), model.Token))
	}
	return result, e
}

func (c *Claude) args(conv *conversation, left limits) []string {
	args := []string{
		"-p", "--output-format", "stream-json", "--verbose",
		// Without the parts of an answer, a long one would look like silence.
		"--include-partial-messages",
		// The repository is not to bring hooks, servers or commands of its own.
		"--setting-sources", "user", "--strict-mcp-config", "--disable-slash-commands",
		// File tools stay inside the checkout; Bash is held by the wall, not here.
		"--tools", "Read,Edit,Write,Bash,Grep,Glob", "--allowedTools", "Bash", "--permission-mode", "acceptEdits",
	}
	if conv.resumed {
		args = append(args, "--resume", conv.id)
	} else {
		args = append(args, "--session-id", conv.id)
	}
	if c.ModelID != "" {
		args = append(args, "--model", c.ModelID)
	}
	if left.turns > 0 {
		args = append(args, "--max-turns", strconv.Itoa(left.turns))
	}
	if left.costUSD > 0 {
		args = append(args, "--max-budget-usd", strconv.FormatFloat(left.costUSD, 'f', -1, 64))
	}
	return args
}

// env is the CLI's environment, which the commands it runs inherit.
func (c *Claude) env(job string, model ModelSession) []string {
	idle := orDefault(c.Idle, defaultIdle)
	bash := idle * 4 / 5
	return process.With(process.With(c.Env, slices.Concat(model.ProxyEnv, model.env(c.ModelID))...),
		"HOME="+filepath.Join(job, homeDir),
		"TMPDIR="+filepath.Join(job, tmpDir),
		"CLAUDE_CONFIG_DIR="+filepath.Join(job, configDir),
		// No traffic but the model's, no second result, no files attached by "@".
		"DISABLE_AUTOUPDATER=1",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS=1",
		"CLAUDE_CODE_DISABLE_AUTO_MEMORY=1",
		"CLAUDE_CODE_DISABLE_FILE_MENTIONS=1",
		"CLAUDE_CODE_MAX_RETRIES="+strconv.Itoa(retries),
		// Silence is ours to notice, which the CLI does not do reliably.
		"API_TIMEOUT_MS="+milliseconds(idle+time.Minute),
		"BASH_DEFAULT_TIMEOUT_MS="+milliseconds(min(bash, 2*time.Minute)),
		"BASH_MAX_TIMEOUT_MS="+milliseconds(bash),
	)
}

// env leads the CLI to the session. What it takes for credentials is the token.
func (m ModelSession) env(modelID string) []string {
	env := []string{"ANTHROPIC_BASE_URL=" + m.BaseURL, "ANTHROPIC_API_KEY=" + m.Token}
	if m.BedrockRegion != "" {
		env = []string{
			"CLAUDE_CODE_USE_BEDROCK=1", "ANTHROPIC_BEDROCK_BASE_URL=" + m.BaseURL, "AWS_BEARER_TOKEN_BEDROCK=" + m.Token,
			"AWS_REGION=" + m.BedrockRegion, "AWS_EC2_METADATA_DISABLED=true",
		}
	}
	if !IsModelID(modelID) {
		return env
	}
	// There is one model: the CLI is not to take another one for small things,
	// or a newer one instead.
	return append(env, "CLAUDE_CODE_DISABLE_LEGACY_MODEL_REMAP=1", "ANTHROPIC_SMALL_FAST_MODEL="+modelID,
		"ANTHROPIC_DEFAULT_HAIKU_MODEL="+modelID)
}

// IsModelID reports whether a model is named by its id, or by its ARN, and not by
// a name that the CLI resolves, such as sonnet.
func IsModelID(model string) bool {
	return strings.Contains(model, "claude-") || strings.HasPrefix(model, "arn:")
}

// notes are what the run is told before its instruction: first, what was done in
// a conversation that is lost.
func (c *Claude) notes(ctx context.Context, conv *conversation) []string {
	var done []string
	if history := conv.request.History; history != nil && !conv.resumed {
		var err error
		if done, err = history(ctx); err != nil {
			c.warn(ctx, "what was done so far is not told", err)
		}
	}
	return conv.allNotes(done)
}

// takeBack brings the conversation home, also after a failure.
func (c *Claude) takeBack(ctx context.Context, conv *conversation) {
	if err := Rescue(conv.request.Job, conv.request.Conversations); err != nil {
		c.warn(ctx, "conversation not brought home; it goes on from where it was before", err)
	}
}

func (c *Claude) warn(ctx context.Context, msg string, err error) {
	if c.Log != nil {
		c.Log.WarnContext(ctx, msg, slog.Any("error", err)) //nolint:sloglint // each caller's message is constant
	}
}

// lost reports whether the CLI did not find the conversation. It says so before
// it asks the model anything.
func (o outcome) lost() bool {
	const words = "No conversation found"
	if o.stream.reached {
		return false
	}
	if strings.Contains(o.stderr, words) {
		return true
	}
	last := o.stream.last
	return last != nil && (strings.Contains(last.Text, words) || strings.Contains(strings.Join(last.Errors, "\n"), words))
}

// milliseconds is how the CLI wants its durations.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(d.Milliseconds(), 10)
}
