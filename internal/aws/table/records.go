package table

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/webordinary/claude-code-container/internal/journal"
)

// pageItems is how many items one request looks at, at most; DynamoDB stops at 1 MB.
const pageItems = 1000

// Records returns the journal's records of the commands of a project and user. A key
// finds one record only, so this looks through the whole table, item by item: no
// further than limit items, and more is true if there are others. It is for people
// who ask now and then. Expired records are left out.
func (t *Tables) Records(ctx context.Context, projectKey string, limit int) (found []journal.Record, more bool, err error) {
	in := &dynamodb.ScanInput{
		TableName: &t.config.Journal, FilterExpression: aws.String("begins_with(#key, :prefix)"),
		ExpressionAttributeNames:  map[string]string{"#key": attrKey},
		ExpressionAttributeValues: item{":prefix": text("cmd#" + projectKey + "#")},
	}
	for looked := 0; ; {
		in.Limit = aws.Int32(int32(min(pageItems, limit-looked))) //nolint:gosec // at most pageItems
		page, err := t.client.Scan(ctx, in, t.retry)
		if err != nil {
			return nil, false, failure(ctx, "scan journal", err)
		}
		looked += int(page.ScannedCount)
		for _, i := range page.Items {
			key, expires := textOf(i[attrKey]), timeOf(i[attrTTL], fromSeconds)
			if !expires.After(t.config.Now()) {
				continue
			}
			body, err := unpack(i)
			if err != nil {
				return nil, false, fmt.Errorf("unpack journal record %s: %w", key, err)
			}
			found = append(found, journal.Record{Key: key, Body: body, Expires: expires})
		}
		if len(page.LastEvaluatedKey) == 0 {
			return found, false, nil
		}
		if looked >= limit {
			return found, true, nil
		}
		in.ExclusiveStartKey = page.LastEvaluatedKey
	}
}

// What a table must have, for who checks one.
const (
	Key      = attrKey       // its key, a string
	TTL      = attrTTL       // the attribute by which items expire
	Index    = index         // of the ownership table
	IndexKey = attrContainer // of the index
)
