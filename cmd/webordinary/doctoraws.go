package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// credentials looks for them. Whether AWS takes them, the next checks show.
func (d *doctor) credentials(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if d.aws.Credentials == nil {
		d.deaf = true
		return []finding{bad(levelFail, "credentials", "none, so AWS is not asked", "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")}
	}
	c, err := d.aws.Credentials.Retrieve(ctx)
	if err != nil {
		d.deaf = true
		return []finding{bad(levelFail, "credentials", "none, so AWS is not asked: "+lastLine(err), "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")}
	}
	text := fmt.Sprintf("key …%s from %s, region %s", c.AccessKeyID[max(0, len(c.AccessKeyID)-4):], c.Source, d.aws.Region)
	if c.CanExpire && time.Until(c.Expires) < time.Minute {
		return []finding{bad(levelWarn, "credentials", text+"; they end in a minute", "renew them")}
	}
	return []finding{ok("credentials", "%s", text)}
}

// The attributes that queues are set up with.
const (
	wantReceives   = 3
	wantVisibility = 300 * time.Second
	wantRetention  = 4 * 24 * time.Hour
)

func (d *doctor) sharedQueues(ctx context.Context) []finding {
	dead, f := d.queue(ctx, d.names.Unclaimed(), "", "fail")
	all := []finding{f}
	if d.silent {
		return all
	}
	if d.config.UnclaimedQueueURL == "" {
		return append(all, bad(levelFail, "queue", "UNCLAIMED_QUEUE_URL is missing", "set it to the URL of the queue of claim requests"))
	}
	_, f = d.queue(ctx, d.config.UnclaimedQueueURL, dead.ARN, "fail")
	return append(all, f)
}

// projectQueues checks the pair's queues, or the input queues of all.
func (d *doctor) projectQueues(ctx context.Context) []finding {
	if d.silent {
		return nil
	}
	if d.pair != nil {
		return d.pairQueues(ctx, *d.pair)
	}
	inputs, more, err := d.queuesLike(ctx, d.config.InputPattern)
	if err != nil {
		return []finding{awsFinding("queues", "sqs:ListQueues", err)}
	}
	var all []finding
	good := 0
	for _, q := range inputs {
		target := ""
		if a, err := d.describe(ctx, d.names.DLQOf(q)); err == nil {
			target = a.ARN
		}
		if _, f := d.queue(ctx, q, target, "fail"); f.Level != levelOK {
			all = append(all, f)
			continue
		}
		good++
	}
	text := fmt.Sprintf("%s found", counted(good, "good input queue"))
	if more {
		text += fmt.Sprintf(", among the first %d queues", mostQueues)
	}
	if len(inputs) == 0 {
		return append(all, bad(levelWarn, "queues", "no input queue has a name like "+d.config.InputPattern, "set up a project, or set INPUT_QUEUE_PATTERN or the region right"))
	}
	return append(all, ok("queues", "%s", text))
}

func (d *doctor) pairQueues(ctx context.Context, p protocol.Pair) []finding {
	dead, f := d.queue(ctx, d.names.DLQ(p), "", "fail")
	all := []finding{f}
	for _, q := range []struct{ topic, missing string }{
		{d.names.Input(p), "fail"}, {d.names.Output(p), "fail"}, {d.names.Interrupts(p), "optional"}, {d.names.Progress(p), "optional"},
	} {
		_, f := d.queue(ctx, q.topic, dead.ARN, q.missing)
		all = append(all, f)
	}
	return all
}

func (d *doctor) describe(ctx context.Context, topic string) (queue.Attributes, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	return d.queues.Describe(ctx, topic)
}

// queue checks one queue. target is the ARN of its dead-letter queue; without one it is
// such a queue itself. missing says how bad it is if the queue is not there.
func (d *doctor) queue(ctx context.Context, topic, target, missing string) (queue.Attributes, finding) {
	a, err := d.describe(ctx, topic)
	name := topic[strings.LastIndex(topic, "/")+1:]
	switch {
	case errors.Is(err, queue.ErrMissing) && missing == "optional":
		return a, ok("queue", "%s is not there; it is optional", name)
	case errors.Is(err, queue.ErrMissing):
		return a, bad(levelFail, "queue", name+" is not there", "create it: standard, visibility 300 s, retention 4 days, maxReceiveCount 3; or set the pattern of names or the region right")
	case err != nil:
		d.silent = errorCode(err) == ""
		return a, awsFinding("queue", "sqs:GetQueueAttributes", fmt.Errorf("%s: %w", name, err))
	}
	return a, judgeQueue(a, target)
}

// judgeQueue finds the worst that is wrong with a queue that is there.
func judgeQueue(a queue.Attributes, target string) finding {
	is := fmt.Sprintf("%s: %d waiting", a.Name, a.Visible)
	worse := func(l level, what, do string) finding { return bad(l, "queue", a.Name+" "+what, do) }
	switch {
	case a.FIFO:
		return worse(levelFail, "is a FIFO queue", "use a standard queue; a message group would stop behind its first message")
	case target == "" && a.DeadLetters != "":
		return worse(levelWarn, "has a dead-letter queue, and is one itself", "take its RedrivePolicy away, or looking at it uses letters up")
	case target != "" && a.DeadLetters == "":
		return worse(levelFail, "has no RedrivePolicy", fmt.Sprintf("set maxReceiveCount %d to %s", wantReceives, target))
	case target != "" && a.DeadLetters != target:
		return worse(levelFail, "dead-letters to "+a.DeadLetters, "let it dead-letter to "+target)
	case target != "" && a.MaxReceives != wantReceives:
		return worse(levelFail, fmt.Sprintf("has maxReceiveCount %d", a.MaxReceives), fmt.Sprintf("set it to %d: workers count on it", wantReceives))
	case a.Retention < wantRetention:
		return worse(levelWarn, "keeps messages for "+span(a.Retention)+" only", "set MessageRetentionPeriod to 4 days")
	case target != "" && a.Visibility < wantVisibility:
		return worse(levelWarn, "has visibility "+a.Visibility.String(), "set VisibilityTimeout to 300 s, for readers other than the worker")
	case target == "" && a.Visible > 0:
		return worse(levelWarn, "has "+counted(a.Visible, "dead letter"), "webordinary dlq list")
	}
	return ok("queue", "%s", is)
}

