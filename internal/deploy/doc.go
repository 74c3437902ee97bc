// Package deploy makes a bucket hold a built site, so that at every moment
// every page served finds the style sheets, scripts and images it names.
//
// Sync does it in three steps: Scan reads the build and refuses what must never
// be public; Plan, a pure function, compares it with what the bucket holds; then
// the changes are made phase by phase, each complete before the next begins:
//
//	hashed assets → other files → pages → delete pages → delete the rest
//
// Hashed assets (_astro/name.HASH.ext) have their content in their name, so old
// and new ones live side by side, and those of earlier builds stay for a while:
// a page opened before the deploy keeps working. Files are compared by the hash
// of their content, never by time (a rebuild touches all of them) nor by size (a
// changed CSS class often keeps it).
//
// A bucket need not know the hashes and headers of what it holds: S3 tells
// neither in a listing. So Sync returns a State, what the bucket holds as far as
// we know, for the next Sync. If nobody else wrote to the bucket since, it stands
// in for a listing; else it still tells which listed objects are those we put.
// It lies outside of the bucket, may be lost, and a stale one harms nothing: each
// upload is conditional on what is remembered of the object that it replaces.
package deploy

import (
	"context"
	"errors"
	"io"
	"time"
)

// The codes of an Error.
const (
	// CodeRefused means that the build holds something that is not deployed.
	// Nothing was uploaded; the same build is refused again.
	CodeRefused = "deploy_refused"
	// CodeFailed means that the bucket or the disk failed. The next Sync makes
	// good whatever this one left half done.
	CodeFailed = "deploy_failed"
)

// Error is why a deploy did not happen or did not finish.
type Error struct {
	Code    string // CodeRefused or CodeFailed
	Message string // for a person: what, and which file
	Err     error  // the cause, may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrPrecondition is what a Bucket's Put returns, possibly wrapped, when the
// object is not in the state that the Condition asks for.
var ErrPrecondition = errors.New("the object was changed by somebody else")

// ErrContent is what a Bucket's Put returns, possibly wrapped, when the body is
// not the content that the Object announces.
var ErrContent = errors.New("the content is not what was announced")

// Object is an object of a bucket.
type Object struct {
	Key    string // a slash-separated relative path
	Size   int64  // bytes
	SHA256 string // of the content, lower-case hex; empty in a List that does not know it
	// ETag is opaque, for conditions. Content is recognised by one that is its
	// MD5 in hex, maybe in quotes. Not read by Put.
	ETag string
	// ContentType and CacheControl are the headers it is served with; empty in
	// a List that does not know them.
	ContentType  string
	CacheControl string
	Modified     time.Time // when it was last put; not read by Put
}

// Condition is what must hold of the present object for a Put to happen. The
// zero value asks for nothing.
type Condition struct {
	ETag   string // the object exists and has this ETag (If-Match)
	Absent bool   // there is no such object (If-None-Match: *)
}

// Bucket is where a site is served from.
//
// All methods may be called concurrently. An implementation retries what is
// worth retrying within the call, and returns soon after ctx ended. What a
// returned Put or Delete did is seen by every List that begins afterwards. A
// Bucket belongs to its caller; Sync neither opens nor closes one.
type Bucket interface {
	// List returns all objects, in no particular order.
	List(ctx context.Context) ([]Object, error)
	// Put creates or replaces an object, all or nothing, and returns its new
	// ETag. It reads body from its present position, and seeks back there for
	// another try; it refuses with ErrContent what does not have o's Size and
	// SHA256, and with ErrPrecondition if c does not hold. After any other
	// error the object may have been put.
	Put(ctx context.Context, o Object, body io.ReadSeeker, c Condition) (etag string, err error)
	// Delete removes objects; one that does not exist is no error. After an
	// error some may have been removed.
	Delete(ctx context.Context, keys ...string) error
}
