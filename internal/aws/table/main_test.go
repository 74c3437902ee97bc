package table_test

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(emulators.Tests{M: m}) }

// client returns a client of DynamoDB Local by way of some transport.
func client(t *testing.T, via func(http.RoundTripper) http.RoundTripper) *dynamodb.Client {
	t.Helper()
	set := emulators.Shared(t)
	config := set.AWS(t)
	if via != nil {
		config.HTTPClient = &http.Client{Transport: via(set.HTTPClient().Transport)}
	}
	return dynamodb.NewFromConfig(config, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(set.DynamoDB) })
}

// create makes the tables of a test, which are its own, and returns them.
func create(t *testing.T, c *dynamodb.Client, config table.Config) *table.Tables {
	t.Helper()
	tables := table.New(c, config)
	if err := tables.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tables
}
