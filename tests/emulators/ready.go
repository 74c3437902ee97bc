package emulators

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// readiness asks an emulator something that only it answers like this: that
// somebody accepts connections says nothing.
type readiness func(*Set, context.Context) error

// await returns when an emulator is ready.
func (s *Set) await(ctx context.Context, c *child) error {
	again := time.NewTicker(30 * time.Millisecond)
	defer again.Stop()
	for {
		err := c.ready(s, ctx)
		if ended := c.ended(); ended != nil {
			return ended
		}
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("emulator of %s: %w: %w%s", c.name, context.Cause(ctx), err, c.logTail())
		}
	}
}

// once is a configuration without the SDK's own patience.
func (s *Set) once() aws.Config {
	cfg := s.Config()
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return cfg
}

// strangers says that what answered holds something already.
func strangers(n int) error {
	if n > 0 {
		return errors.New("somebody else's emulator answered")
	}
	return nil
}

func (s *Set) sqsReady(ctx context.Context) error {
	out, err := sqs.NewFromConfig(s.once(), s.sqsOptions).ListQueues(ctx, &sqs.ListQueuesInput{})
	if err != nil {
		return err
	}
	return strangers(len(out.QueueUrls))
}

func (s *Set) dynamoDBReady(ctx context.Context) error {
	out, err := dynamodb.NewFromConfig(s.once(), s.dynamoDBOptions).ListTables(ctx, &dynamodb.ListTablesInput{})
	if err != nil {
		return err
	}
	return strangers(len(out.TableNames))
}

func (s *Set) s3Ready(ctx context.Context) error {
	out, err := s3.NewFromConfig(s.once(), s.s3Options).ListBuckets(ctx, &s3.ListBucketsInput{})
	if err != nil {
		return err
	}
	if err := strangers(len(out.Buckets)); err != nil {
		return err
	}
	return s.websiteReady(ctx)
}

func (s *Set) websiteReady(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Website, http.NoBody)
	if err != nil {
		return err
	}
	req.Host = "no-such-bucket.invalid"
	res, err := s.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // its header is all we want
	if code := res.Header.Get("X-Amz-Error-Code"); code != "NoSuchBucket" {
		return fmt.Errorf("the website answered %s %q", res.Status, code)
	}
	return nil
}
