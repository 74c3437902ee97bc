package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// ErrFIFO refuses a FIFO queue.
var ErrFIFO = errors.New("is a FIFO queue, which holds back all later messages of a group while one is " +
	"being worked on, so a user's second thought would never be seen in time: use a standard queue")

// lookupTime bounds finding and creating a queue, where no context does.
const lookupTime = 2 * time.Minute

// Exists reports whether there is a queue. It asks SQS each time.
func (q *Queues) Exists(ctx context.Context, topic string) (bool, error) {
	_, err := q.lookUp(ctx, topic)
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

// url returns the URL of a topic, and creates the queue if we are to.
func (q *Queues) url(ctx context.Context, topic string) (string, error) {
	q.mu.Lock()
	url, known := q.urls[topic]
	q.mu.Unlock()
	if known {
		return url, nil
	}
	if isURL(topic) && !q.config.Create {
		return topic, refuseFIFO(topic)
	}
	url, err := q.lookUp(ctx, topic)
	if missing(err) && q.config.Create {
		return q.create(ctx, topic)
	}
	return url, err
}

// lookUp asks SQS for a queue.
func (q *Queues) lookUp(ctx context.Context, topic string) (string, error) {
	if err := refuseFIFO(topic); err != nil {
		return "", err
	}
	url := topic
	err := patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
		if isURL(topic) {
			_, err := q.attributes(ctx, topic)
			return err
		}
		out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &topic})
		if err == nil {
			url = aws.ToString(out.QueueUrl)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("find queue %s: %w", topic, err)
	}
	q.remember(topic, url)
	return url, nil
}

// create makes a queue, and before it the one it dead-letters to.
func (q *Queues) create(ctx context.Context, topic string) (string, error) {
	attributes := map[string]string{
		string(types.QueueAttributeNameVisibilityTimeout):             "300",
		string(types.QueueAttributeNameMessageRetentionPeriod):        strconv.Itoa(4 * 24 * 60 * 60),
		string(types.QueueAttributeNameReceiveMessageWaitTimeSeconds): "20",
	}
	if dlq := q.config.DLQ(topic); dlq != "" && dlq != topic {
		policy, err := q.redrive(ctx, dlq)
		if err != nil {
			return "", err
		}
		attributes[string(types.QueueAttributeNameRedrivePolicy)] = policy
	}
	var url string
	err := patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
		out, err := q.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(nameOf(topic)), Attributes: attributes})
		if err == nil {
			url = aws.ToString(out.QueueUrl)
		}
		return err
	})
	if _, ok := errors.AsType[*types.QueueNameExists](err); ok { // made by another worker, in another way
		return q.lookUp(ctx, topic)
	}
	if err != nil {
		return "", fmt.Errorf("create queue %s: %w", topic, err)
	}
	q.config.Log.InfoContext(ctx, "queue created", "queue", topic)
	if isURL(topic) {
		url = topic
	}
	q.remember(topic, url)
	return url, nil
}

// redrive returns the RedrivePolicy for a dead-letter queue.
func (q *Queues) redrive(ctx context.Context, dlq string) (string, error) {
	url, err := q.url(ctx, dlq)
	if err != nil {
		return "", err
	}
	var arn string
	err = patience{total: lookupTime}.try(ctx, func(ctx context.Context) error {
		out, err := q.attributes(ctx, url)
		if err == nil {
			arn = out.Attributes[string(types.QueueAttributeNameQueueArn)]
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("find the ARN of %s: %w", dlq, err)
	}
	policy, err := json.Marshal(map[string]any{"deadLetterTargetArn": arn, "maxReceiveCount": maxReceives})
	return string(policy), err
}

func (q *Queues) attributes(ctx context.Context, url string) (*sqs.GetQueueAttributesOutput, error) {
	return q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
}

func (q *Queues) remember(topic, url string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urls[topic] = url
}

// forget is for a queue that turned out to be gone.
func (q *Queues) forget(topic string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.urls, topic)
}

func isURL(topic string) bool { return strings.Contains(topic, "://") }

func nameOf(topic string) string { return topic[strings.LastIndex(topic, "/")+1:] }

func refuseFIFO(topic string) error {
	if strings.HasSuffix(topic, ".fifo") {
		return fmt.Errorf("%s %w", topic, ErrFIFO)
	}
	return nil
}
