package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/google/shlex"
	"github.com/joho/godotenv"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
	"github.com/webordinary/claude-code-container/router"
)

// config is all that can be set from the environment or .env.local. The help of
// run is made from it.
type config struct {
	UnclaimedQueueURL string `env:"UNCLAIMED_QUEUE_URL" desc:"queue of claim requests; required by run"`
	UnclaimedDLQURL   string `env:"UNCLAIMED_DLQ_URL" desc:"dead-letter queue for messages without usable ids; else webordinary-unclaimed-dlq"`
	OwnershipTable    string `env:"CONTAINER_OWNERSHIP_TABLE" envDefault:"webordinary-container-ownership" desc:"table of claims; older names OWNERSHIP_TABLE_NAME, OWNERSHIP_TABLE"`
	JournalTable      string `env:"JOURNAL_TABLE" desc:"table of the journal; else the ownership table"`
	SessionTable      string `env:"SESSION_TABLE" desc:"accepted, not used"`
	ThreadTable       string `env:"THREAD_MAPPINGS_TABLE" desc:"accepted, not used"`
	BucketPattern     string `env:"S3_BUCKET_PATTERN" envDefault:"edit.{projectId}.webordinary.com" desc:"name of a project's bucket"`
	S3URLPattern      string `env:"S3_URL_PATTERN" envDefault:"https://{bucket}" desc:"address of a site, given as s3Url"`
	InputPattern      string `env:"INPUT_QUEUE_PATTERN" envDefault:"webordinary-input-{projectId}-{userId}" desc:"queue of commands"`
	OutputPattern     string `env:"OUTPUT_QUEUE_PATTERN" envDefault:"webordinary-output-{projectId}-{userId}" desc:"queue of answers"`
	DLQPattern        string `env:"DLQ_QUEUE_PATTERN" envDefault:"webordinary-dlq-{projectId}-{userId}" desc:"dead-letter queue"`
	InterruptsPattern string `env:"INTERRUPTS_QUEUE_PATTERN" envDefault:"webordinary-interrupts-{projectId}-{userId}" desc:"queue of interrupts, optional"`
	ProgressPattern   string `env:"PROGRESS_QUEUE_PATTERN" envDefault:"webordinary-progress-{projectId}-{userId}" desc:"queue of progress events, optional"`
	CreateResources   bool   `env:"CREATE_RESOURCES" envDefault:"false" desc:"create missing queues, tables and buckets; for local use"`

	Region        string `env:"AWS_REGION" desc:"the SDK's own"`
	AccountID     string `env:"AWS_ACCOUNT_ID" desc:"accepted, not used"`
	Endpoint      string `env:"AWS_ENDPOINT_URL" desc:"the SDK's own, as are _SQS, _DYNAMODB and _S3"`
	SQSEndpoint   string `env:"AWS_ENDPOINT_URL_SQS" desc:"the SDK's own"`
	DynamoDB      string `env:"AWS_ENDPOINT_URL_DYNAMODB" desc:"the SDK's own"`
	S3Endpoint    string `env:"AWS_ENDPOINT_URL_S3" desc:"the SDK's own"`
	S3PathStyle   bool   `env:"S3_FORCE_PATH_STYLE" envDefault:"false" desc:"for S3-compatible stores"`
	ContainerID   string `env:"CONTAINER_ID" desc:"else from ECS, else host name and a random number"`
	EFSMountPath  string `env:"EFS_MOUNT_PATH" desc:"where workspaces are; else WORKSPACE_PATH"`
	WorkspacePath string `env:"WORKSPACE_PATH" envDefault:"/workspace" desc:"where workspaces are, without EFS_MOUNT_PATH"`

	AllowedRepoHosts []string `env:"ALLOWED_REPO_HOSTS" envDefault:"github.com" desc:"hosts of repositories, host or host:port; http only for a loopback host with its port"`
	GitHubToken      string   `env:"GITHUB_TOKEN" desc:"password of x-access-token, sent to the allowed hosts only"`
	AuthorName       string   `env:"GIT_AUTHOR_NAME" envDefault:"WebOrdinary" desc:"author of our commits"`
	AuthorEmail      string   `env:"GIT_AUTHOR_EMAIL" envDefault:"noreply@webordinary.com" desc:"author of our commits"`
	AllowWorkflows   bool     `env:"ALLOW_WORKFLOW_CHANGES" envDefault:"false" desc:"commit changes to .github/workflows"`

	Agent           string        `env:"AGENT" envDefault:"claude" desc:"claude or command"`
	AgentCommand    string        `env:"AGENT_COMMAND" desc:"for AGENT=command: a program and arguments; stdin is the instruction"`
	ClaudePath      string        `env:"CLAUDE_PATH" envDefault:"claude" desc:"the Claude Code CLI"`
	AnthropicKey    string        `env:"ANTHROPIC_API_KEY" desc:"credential of model calls; the agent never has it; required by run with AGENT=claude, without Bedrock"`
	AnthropicURL    string        `env:"ANTHROPIC_BASE_URL" envDefault:"https://api.anthropic.com" desc:"upstream of model calls"`
	AnthropicModel  string        `env:"ANTHROPIC_MODEL" desc:"the one model that may be called, by its id; else the CLI's choice, which its first call makes; for Bedrock better set"`
	UseBedrock      bool          `env:"CLAUDE_CODE_USE_BEDROCK" envDefault:"false" desc:"call Amazon Bedrock, with the worker's AWS credentials, instead of ANTHROPIC_API_KEY"`
	BedrockRegion   string        `env:"AWS_BEDROCK_REGION" desc:"where Bedrock is called; else AWS_REGION"`
	BedrockURL      string        `env:"ANTHROPIC_BEDROCK_BASE_URL" desc:"upstream of Bedrock calls; else the region's own"`
	AgentTimeout    time.Duration `env:"AGENT_TIMEOUT" envDefault:"30m" desc:"for one run of the agent"`
	AgentIdle       time.Duration `env:"AGENT_IDLE_TIMEOUT" envDefault:"5m" desc:"silence of the model"`
	BuildTimeout    time.Duration `env:"BUILD_TIMEOUT" envDefault:"10m" desc:"for installing, and for building"`
	MaxTurns        int           `env:"AGENT_MAX_TURNS" envDefault:"100" desc:"per command"`
	MaxCost         float64       `env:"AGENT_MAX_COST_USD" desc:"per command; unlimited"`
	MaxTokens       int64         `env:"AGENT_MAX_TOKENS" desc:"per command, all of input, cache and output; unlimited"`
	AgentEnv        []string      `env:"AGENT_ENV" desc:"names of further variables that agent and npm get"`
	AgentHosts      []string      `env:"AGENT_ALLOWED_HOSTS" desc:"what agent and npm may reach besides the model, host or host:port; else the npm registry in use"`
	InterruptPolicy string        `env:"INTERRUPT_POLICY" envDefault:"thread" desc:"thread, any or never"`
	Sandbox         string        `env:"SANDBOX" envDefault:"auto" desc:"wall around agent and npm: bubblewrap, users or landlock; auto takes the first that holds, off takes none"`

	IdleTimeout    time.Duration `env:"IDLE_TIMEOUT" envDefault:"5m" desc:"how long a project without work is kept"`
	MaxClaims      int           `env:"MAX_CLAIMS" envDefault:"1" desc:"projects worked on at once"`
	LeaseDuration  time.Duration `env:"LEASE_DURATION" envDefault:"45s" desc:"how long a claim lasts without renewal"`
	LeaseRenewal   time.Duration `env:"LEASE_RENEWAL" envDefault:"10s" desc:"time between renewals"`
	SweepInterval  time.Duration `env:"SWEEP_INTERVAL" envDefault:"10s" desc:"time between looks for dead owners"`
	Visibility     time.Duration `env:"VISIBILITY_TIMEOUT" envDefault:"45s" desc:"of a received message, extended until its ack"`
	AssetGrace     time.Duration `env:"ASSET_GRACE" envDefault:"24h" desc:"how long hashed assets of earlier builds stay"`
	MaxAttempts    int           `env:"MAX_ATTEMPTS" envDefault:"3" desc:"tries of a command that fails transiently"`
	ShutdownGrace  time.Duration `env:"SHUTDOWN_GRACE" envDefault:"25s" desc:"from SIGTERM to exit"`
	HeartbeatFile  string        `env:"HEARTBEAT_FILE" desc:"what health reads; else in the temporary directory"`
	LogLevel       slog.Level    `env:"LOG_LEVEL" envDefault:"info" desc:"debug, info, warn or error"`
	LogFormat      string        `env:"LOG_FORMAT" envDefault:"json" desc:"json, or text for people"`
	agentWords     []string
	awsVariables   []string // from .env.local, for the SDK, which reads the environment
	anthropicURL   *url.URL
	bedrockURL     *url.URL // nil means the region's own
	secrets        []string // that are in variables of the SDK
	agentExplicit  bool
	claimsExplicit bool
	registry       string        // npm's, as host:port
	hosts          gateway.Hosts // of AGENT_ALLOWED_HOSTS
}

