package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNobodyLooksInside runs a worker without privileges, with an agent that is the
// same user, without a wall, and tries to read what the worker and its keeper have in /proc.
func TestNobodyLooksInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("it needs root, to become somebody else")
	}
	const uid = 12345
	dir := t.TempDir()
	for path, mode := range map[string]os.FileMode{filepath.Dir(binary): 0o755, filepath.Dir(dir): 0o755, dir: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	agent, seen := filepath.Join(dir, "agent"), filepath.Join(dir, "seen")
	script := fmt.Sprintf(`#!/bin/sh
worker=$(awk '/^PPid:/{print $2}' /proc/$PPID/status)
for pid in $worker $PPID; do for file in environ maps mem fd/0; do cat /proc/$pid/$file; done; ls /proc/$pid/fd; done >%[1]s 2>%[1]s.errors
grep -h '^Name:' /proc/$worker/status /proc/$PPID/status >%[1]s.names
exit 1
`, seen)
	if err := os.WriteFile(agent, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--dir", filepath.Join(dir, "demo"), "--output", "json")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "AGENT=command", "AGENT_COMMAND=" + agent, "GITHUB_TOKEN=ghp_secretOfTheWorker", "MAX_ATTEMPTS=1", "SANDBOX=off"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"errorCode":"agent_failed"`) {
		t.Fatalf("%v\n%s", err, out)
	}
	names, err := os.ReadFile(seen + ".names")
	if err != nil || strings.Count(string(names), "\twebordinary\n") != 2 {
		t.Fatalf("these are not worker and keeper: %q, %v", names, err)
	}
	if text, err := os.ReadFile(seen); err != nil || len(text) > 0 {
		t.Errorf("it saw %q, %v", text, err)
	}
	if denied, err := os.ReadFile(seen + ".errors"); err != nil || strings.Count(string(denied), "ermission denied") != 10 {
		t.Errorf("%v: %s", err, denied)
	}
}
