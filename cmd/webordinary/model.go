package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/aws/bedrock"
	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process"
)

// credentialsTimeout is how long the start waits for AWS credentials, which may
// have to be fetched.
const credentialsTimeout = 10 * time.Second

// openModel returns what opens the way to the model, and out, for a run. Bedrock's
// missing credentials are found now, not when a user waits.
func (c *config) openModel(ctx context.Context, log *slog.Logger) (func(context.Context, int64) (agent.ModelSession, error), error) {
	g := gateway.Config{Upstream: c.anthropicURL, Signer: gateway.APIKey(c.AnthropicKey), Hosts: c.hosts, Log: log}
	if agent.IsModelID(c.AnthropicModel) {
		g.Models = []string{c.AnthropicModel}
	}
	region := ""
	if c.usesBedrock() {
		region = c.bedrockRegion()
		signer, err := c.bedrockSigner(ctx, region)
		if err != nil {
			return nil, err
		}
		g.Bedrock, g.Signer, g.Upstream = true, signer, c.bedrockURL
		if g.Upstream == nil {
			g.Upstream = bedrock.Endpoint(region)
		}
	}
	models := gateway.New(g)
	return func(ctx context.Context, maxTokens int64) (agent.ModelSession, error) {
		j, err := models.Open(ctx, maxTokens)
		if err != nil {
			return agent.ModelSession{}, err
		}
		return agent.ModelSession{
			BaseURL: j.URL, Token: j.Token, BedrockRegion: region, Tokens: j.Tokens, Pause: j.Pause, Close: j.Close,
			Proxy: j.Address, ProxyEnv: j.Env(),
		}, nil
	}, nil
}

// openEgress returns what opens the way out for children that have to do with no
// model.
func (c *config) openEgress(log *slog.Logger) func(context.Context) (process.Egress, error) {
	g := gateway.New(gateway.Config{Hosts: c.hosts, Log: log})
	return func(ctx context.Context) (process.Egress, error) {
		j, err := g.OpenProxy(ctx)
		if err != nil {
			return process.Egress{}, err
		}
		return process.Egress{Address: j.Address, Env: j.Env(), Close: j.Close}, nil
	}
}

// npmRegistry is where npm goes by itself.
const npmRegistry = "https://registry.npmjs.org"

// registry is where npm gets packages here, as host:port; empty if the address
// makes no sense, which npm will say.
func registry(environ []string) string {
	address := variable(environ, "npm_config_registry")
	if address == "" {
		address = npmRegistry
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "":
		return ""
	case u.Port() != "":
		return u.Host
	case u.Scheme == "http":
		return u.Host + ":80"
	}
	return u.Host + ":443"
}

// setHosts finds out what agent and npm may reach. The registry, if it is among
// that, may have a private address: it was named on purpose.
func (c *config) setHosts(environ []string) error {
	c.registry = registry(environ)
	list := slices.Clone(c.AgentHosts)
	if len(list) == 0 && c.registry != "" {
		list = []string{c.registry}
	}
	var err error
	if c.hosts, err = gateway.ParseHosts(list); err == nil && c.hosts.Allow(c.registry) {
		c.hosts, err = gateway.ParseHosts(append(list, c.registry))
	}
	if err != nil {
		return fmt.Errorf("AGENT_ALLOWED_HOSTS: %w", err)
	}
	return nil
}

func (c *config) bedrockSigner(ctx context.Context, region string) (*bedrock.Signer, error) {
	ctx, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	sdk, err := c.awsConfig(ctx)
	if err != nil {
		return nil, err
	}
	signer := bedrock.NewSigner(bedrock.Options{Region: region, Credentials: sdk.Credentials})
	if err := signer.Check(ctx); err != nil {
		return nil, fmt.Errorf("CLAUDE_CODE_USE_BEDROCK is set, and there are no AWS credentials; give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: %w", err)
	}
	return signer, nil
}

// awsConfig is the SDK's default configuration. The SDK reads the environment, and
// not our file.
func (c *config) awsConfig(ctx context.Context) (aws.Config, error) {
	for _, kv := range c.awsVariables {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return aws.Config{}, err
		}
	}
	sdk, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(awshttp.NewBuildableClient()))
	if err != nil {
		return aws.Config{}, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	return sdk, nil
}
