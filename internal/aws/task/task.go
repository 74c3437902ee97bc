// Package task talks to the ECS agent, which gives each container its addresses
// by the environment: who we are, and that the task is not to be ended by a
// scale-in or a deployment while a job runs.
//
// Without these variables we are not in ECS; then there is no id, and protection
// does nothing.
package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	metadataVariable = "ECS_CONTAINER_METADATA_URI_V4"
	agentVariable    = "ECS_AGENT_URI"

	requestTimeout = 5 * time.Second
	maxBody        = 64 << 10
	tries          = 3
)

// ID is the id of the ECS task that we run in, the last part of its ARN; empty
// outside of ECS. The agent is asked up to three times.
func ID(ctx context.Context, environ []string) (string, error) {
	base, err := address(environ, metadataVariable)
	if err != nil || base == "" {
		return "", err
	}
	a := agent{transport: direct()}
	var arn string
	for n := range tries {
		if n > 0 && !pause(ctx, time.Second) {
			return "", context.Cause(ctx)
		}
		var body struct {
			TaskARN string
		}
		if err = a.call(ctx, http.MethodGet, base+"/task", nil, &body); err == nil {
			arn = body.TaskARN
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("ask ECS for the task: %w", err)
	}
	id := arn[strings.LastIndexByte(arn, '/')+1:]
	if !strings.HasPrefix(arn, "arn:") || id == "" || id == arn {
		return "", fmt.Errorf("ask ECS for the task: %q is not the ARN of a task", arn)
	}
	return id, nil
}

// address is that of the agent which a variable of the environment names; empty
// if it names none. ECS gives an address of the machine itself, and no other is
// taken.
func address(environ []string, name string) (string, error) {
	for _, kv := range environ {
		value, ok := strings.CutPrefix(kv, name+"=")
		if !ok || value == "" {
			continue
		}
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return "", fmt.Errorf("%s is not an http address without user and query", name)
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if err != nil || !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			return "", fmt.Errorf("%s is not an address of this machine: %s", name, u.Host)
		}
		return strings.TrimSuffix(value, "/"), nil
	}
	return "", nil
}

// agent is the ECS agent.
type agent struct{ transport http.RoundTripper }

// direct reaches the agent without a proxy.
func direct() http.RoundTripper { return &http.Transport{Proxy: nil, DisableKeepAlives: true} }

// call sends a request and reads its answer into a struct.
func (a agent) call(ctx context.Context, method, to string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Transport: a.transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the agent has no other address
	}}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return err
	}
	if err := refusal(raw); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return json.Unmarshal(raw, into)
}

// refusal is what an answer says went wrong: "failure" if ECS does not want to,
// "error" if the agent could not ask.
func refusal(raw []byte) error {
	var body struct {
		Failure *struct{ Reason, Detail string } `json:"failure"`
		Error   *struct{ Code, Message string }  `json:"error"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return nil //nolint:nilerr // whether it should be JSON, the status tells
	}
	switch {
	case body.Failure != nil:
		return errors.New(strings.TrimSpace(body.Failure.Reason + " " + body.Failure.Detail))
	case body.Error != nil:
		return errors.New(strings.TrimSpace(body.Error.Code + " " + body.Error.Message))
	}
	return nil
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
