package main

import (
	"bytes"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/gateway"
)

const (
	secretToken = "ghp_tokenOfTheTest"
	secretKey   = "sk-ant-keyOfTheTest"
)

// load reads the configuration in a directory without .env.local, unless content
// is not empty.
func load(t *testing.T, local string, environ ...string) (*config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if local != "" {
		if err := os.WriteFile(".env.local", []byte(local), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return loadConfig(environ)
}

func mustLoad(t *testing.T, local string, environ ...string) *config {
	t.Helper()
	c, err := load(t, local, environ...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refusal returns what is wrong with a configuration, a line each.
func refusal(t *testing.T, environ ...string) string {
	t.Helper()
	c, err := load(t, "", environ...)
	if err == nil {
		t.Fatalf("%q is accepted: %+v", environ, c)
	}
	problems, ok := strings.CutPrefix(err.Error(), "the configuration is wrong:\n")
	problems, hint := strings.CutSuffix(problems, "\nVariables are set in the environment or in .env.local; `webordinary run --help` describes them")
	if !ok || !hint {
		t.Errorf("the error is %q", err)
	}
	return problems
}

func documentedDefaults() *config {
	return &config{
		OwnershipTable: "webordinary-container-ownership",
		BucketPattern:  "edit.{projectId}.webordinary.com", S3URLPattern: "https://{bucket}",
		InputPattern: "webordinary-input-{projectId}-{userId}", OutputPattern: "webordinary-output-{projectId}-{userId}",
		DLQPattern: "webordinary-dlq-{projectId}-{userId}", InterruptsPattern: "webordinary-interrupts-{projectId}-{userId}",
		ProgressPattern: "webordinary-progress-{projectId}-{userId}",
		WorkspacePath:   "/workspace", AllowedRepoHosts: []string{"github.com"},
		AuthorName: "WebOrdinary", AuthorEmail: "noreply@webordinary.com",
		Agent: "claude", ClaudePath: "claude", AnthropicURL: "https://api.anthropic.com",
		AgentTimeout: 30 * time.Minute, AgentIdle: 5 * time.Minute, BuildTimeout: 10 * time.Minute,
		MaxTurns: 100, InterruptPolicy: "thread", Sandbox: "auto",
		IdleTimeout: 5 * time.Minute, MaxClaims: 1, LeaseDuration: 45 * time.Second, LeaseRenewal: 10 * time.Second,
		SweepInterval: 10 * time.Second, Visibility: 45 * time.Second, AssetGrace: 24 * time.Hour, MaxAttempts: 3,
		ShutdownGrace: 25 * time.Second, LogLevel: slog.LevelInfo, LogFormat: "json",
		agentWords: []string{}, anthropicURL: &url.URL{Scheme: "https", Host: "api.anthropic.com"},
		registry: "registry.npmjs.org:443", hosts: hosts("registry.npmjs.org:443"),
	}
}

// hosts are hosts that can be parsed.
func hosts(list ...string) gateway.Hosts {
	h, err := gateway.ParseHosts(list)
	if err != nil {
		panic(err)
	}
	return h
}

// TestAllowedHosts checks what agent and npm may reach, as it is configured.
func TestAllowedHosts(t *testing.T) {
	for name, tt := range map[string]struct {
		environ []string
		want    gateway.Hosts
		warned  bool // that npm cannot install
	}{
		"nothing":                     {nil, hosts("registry.npmjs.org:443"), false},
		"another registry":            {[]string{"npm_config_registry=http://127.0.0.1:4873/npm/"}, hosts("127.0.0.1:4873"), false},
		"another, without a port":     {[]string{"npm_config_registry=http://npm.example/"}, hosts("npm.example:80"), false},
		"none that makes sense":       {[]string{"npm_config_registry=npm"}, hosts(), false},
		"others":                      {[]string{"AGENT_ALLOWED_HOSTS=a.example,b.example:8443"}, hosts("a.example", "b.example:8443"), true},
		"others and the registry":     {[]string{"AGENT_ALLOWED_HOSTS=a.example,registry.npmjs.org"}, hosts("a.example", "registry.npmjs.org", "registry.npmjs.org:443"), false},
		"another registry, by others": {[]string{"npm_config_registry=https://npm.example", "AGENT_ALLOWED_HOSTS=registry.npmjs.org"}, hosts("registry.npmjs.org"), true},
	} {
		t.Run(name, func(t *testing.T) {
			c := mustLoad(t, "", tt.environ...)
			if !reflect.DeepEqual(c.hosts, tt.want) {
				t.Errorf("got %+v, want %+v", c.hosts, tt.want)
			}
			warned := slices.ContainsFunc(c.warnings(), func(s string) bool { return strings.Contains(s, "npm cannot install") })
			if warned != tt.warned {
				t.Errorf("warnings: %q", c.warnings())
			}
		})
	}
	t.Chdir(t.TempDir())
	if _, err := loadConfig([]string{"AGENT_ALLOWED_HOSTS=https://a.example"}); err == nil || !strings.Contains(err.Error(), "AGENT_ALLOWED_HOSTS") {
		t.Errorf("an URL as a host: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	same := cmp.Options{cmp.AllowUnexported(config{}), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".agentWords" }, cmp.Comparer(
		slices.Equal[[]string],
	)), cmp.Comparer(func(a, b gateway.Hosts) bool { return reflect.DeepEqual(a, b) })}
	// CLIENT_ID, REPO_URL and DEFAULT_USER_ID belonged to the old container.
	for name, environ := range map[string][]string{
		"nothing": nil,
		"empty":   {"MAX_CLAIMS=", "AGENT=", "LEASE_DURATION=", "ALLOWED_REPO_HOSTS=", "LOG_LEVEL="},
		"legacy":  {"CLIENT_ID=amelia", "REPO_URL=https://github.com/a/b", "DEFAULT_USER_ID=scott"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(documentedDefaults(), mustLoad(t, "", environ...), same); diff != "" {
				t.Errorf("the defaults differ (-want +got):\n%s", diff)
			}
		})
	}
}

// The golden file is made with `go run . run --help > testdata/run-help.golden`.
func TestHelpOfRun(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "run-help.golden"))
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"run", "--help"}, system{
		environ: []string{"GITHUB_TOKEN=" + secretToken, "ANTHROPIC_API_KEY=" + secretKey}, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
	})
	if code != 0 || stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
	if diff := cmp.Diff(string(want), stdout.String()); diff != "" {
		t.Errorf("the help differs (-want +got):\n%s", diff)
	}
	for f := range reflect.TypeFor[config]().Fields() {
		name, desc := f.Tag.Get("env"), f.Tag.Get("desc")
		if f.IsExported() && (name == "" || desc == "" || !strings.Contains(string(want), "  "+name+" ")) {
			t.Errorf("field %s has variable %q and description %q; the help must have them", f.Name, name, desc)
		}
	}
}