// loadConfig reads .env.local in the working directory, then the environment,
// which wins. An empty variable counts as absent. All that is wrong is reported
// at once, and so are the variables in required that are missing.
func loadConfig(environ []string, required ...string) (*config, error) {
	vars, err := readVariables(environ)
	if err != nil {
		return nil, err
	}
	c, unreadable, err := parseVariables(vars)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, name := range required {
		if vars[name] == "" && (name != anthropicKey || c.needsKey()) {
			problems = append(problems, fmt.Errorf("%s is missing", name))
		}
	}
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} {
		if vars[name] != "" {
			c.secrets = append(c.secrets, vars[name])
		}
	}
	for name, value := range vars {
		if strings.HasPrefix(name, "AWS_") && variable(environ, name) == "" {
			c.awsVariables = append(c.awsVariables, name+"="+value)
		}
	}
	problems = append(append(problems, unreadable...), c.check()...)
	if err := c.setHosts(environ); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, &configError{problems: c.redact()(errors.Join(problems...).Error())}
	}
	return c, nil
}

// configError says all that is wrong.
type configError struct{ problems string } // a line each

// Error implements error.
func (e *configError) Error() string {
	return "the configuration is wrong:\n" + e.problems + "\nVariables are set in the environment or in .env.local; `webordinary run --help` describes them"
}

