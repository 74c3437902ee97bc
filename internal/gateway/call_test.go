package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestBodiesRefused looks at what a body may not ask for. Nothing of it reaches
// the service.
func TestBodiesRefused(t *testing.T) {
	j := open(t, Config{Models: []string{"claude-test-1"}}, func(http.ResponseWriter, *http.Request) { t.Error("came through") })
	b := open(t, Config{Models: []string{"claude-test-1"}, Bedrock: true}, func(http.ResponseWriter, *http.Request) { t.Error("came through") })
	for name, parts := range map[string]string{
		"web search":             `"tools":[{"type":"web_search_20250305","name":"web_search"}]`,
		"web fetch":              `"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]`,
		"code execution":         `"tools":[{"name":"mine","input_schema":{}},{"type":"code_execution_20250825","name":"code_execution"}]`,
		"an MCP toolset":         `"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]`,
		"a type in escapes":      `"tools":[{"\u0074ype":"web_search_20250305","name":"web_search"}]`,
		"a type that is no text": `"tools":[{"type":["web_search_20250305"]}]`,
		"two types":              `"tools":[{"type":"web_search_20250305","type":"custom"}]`,
		"no list of tools":       `"tools":{"type":"web_search_20250305"}`,
		"a tool that is none":    `"tools":["web_search_20250305"]`,
		"MCP servers":            `"mcp_servers":[{"type":"url","url":"https://example.com/","name":"x"}]`,
		"MCP servers, an object": `"mcp_servers":{"x":{}}`,
		"a container":            `"container":{"skills":[]}`,
		"tools twice":            `"tools":[{"type":"web_search_20250305","name":"web_search"}],"tools":[]`,
		"a picture by address":   `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://example.com/?secret"}}]}]`,
		"with blanks":            "\"messages\" : [ { \"content\" :\n [ { \"source\" :\t { \"type\" : \"url\" } } ] } ]",
		"a file":                 `"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"x"}}]}]`,
		"in a tool's result":     `"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"x"}}]}]}]`,
		"in a document":          `"messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url","url":"x"}}]}}]}]`,
		"a source twice":         `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"x"},"source":{"type":"base64"}}]}]`,
		"a content twice":        `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"x"}}],"content":"x"}]`,
		"very deep":              `"messages":[{"role":"user","content":` + strings.Repeat(`[{"content":`, 5) + `[]` + strings.Repeat(`}]`, 5) + `}]`,
		"no messages":            `"messages":{"role":"user"}`,
		"more behind it":         `"a":1}{"b":1`,
		"cut":                    `"a":`,
		"no name":                `1:1`,
	} {
		for _, to := range []struct {
			job        *Job
			path, body string
		}{
			{j, "/v1/messages", `{"model":"claude-test-1",` + parts + `}`},
			{j, "/v1/messages/count_tokens", `{"model":"claude-test-1",` + parts + `}`},
			{b, "/model/claude-test-1/invoke", `{` + parts + `}`},
			{b, "/model/claude-test-1/invoke-with-response-stream", `{` + parts + `}`},
		} {
			status, _, answer := do(t, request(t, to.job, http.MethodPost, to.path, to.body))
			if status != 400 || errorKind(t, answer) != "invalid_request_error" {
				t.Errorf("%s at %s: got %d %s", name, to.path, status, answer)
			}
		}
	}
	for _, body := range []string{"", "null", "[]", `"x"`, "hello", "\x00", `[{"model":"claude-test-1"}]`} {
		if status, _, answer := do(t, request(t, j, http.MethodPost, "/v1/messages", body)); status != 400 {
			t.Errorf("%q: got %d %s", body, status, answer)
		}
	}
}

func TestBodiesThatPass(t *testing.T) {
	came := ""
	j := open(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		came = string(b)
	})
	for _, parts := range []string{
		`"tools":[{"name":"Bash","input_schema":{"properties":{"type":{"type":"string"}}}},{"type":"custom","name":"Read"},{"type":null}]`,
		`"tools":[]`, `"tools":null,"mcp_servers":[ ],"container":null`,
		// It is only talked of.
		`"messages":[{"role":"user","content":"\"mcp_servers\":[1] and {\"type\":\"web_search_20250305\"}"}]`,
		`"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"base64","data":""}}]},{"type":"text","text":"x"}]}]`,
		`"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"source":{"type":"url"}}}]}]`,
		`"Tools":1`, "\"a\" :\n1 ",
	} {
		body := `{"model":"claude-test-1",` + parts + `}`
		if status, _, answer := do(t, request(t, j, http.MethodPost, "/v1/messages", body)); status != 200 || came != body {
			t.Errorf("%s: got %d %s; %s came through", body, status, answer, came)
		}
	}
}