func TestOneWrongValue(t *testing.T) {
	for _, tt := range []struct{ set, want string }{
		{"CREATE_RESOURCES=perhaps", `CREATE_RESOURCES is "perhaps": `},
		{"S3_FORCE_PATH_STYLE=2", `S3_FORCE_PATH_STYLE is "2": `},
		{"MAX_CLAIMS=many", `MAX_CLAIMS is "many": `},
		{"MAX_CLAIMS=0", "MAX_CLAIMS is 0; at least 1"},
		{"MAX_ATTEMPTS=0", "MAX_ATTEMPTS is 0; at least 1"},
		{"AGENT_ENV=GITHUB_TOKEN", "AGENT_ENV names GITHUB_TOKEN; agent and npm get no credential"},
		{"AGENT_MAX_TURNS=0", "AGENT_MAX_TURNS is 0; at least 1"},
		{"AGENT_MAX_COST_USD=-1", "AGENT_MAX_COST_USD is -1; at least 0"},
		{"AGENT_MAX_COST_USD=NaN", "AGENT_MAX_COST_USD is NaN; at least 0"},
		{"AGENT_MAX_TOKENS=-1", "AGENT_MAX_TOKENS is -1; at least 0"},
		{"AGENT_TIMEOUT=10", `AGENT_TIMEOUT is "10": `},
		{"AGENT_TIMEOUT=0s", "AGENT_TIMEOUT is 0s; it must be more than nothing"},
		{"AGENT_IDLE_TIMEOUT=0s", "AGENT_IDLE_TIMEOUT is 0s"},
		{"BUILD_TIMEOUT=0s", "BUILD_TIMEOUT is 0s"},
		{"IDLE_TIMEOUT=0s", "IDLE_TIMEOUT is 0s"},
		{"LEASE_RENEWAL=0s", "LEASE_RENEWAL is 0s"},
		{"LEASE_RENEWAL=16s", "LEASE_RENEWAL is 16s; at most a third of LEASE_DURATION (45s)"},
		{"LEASE_DURATION=long", `LEASE_DURATION is "long": `},
		{"SWEEP_INTERVAL=-1s", "SWEEP_INTERVAL is -1s"},
		{"VISIBILITY_TIMEOUT=0s", "VISIBILITY_TIMEOUT is 0s"},
		{"ASSET_GRACE=0s", "ASSET_GRACE is 0s"},
		{"SHUTDOWN_GRACE=0s", "SHUTDOWN_GRACE is 0s"},
		{"AGENT=gpt", `AGENT is "gpt"; claude or command`},
		{"AGENT=command", "AGENT is command, and AGENT_COMMAND is missing"},
		{`AGENT_COMMAND=say "hello`, "AGENT_COMMAND cannot be split into words"},
		{"LOG_LEVEL=loud", `LOG_LEVEL is "loud": `},
		{"LOG_FORMAT=xml", `LOG_FORMAT is "xml"; json or text`},
		{"INTERRUPT_POLICY=always", `INTERRUPT_POLICY is "always"; thread, any or never`},
		{"CLAUDE_CODE_USE_BEDROCK=1", "AWS_BEDROCK_REGION is missing, and so is AWS_REGION; CLAUDE_CODE_USE_BEDROCK needs one"},
		{"CLAUDE_CODE_USE_BEDROCK=yes", `CLAUDE_CODE_USE_BEDROCK is "yes": `},
		{"AWS_BEDROCK_REGION=example.com/", `the region of Bedrock is "example.com/"; one like us-west-2`},
		{"ANTHROPIC_BEDROCK_BASE_URL=localhost", "ANTHROPIC_BEDROCK_BASE_URL is not a URL"},
		{"SANDBOX=moat", `SANDBOX is "moat"; one of auto, bubblewrap, `},
		{"UNCLAIMED_QUEUE_URL=https://sqs/1/q.fifo", "UNCLAIMED_QUEUE_URL is a FIFO queue; a message group would stop behind its first message, use a standard queue"},
		{"ALLOWED_REPO_HOSTS=github.com,https://x", `ALLOWED_REPO_HOSTS: "https://x" is not a host or host:port`},
		{"ANTHROPIC_BASE_URL=localhost", "ANTHROPIC_BASE_URL is not a URL"},
		{"ANTHROPIC_BASE_URL=httpx://localhost", "ANTHROPIC_BASE_URL is not a URL"},
		{"ANTHROPIC_BASE_URL=:", "ANTHROPIC_BASE_URL is not a URL"},
		{"INPUT_QUEUE_PATTERN=in", "INPUT_QUEUE_PATTERN: "},
		{"OUTPUT_QUEUE_PATTERN=webordinary-input-{projectId}-{userId}", "OUTPUT_QUEUE_PATTERN: it is the same as INPUT_QUEUE_PATTERN"},
		{"DLQ_QUEUE_PATTERN=dlq {projectId}{userId}", "DLQ_QUEUE_PATTERN: "},
		{"INTERRUPTS_QUEUE_PATTERN=i-{userId}", "INTERRUPTS_QUEUE_PATTERN: "},
		{"PROGRESS_QUEUE_PATTERN=p-{projectId}", "PROGRESS_QUEUE_PATTERN: "},
		{"S3_BUCKET_PATTERN=bucket", "S3_BUCKET_PATTERN: "},
		{"S3_URL_PATTERN=ftp://{bucket}", "S3_URL_PATTERN: "},
	} {
		t.Run(tt.set, func(t *testing.T) {
			if got := refusal(t, tt.set); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("wrong is %q, want one line that begins with %q", got, tt.want)
			}
		})
	}
}

