package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/tests/emulators"
)

// cost is what one deploy took.
type cost struct {
	wall, cpu time.Duration
	rss       int64
	requests  int64
	sent      int64 // bytes
}

// tool deploys directories.
type tool struct {
	name    string // with its version
	short   string
	missing string // why it is not measured; empty if it is there
	// deploy makes a bucket hold a directory. The slow proxy counts meanwhile.
	deploy func(dir, bucketName string) (cost, error)
	// It uploads everything after a rebuild. Of many files one run is enough, and of
	// the slowest one run at all.
	slow, slowest bool
}

// peer is a tool beside ours.
type peer struct {
	name          string
	version       string // the argument that makes it say which it is
	slow, slowest bool   // see tool
	env           []string
	args          func(dir, bucketName string) []string
}

// peers are the tools beside ours, as fast as their options make them.
func peers(tb testing.TB, proxy *slowProxy) []tool {
	tb.Helper()
	home := tb.TempDir()
	env := []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "AWS_REGION=" + emulators.Region, "AWS_DEFAULT_REGION=" + emulators.Region,
		"AWS_ACCESS_KEY_ID=" + emulators.AccessKey, "AWS_SECRET_ACCESS_KEY=" + emulators.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + filepath.Join(home, "aws"),
		"RCLONE_CONFIG=", "RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENV_AUTH=true", "RCLONE_S3_FORCE_PATH_STYLE=true", "RCLONE_S3_ENDPOINT=" + proxy.url,
		"RCLONE_S3_NO_CHECK_BUCKET=true", "RCLONE_S3_NO_HEAD=true",
	}
	// By default it makes 10 requests at once.
	config := "[default]\ns3 =\n  max_concurrent_requests = 32\n  addressing_style = path\n"
	if err := os.WriteFile(filepath.Join(home, "aws"), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	var tools []tool
	for _, p := range []peer{
		{name: "rclone", version: "version", args: func(dir, name string) []string {
			return []string{"sync", "--checksum", "--fast-list", "--transfers", "32", "--checkers", "32", "--no-update-modtime", "-q", dir, ":s3:" + name}
		}},
		{name: "s5cmd", version: "version", slow: true, args: func(dir, name string) []string {
			return []string{"--endpoint-url", proxy.url, "--log", "error", "--numworkers", "32", "sync", "--delete", dir + "/", "s3://" + name + "/"}
		}},
		{name: "aws", version: "--version", slow: true, slowest: true, args: func(dir, name string) []string {
			return []string{"--endpoint-url", proxy.url, "s3", "sync", "--only-show-errors", "--delete", dir, "s3://" + name}
		}},
		{name: "s3deploy", version: "-V", args: func(dir, name string) []string {
			return []string{"-endpoint-url", proxy.url, "-path-style", "-region", emulators.Region, "-bucket", name, "-source", dir, "-workers", "32", "-quiet"}
		}},
	} {
		p.env = env
		tools = append(tools, p.find(tb))
	}
	return tools
}

// find finds what `make peers` installed, or the system has.
func (p peer) find(tb testing.TB) tool {
	tb.Helper()
	t := tool{name: p.name, short: p.name, slow: p.slow, slowest: p.slowest}
	bin, err := filepath.Abs(filepath.Join("../../.tools/peers", p.name))
	if err != nil {
		tb.Fatal(err)
	}
	for _, place := range []string{bin, filepath.Join("/usr/bin", p.name), p.name} {
		if bin, err = exec.LookPath(place); err == nil {
			break
		}
	}
	if err != nil {
		t.missing = "not to be had here, see make peers"
		return t
	}
	out, err := exec.CommandContext(tb.Context(), bin, p.version).CombinedOutput()
	if err != nil {
		t.missing = fmt.Sprintf("does not run (%v)", err)
		return t
	}
	version := versionPattern.FindString(string(out))
	if built, err := os.ReadFile(bin + ".version"); err == nil { // by make peers
		version = strings.TrimSpace(string(built))
	}
	t.name += " " + version
	ctx := context.WithoutCancel(tb.Context())
	t.deploy = func(dir, bucketName string) (cost, error) {
		c := exec.CommandContext(ctx, bin, p.args(dir, bucketName)...)
		c.Env = p.env
		return runTool(c)
	}
	return t
}

var versionPattern = regexp.MustCompile(`v?[0-9]+\.[0-9]+\.[0-9]+`)

// runTool runs a process to its end. The kernel's own figure of the most memory
// counts this process, too, whose child it was; so it is looked at again and again.
func runTool(c *exec.Cmd) (cost, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	began := time.Now()
	if err := c.Start(); err != nil {
		return cost{}, err
	}
	ended, most := make(chan struct{}), make(chan int64)
	go func() { most <- watchPeak(c.Process.Pid, ended) }()
	err := c.Wait()
	got := cost{wall: time.Since(began)}
	close(ended)
	got.rss = <-most
	got.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if err != nil {
		return got, fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, out.Bytes())
	}
	return got, nil
}

// watchPeak returns the most resident bytes of a process, as of its last moments.
func watchPeak(pid int, ended <-chan struct{}) (most int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := peak(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			most = max(most, n)
		}
		select {
		case <-tick.C:
		case <-ended:
			return most
		}
	}
}
