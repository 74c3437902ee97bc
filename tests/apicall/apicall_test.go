package apicall_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/apicall"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

func TestMain(m *testing.M) { os.Exit(emulators.Main(m)) }

// TestRecorderNamesWhatTheSDKCalls has the SDK call each through the proxy. That
// much of it succeeds shows that signatures survive the proxy.
func TestRecorderNamesWhatTheSDKCalls(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls")
	t.Setenv(apicall.Variable, file)
	set := emulators.Shared(t)
	bucket, table := emulators.Unique(t, "apicall"), emulators.Unique(t, "apicall")
	set.CreateBucket(t, bucket)
	set.CreateClaimTable(t, table)
	queue := set.CreateQueue(t, emulators.Unique(t, "apicall"), "")

	var rec apicall.Recorder
	ctx := t.Context()
	buckets := s3.NewFromConfig(set.Config(), func(o *s3.Options) { o.BaseEndpoint = aws.String(rec.Proxy(t, set.S3)); o.UsePathStyle = true })
	tables := dynamodb.NewFromConfig(set.Config(), func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(rec.Proxy(t, set.DynamoDB)) })
	queues := sqs.NewFromConfig(set.Config(), func(o *sqs.Options) { o.BaseEndpoint = aws.String(rec.Proxy(t, set.SQS)) })
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	key := aws.String("a/b.html")
	_, err := buckets.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")})
	ok(err)
	_, err = buckets.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket})
	ok(err)
	_, err = buckets.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: key})
	ok(err)
	_, err = buckets.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: key})
	ok(err)
	_, err = buckets.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &s3types.Delete{Objects: []s3types.ObjectIdentifier{{Key: key}}}})
	ok(err)
	_, err = buckets.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: key})
	ok(err)
	_, err = buckets.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	ok(err)
	_, err = queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x")})
	ok(err)
	row := map[string]ddbtypes.AttributeValue{"projectKey": &ddbtypes.AttributeValueMemberS{Value: "p"}}
	_, err = tables.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
		TransactItems: []ddbtypes.TransactWriteItem{{Put: &ddbtypes.Put{TableName: &table, Item: row}}},
	})
	ok(err)
	_, err = tables.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("missing"), Key: row})
	if answer := smithy.APIError(nil); !errors.As(err, &answer) {
		t.Errorf("the emulator did not answer: %v", err)
	}

	want := []string{
		"dynamodb:GetItem", "dynamodb:TransactWriteItems", "s3:DeleteObject", "s3:DeleteObjects", "s3:GetObject", "s3:HeadBucket",
		"s3:HeadObject", "s3:ListObjectsV2", "s3:PutObject", "sqs:SendMessage",
	}
	if d := cmp.Diff(want, rec.Calls()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if lines, err := os.ReadFile(file); err != nil || strings.Count(string(lines), "\n") != len(want) {
		t.Errorf("the file has %q, %v", lines, err)
	}
}

func TestCompare(t *testing.T) {
	allow := func(actions ...string) apicall.Policy {
		return apicall.Policy{Statement: []apicall.Statement{{Effect: "Allow", Action: actions}}}
	}
	for _, tt := range []struct {
		policy apicall.Policy
		calls  []string
		want   string
	}{
		{allow("s3:PutObject"), []string{"s3:PutObject", "s3:PutObject"}, ""},
		{allow("s3:GetObject"), []string{"s3:HeadObject"}, ""},
		{allow(), []string{"s3:ListObjectsV2"}, "s3:ListObjectsV2 needs s3:ListBucket, and the policy does not allow it"},
		{
			allow("dynamodb:PutItem", "dynamodb:DeleteItem"),
			[]string{"dynamodb:TransactWriteItems"},
			"dynamodb:TransactWriteItems needs dynamodb:ConditionCheckItem, and the policy does not allow it\nthe policy allows dynamodb:DeleteItem, and no call needs it",
		},
		{allow("s3:*"), nil, "the policy allows s3:*, and no call needs it"},
	} {
		got := ""
		if err := apicall.Compare(tt.policy, tt.calls); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%v with %v: %q, want %q", tt.policy.Statement[0].Action, tt.calls, got, tt.want)
		}
	}
}