// awsFinding says of a call that failed what can be done.
func awsFinding(check, permission string, err error) finding {
	var api smithy.APIError
	var response *smithyhttp.ResponseError
	switch {
	case errors.As(err, &response) && response.HTTPStatusCode() == http.StatusNotImplemented,
		errors.As(err, &api) && (api.ErrorCode() == "NotImplemented" || strings.Contains(api.ErrorCode(), "UnknownOperation")):
		return bad(levelWarn, check, permission+" is not known there", "nothing, if that is an emulator")
	case errors.As(err, &api) && denied(api.ErrorCode()):
		return bad(levelFail, check, "not allowed: "+lastLine(err), "allow "+permission+", see infra/ecs/operator-policy.json; or use other credentials")
	case errors.As(err, &api):
		return bad(levelFail, check, lastLine(err), "see what "+permission+" answers")
	}
	return bad(levelFail, check, "no answer: "+lastLine(err), "see that the endpoint can be reached from here, and is the right one")
}

func denied(code string) bool {
	for _, part := range []string{"AccessDenied", "Forbidden", "UnrecognizedClient", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidAccessKeyId", "Unauthorized"} {
		if strings.Contains(code, part) {
			return true
		}
	}
	return false
}

// lastLine is the end of an error's text, where the cause stands.
func lastLine(err error) string {
	text := strings.TrimSpace(err.Error())
	text = text[strings.LastIndex(text, "\n")+1:]
	const most = 200
	if r := []rune(text); len(r) > most {
		return "…" + string(r[len(r)-most:])
	}
	return text
}

func (d *doctor) ownershipTable(ctx context.Context) []finding {
	return d.table(ctx, d.config.OwnershipTable, true)
}

func (d *doctor) journalTable(ctx context.Context) []finding {
	if d.config.JournalTable == "" || d.config.JournalTable == d.config.OwnershipTable {
		return nil
	}
	return d.table(ctx, d.config.JournalTable, false)
}

func (d *doctor) table(ctx context.Context, name string, indexed bool) []finding {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	db := dynamodb.NewFromConfig(d.aws)
	out, err := db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		return []finding{bad(levelFail, "table", name+" is not there", "create it with the key "+table.Key+" (S), or set CONTAINER_OWNERSHIP_TABLE or the region right")}
	}
	if err != nil {
		return []finding{awsFinding("table", "dynamodb:DescribeTable", err)}
	}
	all := []finding{judgeKey(name, out.Table)}
	if indexed {
		all = append(all, judgeIndex(name, out.Table))
	}
	ttl, err := db.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	switch {
	case err != nil:
		return append(all, awsFinding("table", "dynamodb:DescribeTimeToLive", err))
	case ttl.TimeToLiveDescription == nil || ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled && ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabling:
		return append(all, bad(levelFail, "table", name+" has no TTL", "turn it on for the attribute ttl, or the table only grows"))
	case aws.ToString(ttl.TimeToLiveDescription.AttributeName) != table.TTL:
		return append(all, bad(levelFail, "table", name+" has TTL on "+aws.ToString(ttl.TimeToLiveDescription.AttributeName), "set it on the attribute ttl"))
	}
	return append(all, ok("table", "%s has TTL on ttl", name))
}

func judgeKey(name string, t *types.TableDescription) finding {
	if t.TableStatus != types.TableStatusActive && t.TableStatus != types.TableStatusUpdating {
		return bad(levelFail, "table", name+" is "+string(t.TableStatus), "wait until it is ACTIVE")
	}
	if !isKey(t, t.KeySchema, table.Key) {
		return bad(levelFail, "table", name+" has another key than "+table.Key+" (S)", "create it anew with this key alone")
	}
	return ok("table", "%s is %s, with key %s", name, strings.ToLower(string(t.TableStatus)), table.Key)
}

func judgeIndex(name string, t *types.TableDescription) finding {
	for _, i := range t.GlobalSecondaryIndexes {
		switch {
		case aws.ToString(i.IndexName) != table.Index:
			continue
		case !isKey(t, i.KeySchema, table.IndexKey):
			return bad(levelFail, "table", name+"'s "+table.Index+" has another key than "+table.IndexKey, "create it anew with this key")
		case i.IndexStatus != types.IndexStatusActive:
			return bad(levelWarn, "table", name+"'s "+table.Index+" is "+string(i.IndexStatus), "wait until it is ACTIVE: dead owners are not found before")
		}
		return ok("table", "%s has %s", name, table.Index)
	}
	return bad(levelFail, "table", name+" has no index "+table.Index, "create it with the key "+table.IndexKey+" (S): dead owners are not found without it")
}

// isKey reports whether a schema is one string, and no more.
func isKey(t *types.TableDescription, schema []types.KeySchemaElement, name string) bool {
	if len(schema) != 1 || schema[0].KeyType != types.KeyTypeHash || aws.ToString(schema[0].AttributeName) != name {
		return false
	}
	for _, a := range t.AttributeDefinitions {
		if aws.ToString(a.AttributeName) == name {
			return a.AttributeType == types.ScalarAttributeTypeS
		}
	}
	return false
}
