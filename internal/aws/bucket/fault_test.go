package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

// first is a fault of the first n requests.
func first(n int, f fault) fault {
	return func(p *proxy, w http.ResponseWriter, r *http.Request, i int) bool {
		return i <= n && f(p, w, r, i)
	}
}

func lost(carriedOut bool) fault {
	return func(p *proxy, _ http.ResponseWriter, r *http.Request, _ int) bool {
		p.cut(r, carriedOut)
		return true
	}
}

func refusal(status int, code string, header ...string) fault {
	return func(_ *proxy, w http.ResponseWriter, r *http.Request, _ int) bool {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
		return answer(w, status, code, header...)
	}
}

// behindProxy is an empty bucket with a proxy before it.
func behindProxy(t *testing.T, o bucket.Options) (*bucket.Bucket, *proxy, string) {
	t.Helper()
	p := startProxy(t)
	name := create(t, connect(t, gateway(t), true))
	return bucket.Open(connect(t, p.URL, true), name, o), p, name
}

func TestPutOutlastsFaults(t *testing.T) {
	t.Parallel()
	content := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)) // so that much of it is read before the fault
	for name, f := range map[string]fault{
		"answer lost":    first(1, lost(true)),
		"request lost":   first(2, lost(false)),
		"overloaded":     first(2, refusal(http.StatusServiceUnavailable, "SlowDown")),
		"internal":       first(1, refusal(http.StatusInternalServerError, "InternalError")),
		"two at once":    first(1, refusal(http.StatusConflict, "ConditionalRequestConflict")),
		"bad gateway":    first(1, refusal(http.StatusBadGateway, "")),
		"lost and again": first(3, lost(true)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, p, bucketName := behindProxy(t, bucket.Options{})
			client := connect(t, gateway(t), true)
			c := deploy.Condition{Absent: true}
			for _, content := range []string{content + "1", content + "2"} {
				p.arm(f)
				etag, err := b.Put(t.Context(), deploytest.Object("a.txt", content), strings.NewReader(content), c)
				if err != nil {
					t.Fatal(err)
				}
				got, body, there := get(t, client, bucketName, "a.txt")
				if !there || string(body) != content || got.ETag != etag {
					t.Errorf("holds %d bytes with ETag %s, want %d with %s", len(body), got.ETag, len(content), etag)
				}
				c = deploy.Condition{ETag: etag}
			}
		})
	}
}

// A repeated upload takes only what it brought for its own.
func TestPutWhoseAnswerIsLostAndSomebodyCame(t *testing.T) {
	for name, theirs := range map[string]deploy.Object{
		"other content": deploytest.Object("a.txt", "theirs"),
		"other headers": func() deploy.Object {
			o := deploytest.Object("a.txt", "ours")
			o.CacheControl = "no-store"
			return o
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			b, p, name := behindProxy(t, bucket.Options{})
			content := map[int64]string{6: "theirs", 4: "ours"}[theirs.Size]
			direct := bucket.Open(connect(t, gateway(t), true), name, bucket.Options{})
			p.arm(first(1, func(p *proxy, _ http.ResponseWriter, r *http.Request, _ int) bool {
				if _, err := direct.Put(t.Context(), theirs, strings.NewReader(content), deploy.Condition{}); err != nil {
					t.Error(err)
				}
				p.cut(r, false)
				return true
			}))
			_, err := b.Put(t.Context(), deploytest.Object("a.txt", "ours"), strings.NewReader("ours"), deploy.Condition{Absent: true})
			if !errors.Is(err, deploy.ErrPrecondition) {
				t.Errorf("got %v, want ErrPrecondition", err)
			}
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
		want  []string
	}{
		{"denied", refusal(http.StatusForbidden, "AccessDenied"), []string{"S3 denies ACTION in bucket", "allow it in the policies", "request R1"}},
		{"missing", refusal(http.StatusNotFound, "NoSuchBucket"), []string{"does not exist", "S3_BUCKET_PATTERN"}},
		{
			"redirected", refusal(http.StatusMovedPermanently, "PermanentRedirect", "X-Amz-Bucket-Region", "eu-west-1"),
			[]string{"is in region eu-west-1", `works in "us-east-1"`, "set AWS_REGION to eu-west-1"},
		},
		{
			"signed for another region", refusal(http.StatusBadRequest, "AuthorizationHeaderMalformed", "X-Amz-Bucket-Region", "eu-west-1"),
			[]string{"set AWS_REGION to eu-west-1"},
		},
		{"another region, unnamed", refusal(http.StatusBadRequest, "AuthorizationHeaderMalformed"), []string{`is not in the region "us-east-1"`}},
		{"stale credentials", refusal(http.StatusBadRequest, "ExpiredToken"), []string{"credentials (ExpiredToken)"}},
		{"what nobody foresaw", refusal(http.StatusBadRequest, "EntityTooLarge"), []string{"S3 answered EntityTooLarge to ACTION", "request R1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, p, _ := behindProxy(t, bucket.Options{})
			for action, do := range calls(b) {
				p.arm(tt.fault)
				err := do(t.Context())
				if _, known := errors.AsType[*bucket.Error](err); !known {
					t.Errorf("%s: got %v, want *bucket.Error", action, err)
					continue
				}
				for _, want := range tt.want {
					if want = strings.ReplaceAll(want, "ACTION", action); !strings.Contains(err.Error(), want) {
						t.Errorf("%s: %q does not say %q", action, err, want)
					}
				}
				if n := len(p.seen()); n != 1 {
					t.Errorf("%s: %d requests for what no repetition helps", action, n)
				}
			}
		})
	}
}

// calls are the calls of a bucket by what IAM calls them.
func calls(b *bucket.Bucket) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"s3:ListBucket": func(ctx context.Context) error {
			_, err := b.List(ctx)
			return err
		},
		"s3:PutObject": func(ctx context.Context) error {
			_, err := b.Put(ctx, deploytest.Object("a", "1"), strings.NewReader("1"), deploy.Condition{})
			return err
		},
		"s3:DeleteObject": func(ctx context.Context) error { return b.Delete(ctx, "a", "b") },
	}
}