func TestAllThatIsWrongIsReportedAtOnce(t *testing.T) {
	got := refusal(t, "MAX_CLAIMS=many", "LEASE_DURATION=long", "LOG_LEVEL=loud", "AGENT_TIMEOUT=0s", "IDLE_TIMEOUT=-5s", "AGENT=gpt",
		"SANDBOX=moat", "CLAUDE_CODE_USE_BEDROCK=perhaps", "UNCLAIMED_QUEUE_URL=https://sqs/1/q.fifo", "INPUT_QUEUE_PATTERN=in", "S3_URL_PATTERN=x")
	var names []string
	for line := range strings.SplitSeq(got, "\n") {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, strings.TrimSuffix(name, ":"))
	}
	slices.Sort(names)
	want := []string{
		"AGENT", "AGENT_TIMEOUT", "CLAUDE_CODE_USE_BEDROCK", "IDLE_TIMEOUT", "INPUT_QUEUE_PATTERN", "LEASE_DURATION", "LOG_LEVEL",
		"MAX_CLAIMS", "S3_URL_PATTERN", "SANDBOX", "UNCLAIMED_QUEUE_URL",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the variables reported differ (-want +got):\n%s\n%s", diff, got)
	}
}

func TestAcceptedValues(t *testing.T) {
	c := mustLoad(t, "", "SANDBOX=off", "CLAUDE_CODE_USE_BEDROCK=false", "AGENT=command", `AGENT_COMMAND=say 'hello you' --x`, "LEASE_RENEWAL=15s",
		"ALLOWED_REPO_HOSTS=github.com,127.0.0.1:3000", "EFS_MOUNT_PATH=/efs", "SESSION_TABLE=s", "LOG_LEVEL=debug",
		// They only change places.
		"INPUT_QUEUE_PATTERN=webordinary-output-{projectId}-{userId}", "OUTPUT_QUEUE_PATTERN=webordinary-input-{projectId}-{userId}")
	if diff := cmp.Diff([]string{"say", "hello you", "--x"}, c.agentWords); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"github.com", "127.0.0.1:3000"}, c.AllowedRepoHosts); diff != "" {
		t.Error(diff)
	}
	if c.LogLevel != slog.LevelDebug || c.LeaseRenewal != 15*time.Second || c.EFSMountPath != "/efs" || !c.agentExplicit || c.claimsExplicit {
		t.Errorf("read as %+v", c)
	}
}

