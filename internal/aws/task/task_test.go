package task_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/aws/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const arn = "arn:aws:ecs:us-west-2:111122223333:task/cluster/158d1c8083dd49d6b527399fd6414f5c"

func TestID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string
		asked  int // times
	}{
		{"an id", 200, `{"Cluster":"cluster","TaskARN":"` + arn + `","Family":"edit"}`, "158d1c8083dd49d6b527399fd6414f5c", 1},
		{"the older form of an ARN", 200, `{"TaskARN":"arn:aws:ecs:us-west-2:1:task/abc"}`, "abc", 1},
		{"no ARN", 200, `{"TaskARN":"task"}`, "", 1},
		{"an ARN that ends", 200, `{"TaskARN":"arn:aws:ecs:us-west-2:1:task/"}`, "", 1},
		{"no JSON", 200, `hello`, "", 3},
		{"a failing agent", 500, `{"TaskARN":"` + arn + `"}`, "", 3},
		{"a redirect", 302, ``, "", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Method+" "+r.URL.Path)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body)) //nolint:errcheck // a test's
			}))
			defer server.Close()
			got, err := task.ID(t.Context(), []string{"A=1", "ECS_CONTAINER_METADATA_URI_V4=" + server.URL + "/v4/123"})
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
			if len(asked) != tt.asked || asked[0] != "GET /v4/123/task" {
				t.Errorf("asked: %v", asked)
			}
		})
	}
}

func TestOutsideOfECS(t *testing.T) {
	if id, err := task.ID(t.Context(), []string{"PATH=/bin", "ECS_CONTAINER_METADATA_URI_V4="}); id != "" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
}

// Whoever can set a variable must not make us talk to others.
func TestOnlyThisMachineIsAsked(t *testing.T) {
	for _, address := range []string{
		"http://example.com/v4", "https://169.254.170.2/v4", "http://10.0.0.1/v4", "http://user@169.254.170.2/v4",
		"http://169.254.170.2/v4?x=1", "http://localhost/v4", "file:///etc/passwd", "169.254.170.2", "http://[::ffff:10.0.0.1]/",
	} {
		_, err := task.ID(t.Context(), []string{"ECS_CONTAINER_METADATA_URI_V4=" + address})
		if err == nil || !strings.Contains(err.Error(), "ECS_CONTAINER_METADATA_URI_V4 is not") {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := task.NewProtection([]string{"ECS_AGENT_URI=" + address}, task.Options{}); err == nil || !strings.Contains(err.Error(), "ECS_AGENT_URI is not") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"http://169.254.170.2/api/x", "http://127.0.0.1:5000", "http://[fe80::1]/x", "http://[::1]:80/"} {
		if _, err := task.NewProtection([]string{"ECS_AGENT_URI=" + address}, task.Options{}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
