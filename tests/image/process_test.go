//go:build image

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// workerOf finds the container's process 1: the one whose mounts have this
// container's volumes and whose program is `webordinary run`.
func workerOf(t *testing.T, c *container) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		words, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(words, []byte("webordinary\x00run\x00")) {
			continue
		}
		dir := filepath.Dir(path)
		mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if err != nil || !strings.Contains(string(mounts), c.volumes+"/workspace ") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatal("there is no worker")
	return 0
}
