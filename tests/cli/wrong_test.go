package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/tests/platform"
)

// TestCommandsSayWhatIsWrong with AWS, and what to do: on stderr, with code 1, once, and
// not in the words of the SDK.
func TestCommandsSayWhatIsWrong(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	all := [][]string{
		{"claims"},
		{"claims", "request", "amelia#scott"},
		{"claims", "release", "amelia#scott", "--yes"},
		{"status", "amelia", "scott"},
		{"send", "--project", "amelia", "--user", "scott", "--thread", "t1", "--repo", w.j.RepoURL, "--follow", "x"},
	}
	credentials := append([][]string{{"dlq", "list"}, {"dlq", "redrive", "--all"}, {"logs"}}, all...)
	for _, tt := range []struct {
		name     string
		env      []string
		commands [][]string
		says     []string
	}{
		{"no credentials", []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}, credentials, []string{"there are no AWS credentials", "Set AWS_ACCESS_KEY_ID"}},
		{"no region", []string{"AWS_REGION="}, credentials, []string{"AWS_REGION is missing; set it"}},
		{"no table", []string{"CONTAINER_OWNERSHIP_TABLE=no-such-table"}, all, []string{"DynamoDB refuses", "ResourceNotFoundException", "see CONTAINER_OWNERSHIP_TABLE"}},
		{"nobody", []string{"AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:1"}, all[:4], []string{"DynamoDB does not answer: http://127.0.0.1:1/", "refused", "`webordinary doctor`"}},
		{"not allowed", []string{"AWS_ENDPOINT_URL_DYNAMODB=" + denying(t)}, all, []string{"DynamoDB refuses", "AccessDeniedException: no", "infra/ecs/operator-policy.json"}},
		{"no queue of claim requests", []string{"UNCLAIMED_QUEUE_URL="}, [][]string{all[1], all[2], all[4]}, []string{"UNCLAIMED_QUEUE_URL is missing", ".env.local"}},
	} {
		for _, args := range tt.commands {
			o := w.runWith("", tt.env, args...)
			if o.code != 1 || o.stdout != "" || strings.Contains(o.stderr, "operation error DynamoDB") {
				t.Errorf("%s: webordinary %v ended with %d\n%s%s", tt.name, args, o.code, o.stdout, o.stderr)
			}
			for _, words := range tt.says {
				if strings.Count(o.stderr, words) != 1 {
					t.Errorf("%s: webordinary %v says not once %q\n%s", tt.name, args, words, o.stderr)
				}
			}
		}
	}
	w.has(w.j.InputURL, 0)
}

// denying is an AWS that allows nothing.
func denying(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/x-amz-json-1.0")
		rw.WriteHeader(http.StatusBadRequest)
		rw.Write([]byte(`{"__type":"com.amazon.coral.service#AccessDeniedException","message":"no"}`)) //nolint:errcheck // the client may be gone
	}))
	t.Cleanup(server.Close)
	return server.URL
}