// The store itself says so too.
func TestErrorsOfTheStore(t *testing.T) {
	client := connect(t, gateway(t), true)
	for action, do := range calls(bucket.Open(client, "edit.nobody.example.com", bucket.Options{})) {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), `bucket "edit.nobody.example.com" does not exist`) {
			t.Errorf("%s in a missing bucket: %v", action, err)
		}
	}
	name := create(t, client)
	stranger := connectWith(t, gateway(t), true, "wrong")
	for action, do := range calls(bucket.Open(stranger, name, bucket.Options{})) {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), "does not accept the worker's credentials (SignatureDoesNotMatch)") {
			t.Errorf("%s with a wrong secret: %v", action, err)
		}
	}
}

func TestPatienceEnds(t *testing.T) {
	b, p, _ := behindProxy(t, bucket.Options{Patience: 300 * time.Millisecond})
	p.arm(refusal(http.StatusServiceUnavailable, "SlowDown"))
	for action, do := range calls(b) {
		err := do(t.Context())
		if err == nil || !strings.Contains(err.Error(), "S3 answered SlowDown to "+action) {
			t.Errorf("%s: %v", action, err)
		}
	}
	if n := len(p.seen()); n < 6 || n > 15 {
		t.Errorf("%d requests, want some tries of each call", n)
	}
	p.arm(lost(false))
	if _, err := b.List(t.Context()); err == nil || !strings.Contains(err.Error(), "S3 cannot be reached") {
		t.Errorf("without a connection: %v", err)
	}
}

