package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// What follows is for people who look at queues. It creates nothing.

// ErrMissing says that there is no such queue.
var ErrMissing = errors.New("there is no such queue")

// Attributes are what SQS says of a queue. The numbers of messages are SQS's
// estimate.
type Attributes struct {
	Name, URL, ARN             string
	Visible, InFlight, Delayed int
	FIFO                       bool
	Visibility, Retention      time.Duration
	Wait                       time.Duration
	DeadLetters                string // ARN of its dead-letter queue; empty if it has none
	MaxReceives                int    // after which a message goes there
}

// Describe asks SQS for a queue. The error wraps ErrMissing if there is none.
func (q *Queues) Describe(ctx context.Context, topic string) (Attributes, error) {
	url, err := q.find(ctx, topic)
	if err != nil {
		return Attributes{}, err
	}
	var out *sqs.GetQueueAttributesOutput
	err = patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
		out, err = q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
			QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
		})
		return err
	})
	if err != nil {
		return Attributes{}, named(topic, "look at", err)
	}
	return readAttributes(nameOf(topic), url, out.Attributes), nil
}

func readAttributes(name, url string, all map[string]string) Attributes {
	number := func(n types.QueueAttributeName) int {
		i, err := strconv.Atoi(all[string(n)])
		if err != nil {
			return 0 // it is not there
		}
		return i
	}
	period := func(n types.QueueAttributeName) time.Duration { return time.Duration(number(n)) * time.Second }
	a := Attributes{
		Name: name, URL: url, ARN: all[string(types.QueueAttributeNameQueueArn)],
		Visible:    number(types.QueueAttributeNameApproximateNumberOfMessages),
		InFlight:   number(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Delayed:    number(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
		FIFO:       all[string(types.QueueAttributeNameFifoQueue)] == "true" || strings.HasSuffix(name, ".fifo"),
		Visibility: period(types.QueueAttributeNameVisibilityTimeout),
		Retention:  period(types.QueueAttributeNameMessageRetentionPeriod),
		Wait:       period(types.QueueAttributeNameReceiveMessageWaitTimeSeconds),
	}
	var policy struct {
		DeadLetterTargetArn string
		MaxReceiveCount     json.RawMessage // a number, or one in quotes
	}
	if json.Unmarshal([]byte(all[string(types.QueueAttributeNameRedrivePolicy)]), &policy) == nil {
		a.DeadLetters = policy.DeadLetterTargetArn
		a.MaxReceives, _ = strconv.Atoi(strings.Trim(string(policy.MaxReceiveCount), `"`))
	}
	return a
}

// find returns a queue's URL, and never creates it.
func (q *Queues) find(ctx context.Context, topic string) (string, error) {
	q.mu.Lock()
	url, known := q.urls[topic]
	q.mu.Unlock()
	if known {
		return url, nil
	}
	if isURL(topic) {
		return topic, nil
	}
	err := patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
		out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &topic})
		if err == nil {
			url = aws.ToString(out.QueueUrl)
		}
		return err
	})
	if err != nil {
		return "", named(topic, "find", err)
	}
	q.remember(topic, url)
	return url, nil
}

// named says which queue an error is about.
func named(topic, what string, err error) error {
	if missing(err) {
		return fmt.Errorf("%w: %s", ErrMissing, topic)
	}
	return fmt.Errorf("%s queue %s: %w", what, topic, err)
}

// List returns the names of the queues that begin with a prefix, in order; more is
// true if there are others beyond the first limit.
func (q *Queues) List(ctx context.Context, prefix string, limit int) (names []string, more bool, err error) {
	in := &sqs.ListQueuesInput{MaxResults: aws.Int32(1000)}
	if prefix != "" {
		in.QueueNamePrefix = &prefix
	}
	for {
		var out *sqs.ListQueuesOutput
		err := patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
			out, err = q.client.ListQueues(ctx, in)
			return err
		})
		if err != nil {
			return nil, false, fmt.Errorf("list queues that begin with %q: %w", prefix, err)
		}
		for _, url := range out.QueueUrls {
			q.remember(nameOf(url), url)
			names = append(names, nameOf(url))
		}
		if out.NextToken == nil || len(names) > limit {
			break
		}
		in.NextToken = out.NextToken
	}
	slices.Sort(names)
	if len(names) > limit {
		return names[:limit], true, nil
	}
	return names, false, nil
}

// Letter is a message that somebody looks at. It is invisible to others until it
// was put back, or its visibility ended.
type Letter struct {
	Queue      string // where it was received, as it was called
	Body       string
	Attributes map[string]string
	Delivery   protocol.Delivery
	// From is the ARN of the queue that SQS itself moved it from; empty if it was
	// sent to this one, or SQS does not say.
	From string

	raw types.Message
	url string
}

// Look says how to receive.
type Look struct {
	// Visibility is for how long what is received is invisible to others, in
	// whole seconds; zero means 30 s.
	Visibility time.Duration
	// Wait is how long to wait for a first message, in whole seconds up to 20;
	// zero means 1 s.
	Wait time.Duration
}

