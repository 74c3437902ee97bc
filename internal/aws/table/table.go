// Package table keeps claims and the journal in DynamoDB.
//
// The ownership table holds one item for each project, as the platform knows it:
// key projectKey (S), containerId (S), claimedAt and lastActivity (N, ms), status
// (S), ttl (N, s), and beside these fence, rev (N) and tenure (S). An item
// without containerId is not in the index containerId-index, so the index lists
// what somebody has, however many projects there were.
//
// The journal may share the table. A record is an item with projectKey (S), body
// (B) and ttl (N, s); a body is gzip where that makes it smaller, then encoding
// (S) says so. Records have no containerId, so the index does not see them, and
// their keys are never a project's.
//
// Used are GetItem, UpdateItem, PutItem and ConditionCheckItem (in
// TransactWriteItems), Scan of the index, and for [Tables.Create] CreateTable,
// DescribeTable, DescribeTimeToLive and UpdateTimeToLive.
package table

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/journal"
)

// Config names the tables. The zero value works.
type Config struct {
	// Ownership is the table of claims; empty means
	// webordinary-container-ownership.
	Ownership string
	// Journal is the table of the journal; empty means Ownership.
	Journal string
	// Now is the clock that says what has expired; nil means time.Now.
	Now func() time.Time
}

// Tables are the worker's tables.
type Tables struct {
	client *dynamodb.Client
	config Config
	quick  aws.Retryer
}

// New returns the tables of a configuration. It calls nothing.
func New(client *dynamodb.Client, c Config) *Tables {
	if c.Ownership == "" {
		c.Ownership = "webordinary-container-ownership"
	}
	if c.Journal == "" {
		c.Journal = c.Ownership
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Tables{client: client, config: c, quick: newRetryer()}
}

// Claims returns the ownership table.
func (t *Tables) Claims() claim.Table { return claims{t} }

// Journal returns the journal's store. A write or read that fails for want of an
// answer is tried again for up to 80 s, as long as its context allows.
func (t *Tables) Journal() journal.Store { return records{t} }

// Names of attributes, and of the index.
const (
	attrKey          = "projectKey"
	attrContainer    = "containerId"
	attrClaimedAt    = "claimedAt"
	attrLastActivity = "lastActivity"
	attrStatus       = "status"
	attrTTL          = "ttl"
	attrFence        = "fence"
	attrRev          = "rev"
	attrTenure       = "tenure"
	attrBody         = "body"
	attrEncoding     = "encoding"

	index = "containerId-index"
)

// createWait is how long a new table may take until it can be used.
const createWait = 2 * time.Minute

// Create makes the tables that are missing, with key, index and expiry, and
// waits until they can be used. A table that exists keeps its keys and indexes;
// expiry is turned on where it is off.
func (t *Tables) Create(ctx context.Context) error {
	if err := t.create(ctx, t.config.Ownership, true); err != nil {
		return err
	}
	if t.config.Journal == t.config.Ownership {
		return nil
	}
	return t.create(ctx, t.config.Journal, false)
}

func (t *Tables) create(ctx context.Context, name string, indexed bool) error {
	in := &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String(attrKey), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String(attrKey), KeyType: types.KeyTypeHash}},
	}
	if indexed {
		in.AttributeDefinitions = append(in.AttributeDefinitions,
			types.AttributeDefinition{AttributeName: aws.String(attrContainer), AttributeType: types.ScalarAttributeTypeS})
		in.GlobalSecondaryIndexes = []types.GlobalSecondaryIndex{{
			IndexName:  aws.String(index),
			KeySchema:  []types.KeySchemaElement{{AttributeName: aws.String(attrContainer), KeyType: types.KeyTypeHash}},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
		}}
	}
	describe := &dynamodb.DescribeTableInput{TableName: &name}
	_, err := t.client.DescribeTable(ctx, describe)
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		_, err = t.client.CreateTable(ctx, in)
	}
	if busy := (*types.ResourceInUseException)(nil); err != nil && !errors.As(err, &busy) { // busy: another worker was faster
		return fmt.Errorf("create table %s: %w", name, err)
	}
	quickly := func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 200*time.Millisecond, 5*time.Second
	}
	if err := dynamodb.NewTableExistsWaiter(t.client, quickly).Wait(ctx, describe, createWait); err != nil {
		return fmt.Errorf("wait for table %s: %w", name, err)
	}
	return t.expire(ctx, name)
}

// expire turns the expiry of items on.
func (t *Tables) expire(ctx context.Context, name string) error {
	d, err := t.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	if err != nil {
		return fmt.Errorf("look at the expiry of table %s: %w", name, err)
	}
	if s := d.TimeToLiveDescription.TimeToLiveStatus; s == types.TimeToLiveStatusEnabled || s == types.TimeToLiveStatusEnabling {
		return nil
	}
	_, err = t.client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName:               &name,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(attrTTL), Enabled: aws.Bool(true)},
	})
	if err == nil {
		return nil
	}
	// Another worker may have been faster; DynamoDB calls that a validation error.
	d, derr := t.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	if derr == nil && d.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusDisabled {
		return nil
	}
	return fmt.Errorf("turn on the expiry of table %s: %w", name, err)
}
