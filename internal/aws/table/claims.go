package table

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/webordinary/claude-code-container/internal/claim"
)

// claims is claim.Table.
type claims struct{ *Tables }

// Get implements claim.Table.
func (t claims) Get(ctx context.Context, key string) (claim.Row, error) {
	got, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.config.Ownership, Key: item{attrKey: text(key)}, ConsistentRead: aws.Bool(true),
	}, t.retry)
	switch {
	case err != nil:
		return claim.Row{}, failure(ctx, "get", err)
	case got.Item == nil:
		return claim.Row{}, claim.ErrNoRow
	}
	return rowOf(got.Item), nil
}

// Put implements claim.Table. It updates the item and does not replace it: what
// the platform may have added to a row stays, and that costs nothing.
func (t claims) Put(ctx context.Context, next, seen claim.Row) error {
	e := expression{names: map[string]string{}, values: item{}}
	update := e.assign(fieldsOf(next))
	_, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &t.config.Ownership, Key: item{attrKey: text(next.ProjectKey)},
		UpdateExpression: &update, ConditionExpression: aws.String(e.still(seen)),
		ExpressionAttributeNames: e.names, ExpressionAttributeValues: e.values,
	}, t.retry)
	if moved := (*types.ConditionalCheckFailedException)(nil); errors.As(err, &moved) {
		return claim.ErrMoved
	}
	return failure(ctx, "update", err)
}

// Live implements claim.Table. The index may project as little as its keys: an
// item that lacks what ours have is read by key.
func (t claims) Live(ctx context.Context) ([]claim.Row, error) {
	pages := dynamodb.NewScanPaginator(t.client, &dynamodb.ScanInput{TableName: &t.config.Ownership, IndexName: aws.String(index)})
	var live []claim.Row
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx, t.retry)
		if err != nil {
			return nil, failure(ctx, "scan "+index+" of", err)
		}
		for _, i := range page.Items {
			row := rowOf(i)
			if row.Rev == 0 || row.Status == "" {
				row, err = t.Get(ctx, row.ProjectKey)
			}
			switch {
			case errors.Is(err, claim.ErrNoRow):
			case err != nil:
				return nil, err
			case row.ContainerID != "":
				live = append(live, row)
			}
		}
	}
	return live, nil
}

func (t *Tables) retry(o *dynamodb.Options) { o.Retryer = t.quick }

// failure names a call that failed. A call that its context ended fails with
// the context's cause.
func failure(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s table: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s table: %w", what, err)
}

// expression collects what a DynamoDB expression refers to.
type expression struct {
	names  map[string]string
	values item
}

// name and value return placeholders: names of attributes may be reserved words.
func (e expression) name(attribute string) string {
	e.names["#"+attribute] = attribute
	return "#" + attribute
}

func (e expression) value(name string, v types.AttributeValue) string {
	e.values[":"+name] = v
	return ":" + name
}

// assign makes an update expression that leaves other attributes alone.
func (e expression) assign(fields []field) string {
	var set, remove []string
	for _, f := range fields {
		if f.value == nil {
			remove = append(remove, e.name(f.name))
			continue
		}
		set = append(set, e.name(f.name)+" = "+e.value(f.name, f.value))
	}
	var clauses []string
	if len(set) > 0 {
		clauses = append(clauses, "SET "+strings.Join(set, ", "))
	}
	if len(remove) > 0 {
		clauses = append(clauses, "REMOVE "+strings.Join(remove, ", "))
	}
	return strings.Join(clauses, " ")
}

// still makes the condition that a row is the one that was seen.
func (e expression) still(seen claim.Row) string {
	if seen == (claim.Row{}) {
		return "attribute_not_exists(" + e.name(attrKey) + ")"
	}
	all := []string{
		"attribute_exists(" + e.name(attrKey) + ")",
		e.number(attrFence, seen.Fence),
		e.number(attrRev, seen.Rev),
	}
	if seen.Rev == 0 {
		all = append(all, e.activity(seen))
	}
	return strings.Join(all, " AND ")
}

// number compares a number of which zero is written as nothing at all.
func (e expression) number(attribute string, n int64) string {
	equal := e.name(attribute) + " = " + e.value("seen_"+attribute, number(n))
	if n != 0 {
		return equal
	}
	return "(" + e.noNumber(attribute) + " OR " + equal + ")"
}

func (e expression) noNumber(attribute string) string {
	return "(NOT attribute_type(" + e.name(attribute) + ", " + e.value("number", text("N")) + "))"
}

// activity compares the last activity of a foreign row, which may be more
// exact than the milliseconds that were read.
func (e expression) activity(seen claim.Row) string {
	if seen.LastActivity.IsZero() {
		return e.noNumber(attrLastActivity)
	}
	ms := seen.LastActivity.UnixMilli()
	name := e.name(attrLastActivity)
	return name + " >= " + e.value("seen_from", number(ms)) + " AND " + name + " < " + e.value("seen_to", number(ms+1))
}
