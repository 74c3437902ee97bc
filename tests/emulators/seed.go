package emulators

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// Unique returns a name that no other test has, for a queue, a table or a bucket.
func Unique(tb testing.TB, prefix string) string {
	tb.Helper()
	return prefix + "-" + strings.ToLower(rand.Text()[:10])
}

// CreateQueue creates a queue as the platform's infrastructure does, and returns
// its URL. redriveTo is the name of its dead-letter queue, which must exist; empty
// means none.
func (s *Set) CreateQueue(tb testing.TB, name, redriveTo string) string {
	tb.Helper()
	url, err := s.queue(tb.Context(), name, redriveTo)
	if err != nil {
		tb.Fatal(err)
	}
	return url
}

// CreateClaimTable creates an ownership table.
func (s *Set) CreateClaimTable(tb testing.TB, name string) {
	tb.Helper()
	if err := s.claimTable(tb.Context(), name); err != nil {
		tb.Fatal(err)
	}
}

// CreateBucket creates a bucket that everybody can read as a website.
func (s *Set) CreateBucket(tb testing.TB, name string) {
	tb.Helper()
	if err := s.bucket(tb.Context(), name); err != nil {
		tb.Fatal(err)
	}
}

func (s *Set) queue(ctx context.Context, name, redriveTo string) (string, error) {
	client := sqs.NewFromConfig(s.Config(), s.sqsOptions)
	attributes := map[string]string{
		"VisibilityTimeout":             "300",
		"MessageRetentionPeriod":        "345600",
		"ReceiveMessageWaitTimeSeconds": "20",
	}
	if redriveTo != "" {
		arn, err := queueARN(ctx, client, redriveTo)
		if err != nil {
			return "", fmt.Errorf("dead-letter queue %s of %s: %w", redriveTo, name, err)
		}
		policy, err := json.Marshal(map[string]any{"deadLetterTargetArn": arn, "maxReceiveCount": 3})
		if err != nil {
			return "", err
		}
		attributes["RedrivePolicy"] = string(policy)
	}
	out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		return "", fmt.Errorf("create queue %s: %w", name, err)
	}
	return *out.QueueUrl, nil
}

func queueARN(ctx context.Context, client *sqs.Client, name string) (string, error) {
	url, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", err
	}
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: url.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", err
	}
	return out.Attributes[string(sqstypes.QueueAttributeNameQueueArn)], nil
}

func (s *Set) claimTable(ctx context.Context, name string) error {
	client := dynamodb.NewFromConfig(s.Config(), s.dynamoDBOptions)
	key := func(attribute string) []dynamodbtypes.KeySchemaElement {
		return []dynamodbtypes.KeySchemaElement{{AttributeName: &attribute, KeyType: dynamodbtypes.KeyTypeHash}}
	}
	_, err := client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:   &name,
		BillingMode: dynamodbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []dynamodbtypes.AttributeDefinition{
			{AttributeName: aws.String("projectKey"), AttributeType: dynamodbtypes.ScalarAttributeTypeS},
			{AttributeName: aws.String("containerId"), AttributeType: dynamodbtypes.ScalarAttributeTypeS},
		},
		KeySchema: key("projectKey"),
		GlobalSecondaryIndexes: []dynamodbtypes.GlobalSecondaryIndex{{
			IndexName:  aws.String("containerId-index"),
			KeySchema:  key("containerId"),
			Projection: &dynamodbtypes.Projection{ProjectionType: dynamodbtypes.ProjectionTypeAll},
		}},
	})
	if err != nil {
		return fmt.Errorf("create table %s: %w", name, err)
	}
	_, err = client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName:               &name,
		TimeToLiveSpecification: &dynamodbtypes.TimeToLiveSpecification{AttributeName: aws.String("ttl"), Enabled: aws.Bool(true)},
	})
	if err != nil {
		return fmt.Errorf("time to live of table %s: %w", name, err)
	}
	return nil
}

func (s *Set) bucket(ctx context.Context, name string) error {
	client := s3.NewFromConfig(s.Config(), s.s3Options)
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		return fmt.Errorf("create bucket %s: %w", name, err)
	}
	_, err := client.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &name, Policy: aws.String(fmt.Sprintf(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::%s/*"}]}`, name))})
	if err != nil {
		return fmt.Errorf("policy of bucket %s: %w", name, err)
	}
	_, err = client.PutBucketWebsite(ctx, &s3.PutBucketWebsiteInput{Bucket: &name, WebsiteConfiguration: &s3types.WebsiteConfiguration{
		IndexDocument: &s3types.IndexDocument{Suffix: aws.String("index.html")},
		ErrorDocument: &s3types.ErrorDocument{Key: aws.String("404.html")},
	}})
	if err != nil {
		return fmt.Errorf("website of bucket %s: %w", name, err)
	}
	return nil
}

// Seed creates what the platform's infrastructure has for one project and user:
// every queue, the ownership table and the bucket. It returns the URL of the
// unclaimed queue.
func (s *Set) Seed(ctx context.Context, pair protocol.Pair) (string, error) {
	var names protocol.Names
	const unclaimed = "webordinary-unclaimed"
	dead := names.DLQ(pair)
	for _, q := range [][2]string{
		{names.Unclaimed(), ""},
		{dead, ""},
		{names.Input(pair), dead},
		{names.Output(pair), dead},
		{names.Interrupts(pair), dead},
		{names.Progress(pair), dead},
	} {
		if _, err := s.queue(ctx, q[0], q[1]); err != nil {
			return "", err
		}
	}
	if err := s.claimTable(ctx, "webordinary-container-ownership"); err != nil {
		return "", err
	}
	if err := s.bucket(ctx, names.Bucket(pair.ProjectID)); err != nil {
		return "", err
	}
	return s.queue(ctx, unclaimed, names.Unclaimed())
}
