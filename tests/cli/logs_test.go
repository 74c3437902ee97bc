package cli

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/webordinary/claude-code-container/tests/platform"
)

// TestLogsReadsCloudWatch from a service that has one line; cmd/webordinary tests the
// rest of it.
func TestLogsReadsCloudWatch(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	service := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		rw.Write([]byte(`{"events":[{"eventId":"1","timestamp":1,"message":"{\"level\":\"INFO\",\"msg\":\"one line\"}"}]}`)) //nolint:errcheck // the client may be gone
	}))
	t.Cleanup(service.Close)
	w.env = append(w.env, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+calls.Proxy(t, service.URL))
	if out := w.well("logs"); line(out, "one line") == "" {
		t.Errorf("logs prints\n%s", out)
	}
}
