package emulators

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Config is the SDK's configuration for the set, without the endpoints: each
// service has its own.
func (s *Set) Config() aws.Config {
	return aws.Config{
		Region:      Region,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
		HTTPClient:  s.HTTPClient(),
	}
}

// HTTPClient goes straight to the set. Close closes its idle connections.
func (s *Set) HTTPClient() *http.Client { return &http.Client{Transport: s.transport} }

// AWS is Config; its idle connections end with the test.
func (s *Set) AWS(tb testing.TB) aws.Config {
	tb.Helper()
	tb.Cleanup(s.transport.CloseIdleConnections)
	return s.Config()
}

// SQSClient returns a client of the set's SQS.
func (s *Set) SQSClient(tb testing.TB) *sqs.Client {
	tb.Helper()
	return sqs.NewFromConfig(s.AWS(tb), s.sqsOptions)
}

// DynamoDBClient returns a client of the set's DynamoDB.
func (s *Set) DynamoDBClient(tb testing.TB) *dynamodb.Client {
	tb.Helper()
	return dynamodb.NewFromConfig(s.AWS(tb), s.dynamoDBOptions)
}

// S3Client returns a client of the set's S3.
func (s *Set) S3Client(tb testing.TB) *s3.Client {
	tb.Helper()
	return s3.NewFromConfig(s.AWS(tb), s.s3Options)
}

func (s *Set) sqsOptions(o *sqs.Options)           { o.BaseEndpoint = aws.String(s.SQS) }
func (s *Set) dynamoDBOptions(o *dynamodb.Options) { o.BaseEndpoint = aws.String(s.DynamoDB) }

func (s *Set) s3Options(o *s3.Options) {
	o.BaseEndpoint = aws.String(s.S3)
	o.UsePathStyle = true
}
