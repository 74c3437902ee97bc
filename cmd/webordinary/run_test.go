package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/aws/smithy-go/logging"
)

// TestSDKLogsAsWeDo: what the SDK says is a line like the others.
func TestSDKLogsAsWeDo(t *testing.T) {
	var out bytes.Buffer
	log := sdkLogger(slog.New(slog.NewJSONHandler(&out, nil)))
	log.Logf(logging.Debug, "nobody asked for %s", "details")
	log.Logf(logging.Warn, "failed to close %s", "the body")
	var line struct{ Level, Msg, Text string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Level != "WARN" || line.Text != "failed to close the body" {
		t.Errorf("logged %q: %+v, %v", out.String(), line, err)
	}
}
