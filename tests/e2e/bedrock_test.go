package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

const (
	awsKey     = "AKIAENDTOENDTEST"
	awsSecret  = "aws-secret-test-0123456789abcdef"
	awsSession = "aws-session-test-0123456789abcdef"
)

// bedrock turns the world's model into Bedrock's, and its key into credentials of
// AWS.
func (w *world) bedrock() {
	w.env = slices.DeleteFunc(w.env, func(kv string) bool { return strings.HasPrefix(kv, "ANTHROPIC_") })
	w.env = append(w.env, "CLAUDE_CODE_USE_BEDROCK=1", "ANTHROPIC_BEDROCK_BASE_URL="+w.model.URL(), "AWS_REGION=eu-central-1",
		"AWS_ACCESS_KEY_ID="+awsKey, "AWS_SECRET_ACCESS_KEY="+awsSecret, "AWS_SESSION_TOKEN="+awsSession,
		"ANTHROPIC_MODEL=eu.anthropic.claude-sonnet-4-5-20250929-v1:0")
}

// TestBedrock carries an instruction out by Bedrock's protocol, signed with the
// worker's credentials, which neither agent nor build get to see. The agent
// tries what its token is not for.
func TestBedrock(t *testing.T) {
	w := newWorld(t)
	w.bedrock()
	const call = `curl -s -o /dev/null -w '%{http_code} ' -H "Authorization: Bearer $AWS_BEARER_TOKEN_BEDROCK" -d `
	w.model.Play("secrets",
		Bash(`env; tr '\0' '\n' < /proc/$PPID/environ`),
		Bash(call+`'{}' "$ANTHROPIC_BEDROCK_BASE_URL/model/eu.anthropic.claude-opus-4-1-20250805-v1:0/invoke"; `+
			call+`'{"tools":[{"type":"web_search_20250305","name":"web_search"}]}' "$ANTHROPIC_BEDROCK_BASE_URL/model/eu.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke"; `+
			call+`'{}' "$ANTHROPIC_BEDROCK_BASE_URL/v1/messages"; echo tried`),
		Bash(`printf '%s\n' env "curl -s -o /dev/null -w 'gateway %{http_code}' $ANTHROPIC_BEDROCK_BASE_URL || true" > spy.sh`),
		Bash(`sed -i 's/"astro build"/"sh spy.sh > build-env.txt \&\& astro build"/' package.json`),
		Say("Looked."))
	p := w.start(t)
	out := p.do(w.message("t-1", "c-1", "look for secrets"))
	p.finish()
	if !out.Success || out.Agent == nil || out.Agent.Tokens != 5*120 {
		t.Fatalf("answer %+v, agent %+v", out, out.Agent)
	}
	if !w.sawConversation("secrets", "PATH=") || !w.sawConversation("secrets", "404 400 404 tried") {
		t.Error("the agent's environment, or what it tried, was not seen")
	}
	env, err := os.ReadFile(filepath.Join(w.dir, "workspace", "amelia-scott", "site", "build-env.txt"))
	if err != nil || !bytes.Contains(env, []byte("PATH=")) || !bytes.Contains(env, []byte("gateway 000")) || bytes.Contains(env, []byte("AWS_")) {
		t.Errorf("the build saw %s, %v", env, err)
	}
	secrets := []string{awsKey, awsSecret, awsSession}
	for _, r := range w.model.Requests() {
		if a := r.Header.Get("Authorization"); !strings.Contains(a, "Credential="+awsKey+"/") || !strings.Contains(a, "/eu-central-1/bedrock/aws4_request") {
			t.Errorf("a call with %q", a)
		}
		for _, s := range secrets {
			if bytes.Contains(r.Body, []byte(s)) {
				t.Errorf("the agent saw %q", s[:8])
			}
		}
	}
	w.searchFiles(t, secrets)
	for _, s := range secrets {
		if strings.Contains(p.said(), s) {
			t.Errorf("stderr tells %q", s[:8])
		}
	}
}

// TestTokensPerCommand lets a command use up its tokens: what it had done is kept,
// and the next command has its own.
func TestTokensPerCommand(t *testing.T) {
	w := newWorld(t)
	w.model.Play("too much", append([]Turn{footer("begun")}, slices.Repeat([]Turn{Bash("true")}, 10)...)...)
	w.model.Play("modest", Say("Little."))
	p := w.start(t, "AGENT_MAX_TOKENS=300")
	out := p.do(w.message("t-1", "c-1", "too much"))
	if out.Success || out.ErrorCode != "agent_cost_limit" || !strings.Contains(out.Error, "tokens") || out.Agent.Tokens != 360 {
		t.Errorf("answer %+v, agent %+v", out, out.Agent)
	}
	if log := w.log(t, "thread-t-1"); len(log) != 1 || log[0] != "WIP: too much" {
		t.Errorf("commits %q", log)
	}
	if out := p.do(w.message("t-1", "c-2", "modest")); !out.Success || out.Agent.Tokens != 120 {
		t.Errorf("answer %+v, agent %+v", out, out.Agent)
	}
	p.finish()
}