// anthropicKey is required if it is needed.
const anthropicKey = "ANTHROPIC_API_KEY"

// needsKey reports whether model calls are signed with ANTHROPIC_API_KEY.
func (c *config) needsKey() bool { return c.Agent == "claude" && !c.UseBedrock }

// usesBedrock reports whether model calls go to Bedrock.
func (c *config) usesBedrock() bool { return c.Agent == "claude" && c.UseBedrock }

// bedrockRegion is where models are called.
func (c *config) bedrockRegion() string {
	if c.BedrockRegion != "" {
		return c.BedrockRegion
	}
	return c.Region
}

// variable returns a variable's value; empty if it is absent.
func variable(environ []string, name string) string {
	for _, kv := range environ {
		if n, value, ok := strings.Cut(kv, "="); ok && n == name {
			return value
		}
	}
	return ""
}

// workspaces is the directory that all workspaces are in.
func (c *config) workspaces() string {
	if c.EFSMountPath != "" {
		return c.EFSMountPath
	}
	return c.WorkspacePath
}

// readVariables returns all variables that are not empty.
func readVariables(environ []string) (map[string]string, error) {
	vars, err := godotenv.Read(".env.local")
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	} else if err != nil { // its text has what is in the file
		return nil, errors.New(".env.local cannot be read: want NAME=value in each line, and quotes in pairs")
	}
	if vars == nil {
		vars = map[string]string{}
	}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" {
			vars[name] = value
		}
	}
	maps.DeleteFunc(vars, func(_, value string) bool { return value == "" })
	for _, old := range []string{"OWNERSHIP_TABLE_NAME", "OWNERSHIP_TABLE"} {
		if vars["CONTAINER_OWNERSHIP_TABLE"] == "" && vars[old] != "" {
			vars["CONTAINER_OWNERSHIP_TABLE"] = vars[old]
		}
	}
	return vars, nil
}

// parseVariables also returns what is wrong with values that cannot be read; they
// have their defaults then.
func parseVariables(vars map[string]string) (c *config, unreadable []error, err error) {
	explicit := config{agentExplicit: vars["AGENT"] != "", claimsExplicit: vars["MAX_CLAIMS"] != ""}
	c = new(explicit)
	err = env.ParseWithOptions(c, env.Options{Environment: vars})
	var all env.AggregateError
	if !errors.As(err, &all) {
		return c, nil, err
	}
	readable := maps.Clone(vars)
	for _, err := range all.Errors {
		var wrong env.ParseError
		if !errors.As(err, &wrong) {
			return nil, nil, err
		}
		f, _ := reflect.TypeFor[config]().FieldByName(wrong.Name)
		name := f.Tag.Get("env")
		unreadable = append(unreadable, fmt.Errorf("%s is %q: %w", name, vars[name], wrong.Err))
		delete(readable, name)
	}
	c = new(explicit)
	return c, unreadable, env.ParseWithOptions(c, env.Options{Environment: readable})
}

