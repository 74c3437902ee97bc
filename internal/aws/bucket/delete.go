package bucket

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

const deleteBatch = 1000 // keys in one request, as S3 has it

// deleteError is that of keys within a request that was answered.
type deleteError struct {
	key        string // the first
	failed, of int
	err        error // of the first
}

func (e *deleteError) Error() string {
	return fmt.Sprintf("%d of %d objects, the first is %q: %v", e.failed, e.of, e.key, e.err)
}

func (e *deleteError) Unwrap() error { return e.err }

// Delete implements deploy.Bucket. Its errors are *Error; one names the first
// key that was refused, and how many were.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	var several []string
	for _, key := range keys {
		if isXML(key) {
			several = append(several, key)
			continue
		}
		_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}, b.begin(ctx, answerTime).option)
		if err != nil {
			return b.explain(ctx, "s3:DeleteObject", err)
		}
	}
	for batch := range slices.Chunk(several, deleteBatch) {
		if err := b.deleteBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// deleteBatch repeats the keys that S3 was too busy for.
func (b *Bucket) deleteBatch(ctx context.Context, keys []string) error {
	call := b.begin(ctx, answerTime)
	for try := 1; ; try++ {
		failed, err := b.deleteOnce(ctx, keys, call)
		if err != nil {
			return b.explain(ctx, "s3:DeleteObject", err)
		}
		if len(failed) == 0 {
			return nil
		}
		first := failed[0]
		err = &deleteError{
			key: aws.ToString(first.Key), failed: len(failed), of: len(keys),
			err: &smithy.GenericAPIError{Code: aws.ToString(first.Code), Message: aws.ToString(first.Message)},
		}
		if !call.IsErrorRetryable(err) {
			return b.explain(ctx, "s3:DeleteObject", err)
		}
		if err := wait(ctx, backoff(try)); err != nil {
			return err
		}
		keys = keys[:0:0]
		for _, f := range failed {
			keys = append(keys, aws.ToString(f.Key))
		}
	}
}

func (b *Bucket) deleteOnce(ctx context.Context, keys []string, call *call) ([]types.Error, error) {
	in := &s3.DeleteObjectsInput{Bucket: &b.name, Delete: &types.Delete{Quiet: aws.Bool(true)}}
	for _, key := range keys {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: aws.String(key)})
	}
	out, err := b.client.DeleteObjects(ctx, in, call.option)
	if err != nil {
		return nil, err
	}
	return out.Errors, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
