package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// call is what the line of a request asks for.
type call struct {
	model   string // Bedrock names it in the path; else empty
	chooses bool   // it may be the first call of a job, which chooses the model
	free    bool   // it costs no tokens
	most    int64  // what it may come to, in tokens; negative if nobody knows
}

// call knows the calls that an agent needs. Paths are taken as they are written:
// an escaped one is another, but for the model's id.
func (c *Config) call(r *http.Request) (call, bool) {
	if r.Method != http.MethodPost {
		return call{}, false
	}
	path := r.URL.EscapedPath()
	if !c.Bedrock {
		counts := path == "/v1/messages/count_tokens"
		return call{chooses: !counts, free: counts}, counts || path == "/v1/messages"
	}
	rest, ok := strings.CutPrefix(path, "/model/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return call{}, false
	}
	model, err := url.PathUnescape(rest[:i])
	if err != nil || !isModel(model) {
		return call{}, false
	}
	streams := rest[i+1:] == "invoke-with-response-stream"
	return call{model: model, chooses: streams}, streams || rest[i+1:] == "invoke"
}

// isModel reports whether a text can be the id or the ARN of a model.
func isModel(s string) bool {
	const others = "-._:/"
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	}
	return s != "" && len(s) <= 2048 && !strings.ContainsFunc(s, strange) &&
		!strings.Contains(s, "..") && !strings.Contains(s, "//") && !strings.HasPrefix(s, "/")
}

// refusal is why a call does not pass.
type refusal struct {
	status        int
	kind, message string
}

func invalid(message string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request_error", "the gateway refuses this: " + message}
}

// examine says why a call does not pass; nil if it does. A large body takes some time,
// so one is looked at after the other.
func (j *Job) examine(c *call, body []byte) *refusal {
	j.examining.Lock()
	defer j.examining.Unlock()
	var parts map[string]json.RawMessage
	err := errors.New("no JSON")
	if json.Valid(body) {
		parts, err = members(body)
	}
	if err != nil {
		return invalid("the body is not one JSON object with each name once")
	}
	if refused := examineBody(parts); refused != nil {
		return refused
	}
	if !j.config.Bedrock && json.Unmarshal(parts["model"], &c.model) != nil {
		return invalid("no model is named")
	}
	if !j.mayCall(*c) {
		return &refusal{http.StatusNotFound, "not_found_error", "the gateway knows no such model; ANTHROPIC_MODEL names the one there is"}
	}
	c.most = mostOf(parts, len(body))
	return nil
}

// mostOf is what a call may come to, in tokens: each is a byte of the request at
// least, and of the answer there are max_tokens at most. It is negative if nobody
// knows.
func mostOf(parts map[string]json.RawMessage, size int) int64 {
	var limit int64
	if json.Unmarshal(parts["max_tokens"], &limit) != nil || limit <= 0 || limit > mostTokens {
		return -1
	}
	return int64(size) + limit
}

// mayCall reports whether a call is for a model that is configured or chosen.
func (j *Job) mayCall(c call) bool {
	if len(j.config.Models) > 0 {
		return slices.Contains(j.config.Models, c.model)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.chosen == "" && c.chooses && isModel(c.model) {
		j.chosen = c.model
	}
	return c.model != "" && c.model == j.chosen
}