// check returns all that is wrong with values that could be read.
func (c *config) check() []error {
	var wrong []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for name, d := range map[string]time.Duration{
		"AGENT_TIMEOUT": c.AgentTimeout, "AGENT_IDLE_TIMEOUT": c.AgentIdle, "BUILD_TIMEOUT": c.BuildTimeout,
		"IDLE_TIMEOUT": c.IdleTimeout, "LEASE_DURATION": c.LeaseDuration, "LEASE_RENEWAL": c.LeaseRenewal, "SWEEP_INTERVAL": c.SweepInterval,
		"VISIBILITY_TIMEOUT": c.Visibility, "ASSET_GRACE": c.AssetGrace, "SHUTDOWN_GRACE": c.ShutdownGrace,
	} {
		add(d <= 0, "%s is %s; it must be more than nothing", name, d)
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	add(c.LeaseRenewal > c.LeaseDuration/3, "LEASE_RENEWAL is %s; at most a third of LEASE_DURATION (%s) lets a renewal fail once", c.LeaseRenewal, c.LeaseDuration)
	add(c.MaxTurns < 1, "AGENT_MAX_TURNS is %d; at least 1", c.MaxTurns)
	add(c.MaxCost < 0 || math.IsNaN(c.MaxCost), "AGENT_MAX_COST_USD is %v; at least 0", c.MaxCost)
	add(c.MaxTokens < 0, "AGENT_MAX_TOKENS is %d; at least 0", c.MaxTokens)
	add(c.MaxClaims < 1, "MAX_CLAIMS is %d; at least 1", c.MaxClaims)
	add(c.MaxAttempts < 1, "MAX_ATTEMPTS is %d; at least 1", c.MaxAttempts)
	add(!slices.Contains([]string{"claude", "command"}, c.Agent), "AGENT is %q; claude or command", c.Agent)
	add(!slices.Contains([]string{"json", "text"}, c.LogFormat), "LOG_FORMAT is %q; json or text", c.LogFormat)
	add(!slices.Contains([]router.Policy{router.SameThread, router.AnyThread, router.Never}, router.Policy(c.InterruptPolicy)),
		"INTERRUPT_POLICY is %q; thread, any or never", c.InterruptPolicy)
	add(!slices.Contains(sandboxes(), c.Sandbox), "SANDBOX is %q; one of %s", c.Sandbox, strings.Join(sandboxes(), ", "))
	add(strings.HasSuffix(c.UnclaimedQueueURL, ".fifo"), "UNCLAIMED_QUEUE_URL is a FIFO queue; a message group would stop behind its first message, use a standard queue")
	for _, name := range c.AgentEnv {
		add(isCredential(name), "AGENT_ENV names %s; agent and npm get no credential of the worker", name)
	}
	for _, h := range c.AllowedRepoHosts {
		if strings.Contains(h, "@") {
			add(true, "ALLOWED_REPO_HOSTS has a name or password before an @; host or host:port")
			continue
		}
		err := protocol.CheckRepoHost(h)
		add(err != nil, "ALLOWED_REPO_HOSTS: %v", err)
	}
	var err error
	c.agentWords, err = shlex.Split(c.AgentCommand)
	add(err != nil, "AGENT_COMMAND cannot be split into words: %v", err)
	add(err == nil && c.Agent == "command" && len(c.agentWords) == 0, "AGENT is command, and AGENT_COMMAND is missing")
	return append(append(wrong, c.checkModel()...), c.checkNames()...)
}

// checkModel returns what is wrong with the way to the model.
func (c *config) checkModel() []error {
	var wrong []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	add(c.usesBedrock() && c.bedrockRegion() == "", "AWS_BEDROCK_REGION is missing, and so is AWS_REGION; CLAUDE_CODE_USE_BEDROCK needs one")
	add(strings.ContainsFunc(c.bedrockRegion(), func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }),
		"the region of Bedrock is %q; one like us-west-2", c.bedrockRegion())
	var ok bool
	c.anthropicURL, ok = baseURL(c.AnthropicURL)
	add(!ok, "ANTHROPIC_BASE_URL is not a URL with http:// or https://")
	if c.BedrockURL != "" {
		c.bedrockURL, ok = baseURL(c.BedrockURL)
		add(!ok, "ANTHROPIC_BEDROCK_BASE_URL is not a URL with http:// or https://")
	}
	return wrong
}