// Keys that fail within an answer that says 200.
func TestDeleteOfSomeKeysFails(t *testing.T) {
	result := func(code string) fault {
		return func(_ *proxy, w http.ResponseWriter, r *http.Request, _ int) bool {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
			_, _ = fmt.Fprintf(w, "<DeleteResult><Error><Key>b</Key><Code>%s</Code><Message>m</Message></Error></DeleteResult>", code)
			return true
		}
	}
	b, p, name := behindProxy(t, bucket.Options{})
	client := connect(t, gateway(t), true)
	fill := func() {
		for _, key := range []string{"a", "b"} {
			if _, err := b.Put(t.Context(), deploytest.Object(key, "1"), strings.NewReader("1"), deploy.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	p.arm(first(2, result("SlowDown"))) // repeated for b alone
	if err := b.Delete(t.Context(), "a", "b"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, _, there := get(t, client, name, "b"); there || len(p.seen()) != 3 {
		t.Errorf("b is there: %t, after %d requests", there, len(p.seen()))
	}
	p.arm(result("AccessDenied"))
	err := b.Delete(t.Context(), "a", "b")
	if err == nil || !strings.Contains(err.Error(), `S3 denies s3:DeleteObject in bucket "`+name+`" for 1 of 2 objects, the first is "b"`) {
		t.Errorf("delete: %v", err)
	}
}

// Deletes go by the thousand; a key that XML cannot hold goes alone. The answers are short,
// as those of S3 are: the SDK may break the connection of a long one, and ask again.
func TestDeleteGoesInBatches(t *testing.T) {
	b, p, _ := behindProxy(t, bucket.Options{})
	keys := []string{"control\x01"}
	for i := range 2001 {
		keys = append(keys, fmt.Sprint(i))
	}
	var got []string
	p.arm(func(_ *proxy, w http.ResponseWriter, r *http.Request, _ int) bool {
		body, err := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s of %d", r.Method, bytes.Count(body, []byte("<Key>"))))
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, "<DeleteResult></DeleteResult>")
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		return err == nil
	})
	if err := b.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"DELETE of 0", "POST of 1000", "POST of 1000", "POST of 1"}, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	b, p, _ := behindProxy(t, bucket.Options{})
	errEnded := errors.New("lease lost")
	for action, do := range calls(b) {
		ctx, cancel := context.WithCancelCause(t.Context())
		p.arm(func(_ *proxy, _ http.ResponseWriter, r *http.Request, _ int) bool {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
			cancel(errEnded)
			<-r.Context().Done()
			return true
		})
		if err := do(ctx); !errors.Is(err, errEnded) {
			t.Errorf("%s: got %v, want the cause", action, err)
		}
	}
}

// line is a network in memory.
type line func(*http.Request) (*http.Response, error)

func (l line) Do(r *http.Request) (*http.Response, error) { return l(r) }

func offline(l line) *bucket.Bucket {
	client := bucket.NewClient(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "secret", ""), HTTPClient: l,
	}, false)
	return bucket.Open(client, "edit.amelia.example.com", bucket.Options{})
}

func ok(r *http.Request) *http.Response {
	h := http.Header{"Etag": {`"e"`}}
	return &http.Response{StatusCode: http.StatusOK, Header: h, Body: io.NopCloser(strings.NewReader("<R/>")), Request: r}
}

// An outage of a minute fails no call, however it shows; one that does not end
// fails it in bounded time and with a bounded number of tries.
func TestOutages(t *testing.T) {
	for name, fail := range map[string]line{
		"refused": func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		},
		"silent": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"overloaded": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
		},
	} {
		for _, lasts := range []time.Duration{time.Minute, 24 * time.Hour} {
			t.Run(name+" for "+lasts.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began, tries := time.Now(), 0
					b := offline(func(r *http.Request) (*http.Response, error) {
						tries++
						if time.Since(began) < lasts {
							return fail(r)
						}
						return ok(r), nil
					})
					for action, do := range calls(b) {
						began, tries = time.Now(), 0
						err := do(t.Context())
						if over := lasts > time.Minute; over != (err != nil) {
							t.Errorf("%s: %v", action, err)
						}
						if took := time.Since(began); took > 2*time.Minute || tries > 40 {
							t.Errorf("%s took %s and %d tries", action, took, tries)
						}
					}
				})
			})
		}
	}
}

// S3 has no certificate for a host whose first label has dots.
func TestHosts(t *testing.T) {
	for _, tt := range []struct {
		name      string
		pathStyle bool
		want      string
	}{
		{"edit.amelia.example.com", false, "https://s3.us-east-1.amazonaws.com/edit.amelia.example.com/a"},
		{"amelia", false, "https://amelia.s3.us-east-1.amazonaws.com/a"},
		{"amelia", true, "https://s3.us-east-1.amazonaws.com/amelia/a"},
	} {
		got := ""
		client := bucket.NewClient(aws.Config{
			Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "secret", ""),
			HTTPClient: line(func(r *http.Request) (*http.Response, error) {
				got = "https://" + r.URL.Host + r.URL.Path
				if r.Header.Get("X-Amz-Content-Sha256") != deploytest.Object("a", "1").SHA256 {
					t.Errorf("the payload's hash is %q", r.Header.Get("X-Amz-Content-Sha256"))
				}
				if r.ContentLength != 1 || r.Header.Get("X-Amz-Checksum-Sha256") == "" {
					t.Errorf("length %d, headers %v", r.ContentLength, r.Header)
				}
				return ok(r), nil
			}),
		}, tt.pathStyle)
		_, err := bucket.Open(client, tt.name, bucket.Options{}).
			Put(t.Context(), deploytest.Object("a", "1"), strings.NewReader("1"), deploy.Condition{})
		if err != nil || got != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.name, got, err, tt.want)
		}
	}
}
