package table

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// records is journal.Store.
type records struct{ *Tables }

// Get implements journal.Store.
func (t records) Get(ctx context.Context, key string) (journal.Record, error) {
	got, err := persist(ctx, t.quick, func(ctx context.Context) (*dynamodb.GetItemOutput, error) {
		return t.client.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &t.config.Journal, Key: item{attrKey: text(recordKey(key))}, ConsistentRead: aws.Bool(true),
		}, t.retry)
	})
	if err != nil {
		return journal.Record{}, failure(ctx, "read journal", err)
	}
	expires := timeOf(got.Item[attrTTL], fromSeconds)
	if got.Item == nil || !expires.After(t.config.Now()) { // DynamoDB deletes when it finds time
		return journal.Record{}, journal.ErrNotFound
	}
	body, err := unpack(got.Item)
	if err != nil {
		return journal.Record{}, fmt.Errorf("unpack journal record %s: %w", key, err)
	}
	return journal.Record{Key: key, Body: body, Expires: expires}, nil
}

// Put implements journal.Store. Record and fence are one transaction. All its
// tries carry one token, so DynamoDB applies it once and remembers its success
// for ten minutes.
func (t records) Put(ctx context.Context, r journal.Record, fence journal.Fence) error {
	body, encoding := pack(r.Body)
	record := item{attrKey: text(recordKey(r.Key)), attrBody: body, attrTTL: number(r.Expires.Unix())}
	if encoding != "" {
		record[attrEncoding] = text(encoding)
	}
	in := &dynamodb.TransactWriteItemsInput{
		ClientRequestToken: aws.String(rand.Text()),
		TransactItems: []types.TransactWriteItem{
			{Put: &types.Put{TableName: &t.config.Journal, Item: record}},
			{ConditionCheck: &types.ConditionCheck{
				TableName: &t.config.Ownership, Key: item{attrKey: text(fence.ProjectKey)},
				ConditionExpression:       aws.String("#fence = :fence"),
				ExpressionAttributeNames:  map[string]string{"#fence": attrFence},
				ExpressionAttributeValues: item{":fence": number(fence.Number)},
			}},
		},
	}
	_, err := persist(ctx, t.quick, func(ctx context.Context) (*dynamodb.TransactWriteItemsOutput, error) {
		return t.client.TransactWriteItems(ctx, in, t.retry)
	})
	if fenced(err) {
		return journal.ErrFenced
	}
	return failure(ctx, "write journal", err)
}

// fenced reports whether a transaction failed by its condition.
func fenced(err error) bool {
	cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok {
		return false
	}
	for _, reason := range cancelled.CancellationReasons {
		if aws.ToString(reason.Code) == "ConditionalCheckFailed" {
			return true
		}
	}
	return false
}

// recordKey is the item's key of a record. The key of a command has three number
// signs, a project's has one, and no id has any: they cannot be the same. The
// key of a bucket's record could be a project's, or that of the claim on the
// bucket.
func recordKey(key string) string {
	if strings.HasPrefix(key, "cmd#") && strings.Count(key, "#") > 1 {
		return key
	}
	return "journal#" + key
}

// packFrom is the size from which on compressing pays: a transaction costs two
// units for each KB. An entry holds JSON and base64, of which a third remains;
// so one with a draft and an answer of 200 KB each is still an item.
const packFrom = 2 << 10

func pack(body []byte) (types.AttributeValue, string) {
	plain := &types.AttributeValueMemberB{Value: append([]byte{}, body...)} // nil would be no value
	if len(body) < packFrom {
		return plain, ""
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(body)
	if cerr := w.Close(); err != nil || cerr != nil || packed.Len() >= len(body) {
		return plain, ""
	}
	return &types.AttributeValueMemberB{Value: packed.Bytes()}, "gzip"
}

// unpackLimit bounds what a record may become.
const unpackLimit = 16 << 20

func unpack(i item) ([]byte, error) {
	b, ok := i[attrBody].(*types.AttributeValueMemberB)
	if !ok {
		return nil, errors.New("it has no body")
	}
	switch encoding := textOf(i[attrEncoding]); encoding {
	case "":
		return b.Value, nil
	case "gzip":
		r, err := gzip.NewReader(bytes.NewReader(b.Value))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(r, unpackLimit))
	default:
		return nil, fmt.Errorf("unknown encoding %q", encoding)
	}
}
