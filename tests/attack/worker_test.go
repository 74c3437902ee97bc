package attack

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/tests/program"
	"github.com/webordinary/claude-code-container/tests/terminal"
)

// worker is a running worker. As in the image it is process 1 of its PID
// namespace, and of an unprivileged user. With it run a health check that hangs,
// and another process of its user.
type worker struct {
	w       *world
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan protocol.OutputMessage
	ended   chan struct{}

	stderr program.Output
}

const launch = `
"$WORKER" health > /dev/null 2>&1 < /dev/null &
SHARED_SECRET="$DECOY_SHARED" "$HOSTILE" decoy "$DECOY_ARGUMENT" > /dev/null < /dev/null &
unset DECOY_SHARED DECOY_ARGUMENT
exec "$WORKER" demo --stdin --dir "$STATE"
`

// start starts a worker. The variables in env win.
func (w *world) start(env ...string) *worker {
	w.t.Helper()
	fifo := filepath.Join(w.dir, "heartbeat")
	if err := unix.Mkfifo(fifo, 0o666); err == nil {
		w.must(os.Chmod(fifo, 0o666))
	}
	p := &worker{w: w, answers: make(chan protocol.OutputMessage, 100), ended: make(chan struct{})}
	words := []string{"--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--"}
	if w.oldKernel {
		words = append(words, programs.hostile, "old-kernel")
	}
	words = append(words, "/usr/bin/setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--", "sh", "-c", launch)
	p.cmd = exec.Command("unshare", words...) //nolint:noctx // the clean-up ends it
	p.cmd.Dir, p.cmd.Stderr, p.cmd.WaitDelay = w.home, &p.stderr, time.Second
	p.cmd.Env = append([]string{
		"WORKER=" + programs.worker, "HOSTILE=" + programs.hostile, "STATE=" + w.state, "HEARTBEAT_FILE=" + fifo,
		"DECOY_SHARED=" + w.secrets["shared"], "DECOY_ARGUMENT=" + w.secrets["argument"],
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + w.home, "TMPDIR=" + w.tmp(),
		"ALLOWED_REPO_HOSTS=" + w.front.host, "GITHUB_TOKEN=" + w.secrets["github"],
		"ANTHROPIC_API_KEY=" + w.secrets["anthropic"], "ANTHROPIC_BASE_URL=" + w.model.URL(), "ANTHROPIC_MODEL=" + model,
		"AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=" + w.secrets["aws"],
		"CLAUDE_PATH=" + programs.claude, "MAX_CLAIMS=4", "LOG_LEVEL=debug",
	}, env...)
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	w.must(err)
	stdout, err := p.cmd.StdoutPipe()
	w.must(err)
	_, end := terminal.Open(w.t) // by which the worker is controlled
	p.cmd.ExtraFiles = []*os.File{end}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	w.must(p.cmd.Start())
	w.must(end.Close())
	go func() {
		defer close(p.ended)
		in := bufio.NewReader(stdout)
		for {
			line, err := in.ReadBytes('\n')
			var out protocol.OutputMessage
			if json.Unmarshal(line, &out) == nil {
				p.answers <- out
			}
			if err != nil {
				break
			}
		}
		p.cmd.Wait() //nolint:errcheck // how it ends is not the point
	}()
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("what the worker said:\n%s\nits log:\n%s", p.said(), program.Tail(filepath.Join(w.state, "log.jsonl"), 6000))
		}
	})
	return p
}

func (p *worker) said() string { return p.stderr.String() }

func (p *worker) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.ended
}

// command is an instruction.
type command struct {
	project, user, repo string
	thread, id, text    string
}

func (p *worker) send(c command) {
	p.w.t.Helper()
	p.sendFields(map[string]any{
		"type": "work", "sessionId": "s", "projectId": c.project, "userId": c.user, "repoUrl": c.repo,
		"threadId": c.thread, "commandId": c.id, "instruction": c.text, "timestamp": time.Now().UnixMilli(),
	})
}

func (p *worker) sendFields(fields map[string]any) {
	p.w.t.Helper()
	line, err := json.Marshal(fields)
	p.w.must(err)
	_, err = p.stdin.Write(append(line, '\n'))
	p.w.must(err)
}

// answer waits for the next answer.
func (p *worker) answer() protocol.OutputMessage {
	p.w.t.Helper()
	select {
	case out := <-p.answers:
		return out
	case <-p.ended:
		p.w.t.Fatal("the worker ended without an answer")
	case <-time.After(patience):
		p.w.t.Fatalf("no answer after %v", patience)
	}
	return protocol.OutputMessage{}
}

// do sends a command and waits for its answer.
func (p *worker) do(c command) protocol.OutputMessage {
	p.w.t.Helper()
	p.send(c)
	out := p.answer()
	if out.CommandID != c.id {
		p.w.t.Fatalf("an answer to %q, want one to %q: %+v", out.CommandID, c.id, out)
	}
	return out
}

// running is a process the machine, as root sees it.
type running struct {
	pid       int
	arguments string
	environ   []string
}

// processes lists what contains a text in its arguments.
func processes(text string) []running {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []running
	for _, d := range dirs {
		args, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err != nil || !strings.Contains(string(args), text) {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", d.Name(), "environ"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		all = append(all, running{pid: pid, arguments: string(args), environ: strings.Split(string(environ), "\x00")})
	}
	return all
}