// baseURL reads where calls go.
func baseURL(text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	return u, err == nil && u.Host != "" && slices.Contains([]string{"http", "https"}, u.Scheme)
}

// checkNames returns what is wrong with the patterns of names, each with its
// variable.
func (c *config) checkNames() []error {
	var wrong []error
	add := func(variable string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", variable, err))
		}
	}
	queues := []struct{ variable, pattern string }{
		{"INPUT_QUEUE_PATTERN", c.InputPattern},
		{"OUTPUT_QUEUE_PATTERN", c.OutputPattern},
		{"DLQ_QUEUE_PATTERN", c.DLQPattern},
		{"INTERRUPTS_QUEUE_PATTERN", c.InterruptsPattern},
		{"PROGRESS_QUEUE_PATTERN", c.ProgressPattern},
	}
	for i, q := range queues {
		const other = "{projectId}-{userId}_" // the other queues must not be in the way
		add(q.variable, protocol.Names{
			InputPattern: q.pattern, OutputPattern: other + "1", DLQPattern: other + "2", InterruptsPattern: other + "3", ProgressPattern: other + "4",
		}.Validate())
		for _, before := range queues[:i] {
			if q.pattern == before.pattern {
				add(q.variable, fmt.Errorf("it is the same as %s", before.variable))
			}
		}
	}
	add("S3_BUCKET_PATTERN", protocol.Names{BucketPattern: c.BucketPattern}.Validate())
	add("S3_URL_PATTERN", protocol.Names{S3URLPattern: c.S3URLPattern}.Validate())
	if len(wrong) == 0 {
		add("the patterns of names", c.names().Validate())
	}
	return wrong
}

// isCredential reports whether a variable holds a secret of the worker, or leads
// to one.
func isCredential(name string) bool {
	return name == "GITHUB_TOKEN" || name == "ANTHROPIC_API_KEY" || strings.HasPrefix(name, "AWS_")
}

func (c *config) names() protocol.Names {
	return protocol.Names{
		InputPattern: c.InputPattern, OutputPattern: c.OutputPattern, DLQPattern: c.DLQPattern,
		InterruptsPattern: c.InterruptsPattern, ProgressPattern: c.ProgressPattern,
		BucketPattern: c.BucketPattern, S3URLPattern: c.S3URLPattern, UnclaimedDLQ: c.UnclaimedDLQURL,
	}
}

// redact replaces the secrets we know in a text, also as git sends its own.
func (c *config) redact() func(string) string {
	var pairs []string
	for _, secret := range append([]string{c.GitHubToken, c.AnthropicKey}, c.secrets...) {
		if len(secret) >= 4 {
			pairs = append(pairs, secret, "[redacted]")
		}
	}
	if c.GitHubToken != "" {
		pairs = append(pairs, base64.StdEncoding.EncodeToString([]byte("x-access-token:"+c.GitHubToken)), "[redacted]")
	}
	return strings.NewReplacer(pairs...).Replace
}

// describeConfig lists every variable with its default, for help.
func describeConfig() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	t := reflect.TypeFor[config]()
	for f := range t.Fields() {
		name := f.Tag.Get("env")
		if name == "" {
			continue
		}
		def := f.Tag.Get("envDefault")
		if def == "" {
			def = "-"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", name, def, f.Tag.Get("desc")) //nolint:errcheck // a strings.Builder does not fail
	}
	w.Flush() //nolint:errcheck // a strings.Builder does not fail
	return b.String()
}

// logger writes to w, with the ids of the message that a line is about, and without
// the secrets we know.
func (c *config) logger(w io.Writer) *slog.Logger {
	redact := c.redact()
	o := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(redact(a.Value.String()))
		case slog.KindAny:
			if err, ok := a.Value.Any().(error); ok {
				a.Value = slog.StringValue(redact(err.Error()))
			}
		default:
		}
		return a
	}}
	if c.LogFormat == "text" {
		return slog.New(middleware.LogHandler(slog.NewTextHandler(w, o)))
	}
	return slog.New(middleware.LogHandler(slog.NewJSONHandler(w, o)))
}
