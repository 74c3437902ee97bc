package emulators_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

func newBucket(t *testing.T) (*s3.Client, string) {
	t.Helper()
	s, name := emulators.Shared(t), "edit."+emulators.Unique(t, "amelia")+".webordinary.com"
	s.CreateBucket(t, name)
	return s.S3Client(t), name
}

func put(t *testing.T, client *s3.Client, in *s3.PutObjectInput, body string) (etag, code string) {
	t.Helper()
	in.Body = strings.NewReader(body)
	out, err := client.PutObject(t.Context(), in)
	var api smithy.APIError
	switch {
	case errors.As(err, &api):
		return "", api.ErrorCode()
	case err != nil:
		t.Fatal(err)
	}
	return *out.ETag, ""
}

func TestPutHonoursPreconditions(t *testing.T) {
	client, bucket := newBucket(t)
	key := aws.String("page/index.html")
	first, code := put(t, client, &s3.PutObjectInput{Bucket: &bucket, Key: key, IfNoneMatch: aws.String("*")}, "one")
	if code != "" {
		t.Fatalf("the first put: %s", code)
	}
	if _, code := put(t, client, &s3.PutObjectInput{Bucket: &bucket, Key: key, IfNoneMatch: aws.String("*")}, "two"); code != "PreconditionFailed" {
		t.Errorf("If-None-Match on what is there: %q", code)
	}
	second, code := put(t, client, &s3.PutObjectInput{Bucket: &bucket, Key: key, IfMatch: &first}, "two")
	if code != "" || second == first {
		t.Errorf("If-Match of what is there: %q", code)
	}
	if _, code := put(t, client, &s3.PutObjectInput{Bucket: &bucket, Key: key, IfMatch: &first}, "three"); code != "PreconditionFailed" {
		t.Errorf("If-Match of what was there: %q", code)
	}
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close() //nolint:errcheck // it is read to its end
	if b, err := io.ReadAll(out.Body); err != nil || string(b) != "two" {
		t.Errorf("the object is %q (%v)", b, err)
	}
}

func TestPutRefusesAWrongChecksum(t *testing.T) {
	client, bucket := newBucket(t)
	_, code := put(t, client, &s3.PutObjectInput{
		Bucket: &bucket, Key: aws.String("index.html"),
		ChecksumSHA256: aws.String("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
	}, "hello")
	if code == "" {
		t.Error("a wrong checksum was taken")
	}
	if _, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("index.html")}); err == nil {
		t.Error("the object is there")
	}
}

func TestRefusesAWrongSecret(t *testing.T) {
	_, bucket := newBucket(t)
	s := emulators.Shared(t)
	client := s3.New(s.S3Client(t).Options(), func(o *s3.Options) {
		o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: emulators.AccessKey, SecretAccessKey: "wrong"}, nil
		})
	})
	if _, code := put(t, client, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k")}, "x"); code != "SignatureDoesNotMatch" {
		t.Errorf("code %q", code)
	}
}

func TestWebsiteByHost(t *testing.T) {
	client, bucket := newBucket(t)
	for key, body := range map[string]string{"index.html": "home", "menu/index.html": "menu", "404.html": "lost"} {
		in := &s3.PutObjectInput{Bucket: &bucket, Key: &key, ContentType: aws.String("text/html; charset=utf-8"), CacheControl: aws.String("max-age=60")}
		if _, code := put(t, client, in, body); code != "" {
			t.Fatal(code)
		}
	}
	s := emulators.Shared(t)
	for path, want := range map[string]string{"/": "200 home", "/menu/": "200 menu", "/nothing": "404 lost"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Website+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = bucket
		res, err := s.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close() //nolint:errcheck // it was read to its end
		if got := res.Status[:4] + string(body); err != nil || got != want {
			t.Errorf("%s: %q (%v), want %q", path, got, err, want)
		}
		if got := res.Header.Get("Content-Type"); res.StatusCode == http.StatusOK && got != "text/html; charset=utf-8" {
			t.Errorf("%s has type %q", path, got)
		}
	}
}
