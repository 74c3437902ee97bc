package main

import (
	"os"
	"testing"
)

// TestProbeFilesAreTakenAway, with a name and without.
func TestProbeFilesAreTakenAway(t *testing.T) {
	for name, probe := range map[string]func(string) (*os.File, func(), error){"without a name": probeFile, "with a name": namedFile} {
		dir := t.TempDir()
		f, done, err := probe(dir)
		if err != nil {
			t.Fatal(err)
		}
		if owner, err := ownerOf(f); err != nil || owner != os.Geteuid() {
			t.Errorf("%s: it belongs to %d, %v", name, owner, err)
		}
		done()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}
