// Package bucket is deploy.Bucket in S3, or in a store that speaks like it.
//
// What S3 knows of content: an upload carries its SHA-256, computed when the
// build was read, as signed payload hash and as checksum; S3 refuses a body that
// differs, so no file is read twice. A listing shows no such hash, and an ETag
// that is an MD5 only if the object was put in one part without a KMS key; what
// an ETag proves is for package deploy to say.
//
// Answers get lost: a conditional upload that had no answer is repeated, and its
// own first try makes the condition fail. So before a repeated upload reports
// that somebody else was there, it looks whether the object is what it brought.
package bucket

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/webordinary/claude-code-container/internal/deploy"
)

// Bucket is one bucket. Its zero value is not usable; see Open.
type Bucket struct {
	client   *s3.Client
	name     string
	patience time.Duration
	create   bool
	retryer  aws.RetryerV2
}

// Options of a Bucket.
type Options struct {
	// Patience is how long a call is repeated that fails as an outage makes it
	// fail; zero means 90 s, which outlasts an outage of a minute.
	Patience time.Duration
	// Create makes List create a bucket that is missing, private and in the
	// client's region.
	Create bool
}

// Open returns the bucket of that name. It makes no request. The client is the
// caller's; its own retries are replaced.
func Open(client *s3.Client, name string, o Options) *Bucket {
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	return &Bucket{client: client, name: name, patience: o.Patience, create: o.Create, retryer: newRetryer()}
}

var _ deploy.Bucket = (*Bucket)(nil)

// List implements deploy.Bucket. Neither hashes nor headers are known. Its errors
// are *Error.
func (b *Bucket) List(ctx context.Context) ([]deploy.Object, error) {
	objects, err := b.list(ctx)
	if b.create && isCode(err, "NoSuchBucket") {
		return nil, b.makeBucket(ctx)
	}
	return objects, err
}

func (b *Bucket) list(ctx context.Context) ([]deploy.Object, error) {
	var objects []deploy.Object
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{
		Bucket: &b.name, EncodingType: types.EncodingTypeUrl, // XML cannot hold every key
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx, b.begin(ctx, answerTime).option)
		if err != nil {
			return nil, b.explain(ctx, "s3:ListBucket", err)
		}
		for i := range page.Contents {
			o, err := describe(&page.Contents[i], page.EncodingType)
			if err != nil {
				return nil, b.explain(ctx, "s3:ListBucket", err)
			}
			objects = append(objects, o)
		}
	}
	return objects, nil
}

func describe(o *types.Object, encoding types.EncodingType) (deploy.Object, error) {
	key := aws.ToString(o.Key)
	if encoding == types.EncodingTypeUrl {
		plain, err := url.QueryUnescape(key)
		if err != nil {
			return deploy.Object{}, fmt.Errorf("read the listed key %q: %w", key, err)
		}
		key = plain
	}
	return deploy.Object{Key: key, Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified)}, nil
}

// Put implements deploy.Bucket. Its errors are *Error, or wrap
// deploy.ErrPrecondition or deploy.ErrContent.
func (b *Bucket) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	in, err := b.upload(o, body, c)
	if err != nil {
		return "", err
	}
	call := b.begin(ctx, answerTime+time.Duration(o.Size)*time.Second/slowestUpload)
	out, err := b.client.PutObject(ctx, in, call.option, payloadHash(o.SHA256))
	switch status := statusOf(err); {
	case err == nil:
		return aws.ToString(out.ETag), nil
	case isCode(err, "BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "XAmzContentChecksumMismatch"):
		return "", fmt.Errorf("write %q: %w", o.Key, deploy.ErrContent)
	case status == http.StatusPreconditionFailed, c.ETag != "" && isCode(err, "NoSuchKey"):
		if call.tries > 1 {
			if etag, ours := b.holds(ctx, o); ours {
				return etag, nil
			}
		}
		return "", fmt.Errorf("write %q: %w", o.Key, deploy.ErrPrecondition)
	}
	return "", b.explain(ctx, "s3:PutObject", err)
}

func (b *Bucket) upload(o deploy.Object, body io.ReadSeeker, c deploy.Condition) (*s3.PutObjectInput, error) {
	size, err := remaining(body)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", o.Key, err)
	}
	if size != o.Size {
		return nil, fmt.Errorf("write %q: %w: it has %d bytes, not %d", o.Key, deploy.ErrContent, size, o.Size)
	}
	sum, err := checksum(o)
	if err != nil {
		return nil, err
	}
	in := &s3.PutObjectInput{
		Bucket: &b.name, Key: &o.Key, Body: body, ContentLength: &size, ChecksumSHA256: &sum,
		ContentType: &o.ContentType, CacheControl: &o.CacheControl,
	}
	if c.ETag != "" {
		in.IfMatch = &c.ETag
	}
	if c.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	return in, nil
}

// remaining is how many bytes are left of a body. It stays where it was.
func remaining(body io.Seeker) (int64, error) {
	at, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	_, err = body.Seek(at, io.SeekStart)
	return end - at, err
}

// checksum is the SHA-256 of an object as S3 writes it.
func checksum(o deploy.Object) (string, error) {
	sum, err := hex.DecodeString(o.SHA256)
	if err != nil {
		return "", fmt.Errorf("hash of %q: %w", o.Key, err)
	}
	return base64.StdEncoding.EncodeToString(sum), nil
}

// payloadHash spares the SDK a look at the body: what is to be signed is known.
func payloadHash(sum string) func(*s3.Options) {
	known := middleware.InitializeMiddlewareFunc("KnownPayloadHash", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(v4.SetPayloadHash(ctx, sum), in)
	})
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
			return s.Initialize.Add(known, middleware.Before)
		})
	}
}

// holds reports whether the bucket holds just this object, and its ETag.
func (b *Bucket) holds(ctx context.Context, o deploy.Object) (etag string, ours bool) {
	sum, err := checksum(o)
	if err != nil {
		return "", false
	}
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &b.name, Key: &o.Key, ChecksumMode: types.ChecksumModeEnabled,
	}, b.begin(ctx, answerTime).option)
	if err != nil {
		return "", false // then the caller looks at the whole bucket
	}
	return aws.ToString(out.ETag), aws.ToInt64(out.ContentLength) == o.Size && aws.ToString(out.ChecksumSHA256) == sum &&
		aws.ToString(out.ContentType) == o.ContentType && aws.ToString(out.CacheControl) == o.CacheControl
}

// isXML reports whether a key can be named in XML, as a request that deletes
// several objects does.
func isXML(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool {
		return r < ' ' || r == '\uFFFD' || r == '\uFFFE' || r == '\uFFFF'
	})
}
