package bucket_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

// TestCreate creates a bucket where none is, and then finds it. Who may not create
// gets the error.
func TestCreate(t *testing.T) {
	t.Parallel()
	client := connect(t, gateway(t), true)
	name := "edit." + emulators.Unique(t, "new") + ".example.com"
	if _, err := bucket.Open(client, name, bucket.Options{}).List(t.Context()); !strings.Contains(reason(err), "does not exist") {
		t.Errorf("without the right to create it: %v", err)
	}
	b := bucket.Open(client, name, bucket.Options{Create: true})
	for range 2 {
		if objects, err := b.List(t.Context()); err != nil || len(objects) != 0 {
			t.Fatalf("a new bucket: %v, %v", objects, err)
		}
	}
	_, err := deploy.Sync(t.Context(), b, deploy.Options{Dir: site{"index.html": "<h1>Hello</h1>"}.write(t)})
	if err != nil || contents(t, client, name)["index.html"] != "<h1>Hello</h1>" {
		t.Errorf("what was deployed to it: %v, %v", contents(t, client, name), err)
	}
}

// TestCreateAtOnce has another worker create the bucket between the look and the
// creation, and somebody else have it.
func TestCreateAtOnce(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"BucketAlreadyOwnedByYou": "",
		"BucketAlreadyExists":     "BucketAlreadyExists to s3:CreateBucket",
	} {
		p := startProxy(t)
		p.arm(func(_ *proxy, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				return answer(w, http.StatusNotFound, "NoSuchBucket")
			}
			return answer(w, http.StatusConflict, code)
		})
		_, err := bucket.Open(connect(t, p.URL, true), "edit.taken.example.com", bucket.Options{Create: true}).List(t.Context())
		if got := reason(err); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
		if seen := p.seen(); !slices.Equal(seen, []string{"GET ?encoding-type", "PUT /edit.taken.example.com"}) {
			t.Errorf("%s: requests %v", code, seen)
		}
	}
}

func reason(err error) string {
	if e, ok := errors.AsType[*bucket.Error](err); ok {
		return e.Reason
	}
	if err != nil {
		return "not an *Error: " + err.Error()
	}
	return ""
}
