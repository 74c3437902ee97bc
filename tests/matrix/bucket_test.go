package matrix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/platform"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// keys lists the project's bucket.
func (w *world) keys() []string {
	w.t.Helper()
	out, err := w.Set.S3Client(w.t).ListObjectsV2(w.t.Context(), &s3.ListObjectsV2Input{Bucket: &w.j.Bucket})
	if err != nil {
		w.t.Fatal(err)
	}
	var keys []string
	for _, o := range out.Contents {
		keys = append(keys, aws.ToString(o.Key))
	}
	slices.Sort(keys)
	return keys
}

func (w *world) put(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		_, err := w.Set.S3Client(w.t).PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: &w.j.Bucket, Key: &key, Body: strings.NewReader("old")})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) deleteBucket() {
	w.t.Helper()
	if _, err := w.Set.S3Client(w.t).DeleteBucket(w.t.Context(), &s3.DeleteBucketInput{Bucket: &w.j.Bucket}); err != nil {
		w.t.Fatal(err)
	}
}

// built are the keys of the site, besides its hashed assets.
func built(more ...string) []string {
	keys := append([]string{"about/index.html", "index.html", "robots.txt"}, more...)
	slices.Sort(keys)
	return keys
}

func isAsset(key string) bool { return strings.HasPrefix(key, "_astro/") }

// bucketMissing keeps the work, and deploys it when there is a bucket.
func bucketMissing(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second, Env: []string{once}})
	w.deleteBucket()
	w.StartWorker()
	first := w.Command(w.j, "1", site.Add{})
	out := w.do(first)
	w.failed(out, protocol.DeployFailed, fmt.Sprintf("bucket %q does not exist", w.j.Bucket))
	if !out.BuildSuccess || out.DeploySuccess {
		t.Errorf("answer %+v", out)
	}
	w.holds("thread-1", first)
	d := w.dead()
	w.Set.CreateBucket(t, w.j.Bucket)
	w.redrive(w.j, d)
	if out := w.answer(first, 2); !out.Success || !out.DeploySuccess || out.Attempt != 2 {
		t.Errorf("with a bucket: %+v", out)
	}
	if !w.shows(first) {
		t.Error("the site is not live")
	}
	second := w.Command(w.j, "1", site.Add{})
	w.well(second)
	w.holds("thread-1", first, second)
}

// bucketCreated is for local use.
func bucketCreated(t *testing.T) {
	w := newWorld(t, platform.Options{})
	w.deleteBucket()
	w.StartWorker("CREATE_RESOURCES=true")
	if out := w.well(w.Command(w.j, "1", site.Add{})); !out.DeploySuccess {
		t.Errorf("answer %+v", out)
	}
	if d := cmp.Diff(built(), slices.DeleteFunc(w.keys(), isAsset)); d != "" {
		t.Errorf("the new bucket (-want +got):\n%s", d)
	}
}

// staleFiles of somebody before us, of a page that is no more, and hashed assets
// after their time, are removed; an asset in its time is not.
func staleFiles(t *testing.T) {
	w := newWorld(t, platform.Options{Idle: 10 * time.Second, Env: []string{"ASSET_GRACE=3s"}})
	w.put("old.html", "blog/index.html", "robots.txt")
	w.StartWorker()
	w.well(w.Command(w.j, "1", site.Add{}))
	if d := cmp.Diff(built(), slices.DeleteFunc(w.keys(), isAsset)); d != "" {
		t.Errorf("after the first deploy (-want +got):\n%s", d)
	}
	first := slices.DeleteFunc(w.keys(), func(k string) bool { return !isAsset(k) })

	w.Git.Commit(t, w.j.Repo, "thread-1", "a sale", map[string]string{"public/sale/index.html": "Sale"})
	w.well(w.Command(w.j, "1", site.Add{}))
	second := w.keys()
	if d := cmp.Diff(built("sale/index.html"), slices.DeleteFunc(slices.Clone(second), isAsset)); d != "" {
		t.Errorf("with a page more (-want +got):\n%s", d)
	}
	if len(first) != 1 || !slices.Contains(second, first[0]) {
		t.Errorf("the page that somebody has open lost its asset %v", first)
	}

	platform.Wait(3 * time.Second)
	w.Git.Commit(t, w.j.Repo, "thread-1", "no sale", map[string]string{"public/sale/index.html": ""})
	w.well(w.Command(w.j, "1", site.Add{}))
	third := w.keys()
	if d := cmp.Diff(built(), slices.DeleteFunc(slices.Clone(third), isAsset)); d != "" {
		t.Errorf("without it again (-want +got):\n%s", d)
	}
	if slices.Contains(third, first[0]) {
		t.Errorf("%s has outlived its time", first[0])
	}
}
