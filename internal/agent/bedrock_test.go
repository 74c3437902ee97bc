package agent

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

const bedrockModel = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"

// newBedrock is a fixture whose CLI speaks Bedrock's protocol.
func newBedrock(t *testing.T, model string) *fixture {
	t.Helper()
	f := newFixture(t)
	c := gateway.Config{Bedrock: true}
	if model != "" {
		c.Models = []string{model}
	}
	f.claude.ModelID, f.claude.Model = model, through(t, f.model.URL(), c)
	return f
}

// TestBedrock runs the CLI by Bedrock's protocol: the model that was chosen is the
// only one that is called, the conversation goes on, and the environment has
// no credential.
func TestBedrock(t *testing.T) {
	for name, model := range map[string]string{
		"a model": bedrockModel, "the CLI's choice": "", "an ARN": "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc",
		"a long context": bedrockModel + "[1m]",
	} {
		t.Run(name, func(t *testing.T) {
			f := newBedrock(t, model)
			f.write(t, "site/index.html", "<h1>red</h1>")
			f.model.Play("make it blue",
				modelserver.Use("Read", modelserver.Input{"file_path": filepath.Join(f.root, "site/index.html")}),
				modelserver.Use("Edit", modelserver.Input{"file_path": "index.html", "old_string": "red", "new_string": "blue"}),
				modelserver.Bash("env > env.txt"),
				modelserver.Say("It is blue now."))
			f.model.Play("go on", modelserver.Say("I did."))
			got, err := f.claude.Run(t.Context(), f.request("make it blue"))
			if err != nil || got.Summary != "It is blue now." || got.Turns != 4 || got.Tokens != 480 {
				t.Fatalf("got %+v, %v", got, err)
			}
			if page := f.read(t, "site/index.html"); page != "<h1>blue</h1>" {
				t.Errorf("page %q", page)
			}
			if got, err := f.claude.Run(t.Context(), f.request("go on")); err != nil || !got.Resumed {
				t.Errorf("got %+v, %v", got, err)
			}
			var models []string
			for _, r := range f.model.Requests() {
				if !r.Bedrock {
					t.Errorf("a call of %s", r.Path)
				}
				models = append(models, r.Model)
			}
			want, _, _ := strings.Cut(model, "[")
			if models = slices.Compact(models); len(models) != 1 || want != "" && models[0] != want {
				t.Errorf("models %q, want %q", models, want)
			}
			checkEnv(t, f.read(t, "site/env.txt"))
		})
	}
}

// checkEnv looks for what of AWS a child may see: nothing that is worth
// anything.
func checkEnv(t *testing.T, env string) {
	t.Helper()
	var names []string
	for line := range strings.Lines(env) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.HasPrefix(name, "AWS_") {
			names = append(names, name)
		}
		if address, ok := strings.CutPrefix(value, "http://127.0.0.1:"); ok && name == "ANTHROPIC_BEDROCK_BASE_URL" {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", "127.0.0.1:"+address)
			if err == nil {
				_ = conn.Close()
				t.Error("the gateway is open after the run")
			}
		}
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"AWS_BEARER_TOKEN_BEDROCK", "AWS_EC2_METADATA_DISABLED", "AWS_REGION"}, names); d != "" {
		t.Error(d)
	}
	if strings.Contains(env, upstreamKey) {
		t.Error("the key is in the environment")
	}
}

// bedrockFailures are those that Bedrock causes, in its own words.
func bedrockFailures() map[string]failureTest {
	soon := 15 * time.Second
	throw := func(kind, message string) []modelserver.Turn {
		return []modelserver.Turn{modelserver.Throw(kind, message)}
	}
	return map[string]failureTest{
		"throttled":          {turns: errorTurn(429, "ThrottlingException"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"access denied":      {turns: errorTurn(403, "AccessDeniedException"), code: CodeModelAuth, transient: true, within: soon, requests: 6},
		"unknown key":        {turns: errorTurn(403, "UnrecognizedClientException"), code: CodeModelAuth, transient: true, within: soon, requests: 6},
		"not valid":          {turns: errorTurn(400, "ValidationException"), code: CodeFailed, says: "as the service words it", within: soon, requests: 10},
		"too long":           {turns: []modelserver.Turn{modelserver.Fail(400, "ValidationException", "Input is too long for requested model.")}, code: CodePromptTooLong, within: soon, requests: 6},
		"too long, in words": {turns: []modelserver.Turn{modelserver.Fail(400, "ValidationException", tooLong)}, code: CodePromptTooLong, within: soon, requests: 6},
		"no such model":      {turns: errorTurn(404, "ResourceNotFoundException"), code: CodeFailed, within: soon, requests: 10},
		"timed out there":    {turns: errorTurn(408, "ModelTimeoutException"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"failed there":       {turns: errorTurn(424, "ModelErrorException"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"internal":           {turns: errorTurn(500, "InternalServerException"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"unavailable":        {turns: errorTurn(503, "ServiceUnavailableException"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"stream: error":      {turns: throw("modelStreamErrorException", "The model broke"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"stream: throttled":  {turns: throw("throttlingException", "Too many tokens"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"stream: internal":   {turns: throw("internalServerException", "Try again"), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"stream cut":         {turns: faultTurn(modelserver.Cut), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"garbage":            {turns: faultTurn(modelserver.Garbage), code: CodeModelOverloaded, transient: true, within: soon, requests: 6},
		"only pings": {
			turns: faultTurn(modelserver.Pings), configure: func(c *Claude) { c.Idle = 4 * time.Second },
			code: CodeStalled, within: soon, requests: 2, // the CLI asks first whether the model is there
		},
		"refusal":     {turns: []modelserver.Turn{modelserver.Refuse(), modelserver.Refuse(), modelserver.Refuse()}, code: CodeRefused, within: soon, requests: 3},
		"other model": {configure: func(c *Claude) { c.ModelID = "eu.anthropic.claude-opus-4-1-20250805-v1:0" }, code: CodeFailed, within: soon, requests: 1},
	}
}

func TestBedrockFailures(t *testing.T) {
	for name, tt := range bedrockFailures() {
		t.Run(name, func(t *testing.T) { tt.runOn(t, newBedrock(t, bedrockModel)) })
	}
}

// TestHiccupsOfBedrock checks that a single failure in a run does not end it.
func TestHiccupsOfBedrock(t *testing.T) {
	f := newBedrock(t, bedrockModel)
	f.model.Play("thing",
		modelserver.Bash("true"),
		modelserver.Throw("modelStreamErrorException", "it broke").First(1),
		modelserver.Bash("true"),
		modelserver.Fail(429, "ThrottlingException", "Too many requests").First(1),
		modelserver.Say("done"))
	got, err := f.claude.Run(t.Context(), f.request("thing"))
	if err != nil || got.Summary != "done" {
		t.Errorf("got %+v, %v", got, err)
	}
}
