package table_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(*testing.T) string { return os.Getenv("DDB") }

// client returns a client of DynamoDB Local by way of some transport.
func client(t *testing.T, via func(http.RoundTripper) http.RoundTripper) *dynamodb.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	var rt http.RoundTripper = transport
	if via != nil {
		rt = via(rt)
	}
	return dynamodb.New(dynamodb.Options{
		Region: "us-west-2", BaseEndpoint: aws.String(endpoint(t)), HTTPClient: &http.Client{Transport: rt},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
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