func TestEnvLocal(t *testing.T) {
	local := "# ours\nMAX_CLAIMS=4\nAUTHOR=x\nGIT_AUTHOR_NAME=\"Amelia B\"\nMAX_ATTEMPTS=7\nJOURNAL_TABLE=\nLOG_FORMAT=text\n"
	c := mustLoad(t, local, "MAX_CLAIMS=5", "MAX_ATTEMPTS=")
	if c.MaxClaims != 5 {
		t.Errorf("MAX_CLAIMS is %d; the environment must win", c.MaxClaims)
	}
	if c.MaxAttempts != 7 {
		t.Errorf("MAX_ATTEMPTS is %d; an empty variable of the environment must count as absent", c.MaxAttempts)
	}
	if c.AuthorName != "Amelia B" || c.LogFormat != "text" || c.JournalTable != "" || !c.claimsExplicit {
		t.Errorf("read as %+v", c)
	}
}

func TestOlderNamesOfTheOwnershipTable(t *testing.T) {
	const newest, older, oldest = "CONTAINER_OWNERSHIP_TABLE=new", "OWNERSHIP_TABLE_NAME=older", "OWNERSHIP_TABLE=oldest"
	for want, environ := range map[string][]string{
		"new": {oldest, newest, older}, "older": {oldest, older}, "oldest": {oldest, "CONTAINER_OWNERSHIP_TABLE=", "OWNERSHIP_TABLE_NAME="},
	} {
		if got := mustLoad(t, "", environ...).OwnershipTable; got != want {
			t.Errorf("%q gives table %q, want %q", environ, got, want)
		}
	}
}