// Receive receives up to ten messages. Whoever does not Remove one Returns it.
func (q *Queues) Receive(ctx context.Context, topic string, l Look) ([]Letter, error) {
	url, err := q.find(ctx, topic)
	if err != nil {
		return nil, err
	}
	visibility, wait := wholeSeconds(l.Visibility, 30*time.Second), min(wholeSeconds(l.Wait, time.Second), 20*time.Second)
	var out *sqs.ReceiveMessageOutput
	// A receive that is cut off hides what it would have brought.
	err = once(context.WithoutCancel(ctx), wait+callTimeout, func(ctx context.Context) error {
		out, err = q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: seconds(wait), VisibilityTimeout: seconds(visibility),
			MessageAttributeNames: []string{"All"}, MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		return err
	})
	if err != nil {
		return nil, named(topic, "receive from", err)
	}
	var all []Letter
	for _, raw := range out.Messages {
		m := contentOf(&raw)
		all = append(all, Letter{
			Queue: topic, Body: aws.ToString(raw.Body), Attributes: m.Metadata, Delivery: deliveryOf(&raw, m.Metadata),
			From: raw.Attributes[string(types.MessageSystemAttributeNameDeadLetterQueueSourceArn)], raw: raw, url: url,
		})
	}
	return all, nil
}

// Browse receives all messages of a queue, as far as there are no more than limit;
// more is true if there are. It sees each once. The messages are returned with an
// error too: they have to be put back. Meant for a queue without a RedrivePolicy,
// whose receives are not counted.
func (q *Queues) Browse(ctx context.Context, topic string, limit int, l Look) (all []Letter, more bool, err error) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		some, err := q.Receive(ctx, topic, l)
		if err != nil {
			return all, false, err
		}
		fresh := false
		for _, m := range some {
			if again := seen[m.Delivery.MessageID]; !again {
				all, fresh = append(all, m), true
			}
			seen[m.Delivery.MessageID] = true
		}
		switch {
		case len(all) >= limit:
			return all, true, nil
		case !fresh:
			return all, false, nil
		}
	}
	return all, false, context.Cause(ctx)
}

// Return makes messages visible again at once. Where the queue's RedrivePolicy would
// soon take one away, another takes its place, as workers do it. It goes on after
// ctx has ended, and returns all errors.
func (q *Queues) Return(ctx context.Context, letters ...Letter) error {
	return q.putBack(ctx, letters, true)
}

// Unlook is Return for a queue without a RedrivePolicy: nothing but the visibility is
// changed, however often it is looked at.
func (q *Queues) Unlook(ctx context.Context, letters ...Letter) error {
	return q.putBack(ctx, letters, false)
}

func (q *Queues) putBack(ctx context.Context, letters []Letter, counted bool) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, l := range letters {
		err := q.putBackOne(ctx, l, counted)
		if err != nil && !lost(err) {
			errs = append(errs, fmt.Errorf("message %s of %s is visible again only later: %w", l.Delivery.MessageID, l.Queue, err))
		}
	}
	return errors.Join(errs...)
}

func (q *Queues) putBackOne(ctx context.Context, l Letter, counted bool) error {
	if counted && receives(&l.raw) >= resendFrom {
		again := outgoing{body: l.Body, attributes: l.raw.MessageAttributes, patience: patience{total: hurriedSettle}}
		if err := q.send(ctx, l.Queue, again); err != nil {
			return err
		}
		return q.Remove(ctx, l)
	}
	return patience{total: hurriedSettle}.try(ctx, func(ctx context.Context) error {
		return q.setVisibility(ctx, l, 0)
	})
}

func receives(raw *types.Message) int { return deliveryOf(raw, nil).Receives }

// Hold hides a message from others for longer. The error may say that it is somebody
// else's by now.
func (q *Queues) Hold(ctx context.Context, l Letter, d time.Duration) error {
	err := patience{total: hurriedSettle}.try(ctx, func(ctx context.Context) error {
		return q.setVisibility(ctx, l, d)
	})
	if err != nil {
		return fmt.Errorf("hold message %s of %s: %w", l.Delivery.MessageID, l.Queue, err)
	}
	return nil
}

func (q *Queues) setVisibility(ctx context.Context, l Letter, d time.Duration) error {
	_, err := q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &l.url, ReceiptHandle: l.raw.ReceiptHandle, VisibilityTimeout: seconds(d),
	})
	return err
}

// Forward sends a message to another queue, with its attributes but those named, and
// with what a worker needs to know it again: its command id, when it was first sent,
// and that it was sent again. The message stays where it is until it is Removed.
func (q *Queues) Forward(ctx context.Context, to string, l Letter, without ...string) error {
	all := resentAttributes(&types.Message{MessageAttributes: reduced(l.raw.MessageAttributes, without)}, l.Delivery)
	err := q.send(context.WithoutCancel(ctx), to, outgoing{body: l.Body, attributes: all, patience: patience{total: hurriedSettle}})
	if err != nil {
		return named(to, "send to", err)
	}
	return nil
}

func reduced(all attributes, without []string) attributes {
	left := attributes{}
	for name, value := range all {
		if !slices.Contains(without, name) {
			left[name] = value
		}
	}
	return left
}

// Remove deletes a message.
func (q *Queues) Remove(ctx context.Context, l Letter) error {
	err := patience{total: hurriedSettle}.try(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &l.url, ReceiptHandle: l.raw.ReceiptHandle})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete message %s of %s: %w", l.Delivery.MessageID, l.Queue, err)
	}
	return nil
}
