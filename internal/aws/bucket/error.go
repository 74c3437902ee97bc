package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Error is why a bucket could not be used, in words for whoever runs the worker.
type Error struct {
	Reason string // what is wrong, and what to do about it
	Err    error  // what the SDK says
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain puts the failure of an action into words. That a context ended needs
// none.
func (b *Bucket) explain(ctx context.Context, action string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", action, context.Cause(ctx))
	}
	return &Error{Reason: b.reason(action, err), Err: err}
}

func (b *Bucket) reason(action string, err error) string {
	status, region := statusOf(err), b.otherRegion(err)
	var unsent *smithyhttp.RequestSendError
	switch {
	case isCode(err, "NoSuchBucket"):
		return fmt.Sprintf("bucket %q does not exist: create it, or correct S3_BUCKET_PATTERN", b.name)
	case region != "":
		return fmt.Sprintf("bucket %q is in region %s, but the worker works in %q: set AWS_REGION to %s", b.name, region, b.client.Options().Region, region)
	case isCode(err, "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
		return fmt.Sprintf("bucket %q is not in the region %q: set AWS_REGION to the bucket's", b.name, b.client.Options().Region)
	case isCode(err, "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "ExpiredTokenException"):
		return fmt.Sprintf("S3 does not accept the worker's credentials (%s): renew them%s", codeOf(err), requestOf(err))
	case isCode(err, "AccessDenied", "AllAccessDisabled"), status == http.StatusForbidden:
		return fmt.Sprintf("S3 denies %s in bucket %q%s: allow it in the policies of the worker's role and of the bucket, "+
			"and the use of its key if it is encrypted with one%s", action, b.name, subject(err), requestOf(err))
	case errors.Is(err, errSlow):
		return fmt.Sprintf("S3 gave no answer to %s in bucket %q for %s", action, b.name, b.patience)
	case errors.As(err, &unsent):
		return fmt.Sprintf("S3 cannot be reached for %s in bucket %q: %v", action, b.name, unsent.Err)
	case codeOf(err) != "":
		return fmt.Sprintf("S3 answered %s to %s in bucket %q%s%s", codeOf(err), action, b.name, subject(err), requestOf(err))
	}
	return fmt.Sprintf("%s in bucket %q: %v", action, b.name, err)
}

// otherRegion is where S3 says that the bucket is, if it says so in refusing a
// request that went elsewhere.
func (b *Bucket) otherRegion(err error) string {
	var r *awshttp.ResponseError
	if !errors.As(err, &r) || r.Response == nil {
		return ""
	}
	region := r.Response.Header.Get("X-Amz-Bucket-Region")
	if region == b.client.Options().Region {
		return ""
	}
	return region
}

// subject names the key that was refused, among several.
func subject(err error) string {
	var d *deleteError
	if !errors.As(err, &d) {
		return ""
	}
	return fmt.Sprintf(" for %d of %d objects, the first is %q", d.failed, d.of, d.key)
}

// requestOf is what S3's support asks for.
func requestOf(err error) string {
	var r *awshttp.ResponseError
	if !errors.As(err, &r) || r.RequestID == "" {
		return ""
	}
	return " (request " + r.RequestID + ")"
}

func codeOf(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	return api.ErrorCode()
}

func isCode(err error, codes ...string) bool { return slices.Contains(codes, codeOf(err)) }

// statusOf is the HTTP status that S3 answered with, or 0.
func statusOf(err error) int {
	var r *smithyhttp.ResponseError
	if !errors.As(err, &r) {
		return 0
	}
	return r.HTTPStatusCode()
}