func TestNoSecretInErrors(t *testing.T) {
	secrets := []string{"GITHUB_TOKEN=" + secretToken, "ANTHROPIC_API_KEY=" + secretKey}
	for name, tt := range map[string]struct {
		local   string
		environ []string
	}{
		"beside":        {environ: append([]string{"AGENT=gpt", "SANDBOX=moat", "MAX_CLAIMS=x"}, secrets...)},
		"wrong place":   {environ: append([]string{"AGENT=" + secretToken, "MAX_CLAIMS=" + secretKey, "LOG_LEVEL=" + secretToken}, secrets...)},
		"in a host":     {environ: []string{"ALLOWED_REPO_HOSTS=x:" + secretToken + "@github.com"}},
		"in a URL":      {environ: []string{"ANTHROPIC_BASE_URL=ftp://x:" + secretKey + "@host", "UNCLAIMED_QUEUE_URL=https://x:" + secretKey + "@sqs/q.fifo"}},
		"in a command":  {environ: []string{"AGENT_COMMAND=agent --key '" + secretKey}},
		"broken line":   {local: "A B\nGITHUB_TOKEN=" + secretToken + "\n"},
		"broken quotes": {local: "GITHUB_TOKEN=\"" + secretToken + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.local, tt.environ...)
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, secret := range []string{secretToken, secretKey} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error has a secret: %v", err)
				}
			}
		})
	}
}

func TestEnvLocalThatCannotBeRead(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(".env.local", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := loadConfig(nil); err == nil || !strings.Contains(err.Error(), ".env.local") {
		t.Errorf("the error is %v, want one that names .env.local", err)
	}
}

func TestMissingClaude(t *testing.T) {
	c := mustLoad(t, "", "CLAUDE_PATH=/no/such/claude", "ANTHROPIC_API_KEY="+secretKey)
	_, err := c.newAgent(t.Context(), nil, nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), `CLAUDE_PATH is "/no/such/claude", and there is no such program`) || strings.Contains(err.Error(), secretKey) {
		t.Errorf("the error is %v", err)
	}
}

// TestSecretsInOtherForms redacts what is a secret as much as the variable it is from.
func TestSecretsInOtherForms(t *testing.T) {
	c, err := loadConfig([]string{"GITHUB_TOKEN=ghp_test", "AWS_CONTAINER_AUTHORIZATION_TOKEN=of-the-task"})
	if err != nil {
		t.Fatal(err)
	}
	const header = "Authorization: Basic eC1hY2Nlc3MtdG9rZW46Z2hwX3Rlc3Q=" // x-access-token:ghp_test
	if got := c.redact()(header + " of-the-task"); got != "Authorization: Basic [redacted] [redacted]" {
		t.Errorf("redacted as %q", got)
	}
}
