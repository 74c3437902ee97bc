package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/webordinary/claude-code-container/internal/gateway"
)

func ExampleGateway() {
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("the service sees", r.URL.Path, r.Header.Get("X-Api-Key"))
	}))
	defer service.Close()
	upstream, err := url.Parse(service.URL)
	if err != nil {
		fmt.Println(err)
		return
	}

	g := gateway.New(gateway.Config{Upstream: upstream, Signer: gateway.APIKey("the real key")})
	job, err := g.Open(context.Background(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer job.Close()

	// What the agent does.
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, job.URL+"/v1/messages", strings.NewReader(`{"model":"claude-test-1"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("X-Api-Key", job.Token)
	agent := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := agent.Do(r); err == nil {
		_ = resp.Body.Close()
		fmt.Println("the agent gets", resp.Status)
	}
	// Output:
	// the service sees /v1/messages the real key
	// the agent gets 200 OK
}
