package cli

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
)

// TestDoctorChangesNothingOnDisk behind any wall, whether what it looks at is there or
// not. It runs as the worker's user in the image does.
func TestDoctorChangesNothingOnDisk(t *testing.T) {
	t.Parallel()
	u := processtest.NewUsers(t)
	program := filepath.Join(filepath.Dir(u.Keeper), "webordinary")
	u.Install(t, binary, program, 0o755)
	home, tmp := u.Mkdir(t, "home", 0o700), u.Mkdir(t, "tmp", 0o755)
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + tmp, "AWS_REGION=us-west-2", "AWS_EC2_METADATA_DISABLED=true",
		"AGENT=command", "AGENT_COMMAND=/bin/true",
	}
	there, missing := u.Mkdir(t, "workspaces", 0o755), filepath.Join(u.Dir, "not", "there")
	for _, tt := range []struct {
		wall       process.Wall
		workspaces string
		holds      bool
	}{
		{"auto", there, true},
		{process.WallUsers, there, true},
		{"auto", missing, true},
		{process.WallUsers, missing, false},
		{process.WallOff, missing, true},
	} {
		before := tree(t, u.Dir)
		args := append(processtest.As(processtest.WorkerID), program, "doctor", "--project", "amelia", "--user", "scott")
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = home
		cmd.Env = process.With(env, "SANDBOX="+string(tt.wall), "WORKSPACE_PATH="+tt.workspaces, "HEARTBEAT_FILE="+filepath.Join(u.Dir, "beat", "file"))
		out, err := cmd.CombinedOutput()
		if err == nil || line(string(out), "fail", "credentials", "none") == "" {
			t.Fatalf("%s: %v\n%s", tt.wall, err, out)
		}
		if tt.holds == (line(string(out), "fail", "wall") != "") {
			t.Errorf("behind %s in %s:\n%s", tt.wall, tt.workspaces, out)
		}
		if d := cmp.Diff(before, tree(t, u.Dir)); d != "" {
			t.Errorf("behind %s, what is in %s changed:\n%s", tt.wall, u.Dir, d)
		}
	}
}

// tree is all that is below a directory: the names, with kind, rights, owner, size and
// time of change; of directories without the last, as what came and went changes it.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := fmt.Sprint(info.Mode(), " of ", info.Sys().(*syscall.Stat_t).Uid)
		if !d.IsDir() {
			what += fmt.Sprint(", ", info.Size(), " bytes, ", info.ModTime())
		}
		all[strings.TrimPrefix(path, dir)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
