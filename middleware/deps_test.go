package middleware_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDeps pins what a service gets along with the package. The golden file is
// the output of the command below.
func TestDeps(t *testing.T) {
	want, err := os.ReadFile("testdata/deps.golden")
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	list.Stderr = &stderr
	got, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", list, err, &stderr)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%v (-want +got):\n%s", list, diff)
	}
}
