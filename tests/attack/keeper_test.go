package attack

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestNothingOutlivesItsJob has an agent leave a process in a session of its own, that
// is nobody's child. It is gone with the job; without the keeper it goes on.
func TestNothingOutlivesItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.git.Create(t, "site.git", map[string]string{"README": "hello\n"})
	p := w.shell()
	script := `setsid sh -c '` + programs.hostile + ` linger $0 > /dev/null 2>&1 < /dev/null &' "$PWD/lingers-` + w.mark + `"; sleep 0.3; date > change.txt`
	if out := p.do(command{w.project("amelia"), "scott", w.front.url("site.git"), "t", "c-1", script}); out.CommitID == "" {
		t.Fatalf("answer %+v", out)
	}
	if _, err := os.Stat(filepath.Join(w.pair("amelia", "scott"), "site", "lingers-"+w.mark)); err != nil {
		t.Error("it never ran, so nothing is shown:", err)
	}
	if left := processes("lingers-" + w.mark); len(left) > 0 {
		t.Errorf("%q goes on", left[0].arguments)
	}
	p.kill()

	cmd := exec.Command("sh", "-c", script) //nolint:noctx // it ends by itself
	cmd.Dir, cmd.SysProcAttr = t.TempDir(), &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // nobody is left in the group
	left := lingering(w.mark)
	if len(left) == 0 {
		t.Error("without the keeper it is gone too, so nothing is shown")
	}
	for _, pid := range left {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may be gone
	}
}

// lingering are the ids of what outlived.
func lingering(mark string) (pids []int) {
	late := time.After(patience)
	for {
		select {
		case <-late:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
		for _, p := range processes("lingers-" + mark) {
			pids = append(pids, p.pid)
		}
		if len(pids) > 0 {
			return pids
		}
	}
}
