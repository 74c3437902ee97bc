package emulators_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

type item = map[string]types.AttributeValue

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func newTable(t *testing.T, items ...item) (*dynamodb.Client, string) {
	t.Helper()
	s, name := emulators.Shared(t), emulators.Unique(t, "claims")
	s.CreateClaimTable(t, name)
	client := s.DynamoDBClient(t)
	for _, i := range items {
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: i}); err != nil {
			t.Fatal(err)
		}
	}
	return client, name
}

func TestFailedConditionShowsTheItem(t *testing.T) {
	client, table := newTable(t, item{"projectKey": text("amelia#scott"), "containerId": text("a")})
	_, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{
		TableName: &table, Item: item{"projectKey": text("amelia#scott"), "containerId": text("b")},
		ConditionExpression:                 aws.String("attribute_not_exists(projectKey)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		t.Fatalf("put: %v", err)
	}
	if owner, ok := failed.Item["containerId"].(*types.AttributeValueMemberS); !ok || owner.Value != "a" {
		t.Errorf("the item in the failure: %v", failed.Item)
	}
}

func TestTransactionWithConditionCheckIsAllOrNothing(t *testing.T) {
	client, table := newTable(t, item{"projectKey": text("amelia#scott"), "containerId": text("a")})
	write := func(owner string) error {
		_, err := client.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
			{ConditionCheck: &types.ConditionCheck{
				TableName: &table, Key: item{"projectKey": text("amelia#scott")}, ConditionExpression: aws.String("containerId = :me"),
				ExpressionAttributeValues: item{":me": text(owner)},
			}},
			{Put: &types.Put{TableName: &table, Item: item{"projectKey": text("journal#" + owner), "state": text("done")}}},
		}})
		return err
	}
	var cancelled *types.TransactionCanceledException
	if err := write("b"); !errors.As(err, &cancelled) || aws.ToString(cancelled.CancellationReasons[0].Code) != "ConditionalCheckFailed" {
		t.Errorf("of another: %v", err)
	}
	if err := write("a"); err != nil {
		t.Errorf("of the owner: %v", err)
	}
	for owner, want := range map[string]bool{"a": true, "b": false} {
		out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: item{"projectKey": text("journal#" + owner)}, ConsistentRead: aws.Bool(true)})
		if err != nil || (out.Item != nil) != want {
			t.Errorf("journal of %s is there: %v (%v), want %v", owner, out.Item != nil, err, want)
		}
	}
}

func TestTableHasTimeToLive(t *testing.T) {
	client, table := newTable(t)
	out, err := client.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &table})
	if err != nil {
		t.Fatal(err)
	}
	if d := out.TimeToLiveDescription; d.TimeToLiveStatus != types.TimeToLiveStatusEnabled || aws.ToString(d.AttributeName) != "ttl" {
		t.Errorf("time to live %s on %q", d.TimeToLiveStatus, aws.ToString(d.AttributeName))
	}
}

func TestIndexHoldsWhatHasAnOwner(t *testing.T) {
	client, table := newTable(t,
		item{"projectKey": text("amelia#scott"), "containerId": text("a")},
		item{"projectKey": text("basil#sybil"), "containerId": text("b")},
		item{"projectKey": text("journal#1")},
	)
	scan, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, IndexName: aws.String("containerId-index")})
	if err != nil || scan.Count != 2 {
		t.Fatalf("scan of the index: %v, %v", scan, err)
	}
	query, err := client.Query(t.Context(), &dynamodb.QueryInput{
		TableName: &table, IndexName: aws.String("containerId-index"), KeyConditionExpression: aws.String("containerId = :id"),
		ExpressionAttributeValues: item{":id": text("b")},
	})
	if err != nil || query.Count != 1 {
		t.Fatalf("query of the index: %v, %v", query, err)
	}
	if diff := cmp.Diff(text("basil#sybil"), query.Items[0]["projectKey"], cmp.AllowUnexported(types.AttributeValueMemberS{})); diff != "" {
		t.Error(diff)
	}
}
