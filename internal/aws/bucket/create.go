package bucket

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// firstRegion is where S3 creates a bucket that names no region, and the one region
// that it does not want named.
const firstRegion = "us-east-1"

// makeBucket creates the bucket. Another worker may have been faster.
func (b *Bucket) makeBucket(ctx context.Context) error {
	in := &s3.CreateBucketInput{Bucket: &b.name}
	if region := b.client.Options().Region; region != firstRegion {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err := b.client.CreateBucket(ctx, in, b.begin(ctx, answerTime).option)
	if err == nil || isCode(err, "BucketAlreadyOwnedByYou") {
		return nil
	}
	return b.explain(ctx, "s3:CreateBucket", err)
}