// TestLargeBodiesTakeLittle looks at bodies that are small as a text and large as
// values.
func TestLargeBodiesTakeLittle(t *testing.T) {
	const size = 4 << 20
	many := func(item string) string {
		return strings.TrimSuffix(strings.Repeat(item+",", size/(len(item)+1)), ",")
	}
	var names strings.Builder
	for i := range size / 12 {
		fmt.Fprintf(&names, `,"%07d":0`, i)
	}
	text := strings.Repeat("x", size)
	j := &Job{config: Config{Models: []string{"claude-test-1"}}}
	for _, tt := range []struct {
		name, parts string
		passes      bool
	}{
		{"names", `"x":0` + names.String(), false},
		{"numbers for messages", `"messages":[` + many("0") + `]`, false},
		{"messages", `"messages":[` + many("{}") + `]`, false},
		{"tools", `"tools":[` + many("{}") + `]`, false},
		{"blocks", `"messages":[{"content":[` + many("{}") + `]}]`, false},
		{"names of a block", `"messages":[{"content":[{"x":0` + names.String() + `}]}]`, false},
		{"a long text", `"messages":[{"content":[{"type":"text","text":"` + text + `"}]}]`, true},
		{"a schema", `"tools":[{"name":"x","input_schema":{"x":0` + names.String() + `}}]`, true},
	} {
		body := []byte(`{"model":"claude-test-1",` + tt.parts + `}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		refused := j.examine(&call{}, body)
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		if passes := refused == nil; passes != tt.passes || got > 2*size {
			t.Errorf("%s: passes %v, takes %d bytes for %d", tt.name, passes, got, len(body))
		}
	}
}

func TestModels(t *testing.T) {
	const arn = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc"
	messages := func(model string) (path, body string) { return "/v1/messages", `{"model":"` + model + `"}` }
	count := func(model string) (path, body string) {
		return "/v1/messages/count_tokens", `{"model":"` + model + `"}`
	}
	invoke := func(model string) (path, body string) { return "/model/" + url.PathEscape(model) + "/invoke", "{}" }
	stream := func(model string) (path, body string) {
		return "/model/" + url.PathEscape(model) + "/invoke-with-response-stream", "{}"
	}
	type try struct {
		call   func(string) (path, body string)
		model  string
		status int
	}
	for name, tt := range map[string]struct {
		bedrock bool
		models  []string
		tries   []try
	}{
		"configured": {models: []string{"claude-a[1m]", "claude-b"}, tries: []try{
			{messages, "claude-c", 404},
			{messages, "claude-a", 200},
			{messages, "claude-b", 200},
			{count, "claude-a", 200},
			{count, "claude-c", 404},
			{messages, "claude-a[1m]", 404},
			{messages, "claude-", 404},
			{messages, "", 404},
			{messages, "CLAUDE-A", 404},
		}},
		"the first call's": {tries: []try{
			{count, "claude-a", 404},
			{messages, "", 404},
			{messages, "claude-a", 200},
			{messages, "claude-b", 404},
			{count, "claude-a", 200},
			{count, "claude-b", 404},
			{messages, "claude-a", 200},
		}},
		"configured for Bedrock": {bedrock: true, models: []string{"eu.anthropic.claude-a-v1:0[1m]", arn}, tries: []try{
			{invoke, "eu.anthropic.claude-a-v1:0", 200},
			{stream, "eu.anthropic.claude-a-v1:0", 200},
			{invoke, arn, 200},
			{stream, arn, 200},
			{invoke, "anthropic.claude-a-v1:0", 404},
			{stream, "eu.anthropic.claude-b", 404},
			{stream, arn + "d", 404},
		}},
		"the first stream's": {bedrock: true, tries: []try{
			{invoke, "claude-a", 404}, {stream, "claude-b", 200}, {stream, "claude-a", 404}, {invoke, "claude-b", 200}, {invoke, "claude-a", 404},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			came := 0
			j := open(t, Config{Models: tt.models, Bedrock: tt.bedrock}, func(http.ResponseWriter, *http.Request) { came++ })
			for _, try := range tt.tries {
				came = 0
				path, body := try.call(try.model)
				status, _, answer := do(t, request(t, j, http.MethodPost, path, body))
				if status != try.status || (came == 1) != (status == 200) {
					t.Errorf("%s %s: got %d %s, came %d times", path, body, status, answer, came)
				}
			}
		})
	}
}

func TestBedrockRefused(t *testing.T) {
	j := open(t, Config{Bedrock: true, Models: []string{"m"}}, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came through", r.Method, r.RequestURI)
	})
	for _, line := range []string{
		"GET /inference-profiles?type=SYSTEM_DEFINED", "GET /foundation-models", "GET /model/m/invoke", "PUT /model/m/invoke",
		"POST /model/m/converse", "POST /model/m/converse-stream", "POST /model/m/count-tokens", "POST /model/m/async-invoke",
		"POST /model/m/invoke-with-bidirectional-stream", "POST /model/m", "POST /model/m/", "POST /model//invoke", "POST /model/invoke",
		"POST /model/m/../n/invoke", "POST /model/m%2f..%2fn/invoke", "POST /model/m/%2e%2e/invoke", "POST //model/m/invoke",
		"POST /model/m/invok%65", "POST /model/m%00/invoke", "POST /model/m%0d%0ax/invoke", "POST /model/m/invoke/", "POST /model/" + strings.Repeat("m", 3000) + "/invoke",
		"POST /v1/messages", "POST /guardrail/x/version/1/apply", "POST /async-invoke", "DELETE /model/m/invoke",
	} {
		method, path, _ := strings.Cut(line, " ")
		if status, _, answer := do(t, request(t, j, method, path, "{}")); status != 404 || errorKind(t, answer) != "not_found_error" {
			t.Errorf("%s: got %d %s", line, status, answer)
		}
	}
	free := open(t, Config{Bedrock: true}, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s came through", r.RequestURI) })
	for _, model := range []string{"..", "a/../b", "a%2f..%2fb", "%2e%2e", "a//b", "%2fa", "a%00", "a%0a", "a%20b", "a%3fb", "a%25b", strings.Repeat("m", 3000)} {
		if status, _, answer := do(t, request(t, free, http.MethodPost, "/model/"+model+"/invoke-with-response-stream", "{}")); status != 404 {
			t.Errorf("%s: got %d %s", model, status, answer)
		}
	}
	r := request(t, j, http.MethodPost, "/model/m/invoke", "{}")
	r.Header.Set("X-Api-Key", "no token")
	if status, _, _ := do(t, r); status != 401 {
		t.Errorf("without the token: got %d", status)
	}
}

// TestBedrockPasses checks what is left of a call on its way.
func TestBedrockPasses(t *testing.T) {
	j := open(t, Config{Bedrock: true, Upstream: &url.URL{Path: "/tenant"}}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.RequestURI != "/tenant/model/m-v1:0/invoke-with-response-stream" || string(b) != `{"a":1}` || r.ContentLength != 7 {
			t.Errorf("came as %s with %q", r.RequestURI, b)
		}
		for name := range r.Header {
			if !slices.Contains([]string{"Accept", "Content-Type", "User-Agent", "Anthropic-Beta", "Content-Length", "X-Api-Key"}, name) {
				t.Errorf("header %s passed", name)
			}
		}
		if r.Header.Get("Anthropic-Beta") != "x" || r.Header.Get("X-Api-Key") != key {
			t.Errorf("headers %v", r.Header)
		}
		_, _ = fmt.Fprint(w, "ok")
	})
	r := request(t, j, http.MethodPost, "/model/m-v1:0/invoke-with-response-stream?x=1", `{"a":1}`)
	r.Header.Del("X-Api-Key")
	r.Header.Set("Authorization", "Bearer "+j.Token)
	for _, name := range []string{"Anthropic-Beta", "X-Amz-Security-Token", "X-Amz-Date", "X-Amzn-Bedrock-Service-Tier", "Cookie", "X-Forwarded-Host"} {
		r.Header.Set(name, "x")
	}
	if status, _, body := do(t, r); status != 200 || body != "ok" {
		t.Errorf("got %d %s", status, body)
	}
}
