package workspace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// TestNoObjectStaysOpen: not until the garbage collector comes by either.
func TestNoObjectStaysOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f := setUp(t)
	w := f.open(f.request("1", "c1"))
	for i := range 50 {
		f.write(w, fmt.Sprintf("%d/a.txt", i), fmt.Sprint(i))
	}
	f.push(w, f.commit(w, "a").SHA)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.HasPrefix(to, f.root) {
			t.Error("still open:", to)
		}
	}
}
