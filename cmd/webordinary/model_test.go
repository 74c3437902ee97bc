package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestModelCalls opens the way to the model as it is configured, and makes a call:
// where it arrives, and with which credentials.
func TestModelCalls(t *testing.T) {
	const secretAccessKey = "aws-secret-of-the-test-0123456789"
	var came *http.Request
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { came = r }))
	defer service.Close()
	// The SDK reads the environment itself.
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDOFTHETEST", "AWS_SECRET_ACCESS_KEY": secretAccessKey, "AWS_SESSION_TOKEN": "session-of-the-test",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	bedrock := []string{"CLAUDE_CODE_USE_BEDROCK=1", "AWS_REGION=eu-west-1", "ANTHROPIC_BEDROCK_BASE_URL=" + service.URL + "/proxy", "ANTHROPIC_MODEL=eu.anthropic.claude-a-v1:0"}
	for name, tt := range map[string]struct {
		environ []string
		path    string // of the call
		arrives string
		region  string
		header  string // and a part of its value
		value   string
		other   string // of another model
	}{
		"Anthropic": {
			[]string{"ANTHROPIC_API_KEY=" + secretKey, "ANTHROPIC_BASE_URL=" + service.URL + "/proxy", "ANTHROPIC_MODEL=claude-a"},
			"/v1/messages", "/proxy/v1/messages", "", "X-Api-Key", secretKey, "/v1/models",
		},
		"Bedrock": {
			bedrock, "/model/eu.anthropic.claude-a-v1:0/invoke", "/proxy/model/eu.anthropic.claude-a-v1:0/invoke", "eu-west-1",
			"Authorization", "/eu-west-1/bedrock/aws4_request", "/model/eu.anthropic.claude-b/invoke",
		},
		"Bedrock elsewhere": {
			append(slices.Clone(bedrock), "AWS_BEDROCK_REGION=us-east-2"), "/model/eu.anthropic.claude-a-v1:0/invoke", "/proxy/model/eu.anthropic.claude-a-v1:0/invoke",
			"us-east-2", "Authorization", "/us-east-2/bedrock/aws4_request", "/model/eu.anthropic.claude-b/invoke",
		},
	} {
		t.Run(name, func(t *testing.T) {
			came = nil
			c := mustLoad(t, "", tt.environ...)
			open, err := c.openModel(t.Context(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			s, err := open(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			call := func(path string) int {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.BaseURL+path, strings.NewReader(`{"model":"claude-a"}`))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+s.Token)
				transport := &http.Transport{}
				defer transport.CloseIdleConnections()
				resp, err := (&http.Client{Transport: transport}).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			if status := call(tt.other); status != 404 || came != nil {
				t.Errorf("%s: status %d, came %v", tt.other, status, came)
			}
			if status := call(tt.path); status != 200 || came == nil || came.URL.Path != tt.arrives || !strings.Contains(came.Header.Get(tt.header), tt.value) {
				t.Errorf("status %d, came %+v", status, came)
			}
			if s.BedrockRegion != tt.region {
				t.Errorf("region %q", s.BedrockRegion)
			}
		})
	}
	c := mustLoad(t, "", append(bedrock, "AWS_SECRET_ACCESS_KEY="+secretAccessKey, "AWS_SESSION_TOKEN=session-of-the-test")...)
	if got := c.redact()(secretAccessKey + " session-of-the-test"); got != "[redacted] [redacted]" {
		t.Errorf("redacted as %q", got)
	}
}

func TestWarningsOfBedrock(t *testing.T) {
	has := func(environ ...string) bool {
		w := mustLoad(t, "", environ...).warnings()
		return slices.ContainsFunc(w, func(s string) bool { return strings.HasPrefix(s, "ANTHROPIC_MODEL is not set") })
	}
	if !has("CLAUDE_CODE_USE_BEDROCK=1", "AWS_REGION=eu-west-1") {
		t.Error("no warning that no model is set")
	}
	if has("CLAUDE_CODE_USE_BEDROCK=1", "AWS_REGION=eu-west-1", "ANTHROPIC_MODEL=anthropic.claude-a") || has("ANTHROPIC_API_KEY="+secretKey) {
		t.Error("a warning for nothing")
	}
}
