package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/aws/bedrock"
	"github.com/webordinary/claude-code-container/internal/gateway"
)

// credentialsTimeout is how long the start waits for AWS credentials, which may
// have to be fetched.
const credentialsTimeout = 10 * time.Second

// openModel returns what opens the way to the model for a run. Bedrock's missing
// credentials are found now, not when a user waits.
func (c *config) openModel(ctx context.Context, log *slog.Logger) (func(context.Context, int64) (agent.ModelSession, error), error) {
	g := gateway.Config{Upstream: c.anthropicURL, Signer: gateway.APIKey(c.AnthropicKey), Log: log}
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
		}, nil
	}, nil
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
