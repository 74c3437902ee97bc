package platform

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/gitserver"
)

// Worker is a running `webordinary run`, with a network of its own.
type Worker struct {
	Name    string // the container id
	Dir     string // home, temporary files, log
	Started time.Time
	// The links to the servers; Cut and Restore are for all of them.
	SQS, DynamoDB, S3, Git *Link

	p     *Platform
	token string // for git
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // once ended

	mu     sync.Mutex
	frozen []int  // process ids that were stopped
	thawed func() // ends the note of it
	joined func() // ends the note of a cut
}

// StartWorker starts a worker. It is killed with the test, and its log shown if the
// test failed. The variables in env win.
func (p *Platform) StartWorker(env ...string) *Worker {
	p.tb.Helper()
	w := &Worker{
		Name: "w-" + strings.ToLower(rand.Text()[:8]), p: p, ended: make(chan struct{}),
		SQS: newLink(), DynamoDB: newLink(), S3: newLink(), Git: newLink(), token: gitserver.Token + rand.Text(),
	}
	if !slices.Contains(env, "CREATE_RESOURCES=true") { // which needs more than a worker in AWS has
		w.SQS.heard, w.DynamoDB.heard, w.S3.heard = p.noteCall, p.noteCall, p.noteCall
	}
	w.Dir = filepath.Join(p.tb.TempDir(), w.Name)
	for _, dir := range []string{w.home(), w.tmp(), w.faults()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			p.tb.Fatal(err)
		}
	}
	p.Git.Accept(w.token)
	p.front.add(w.token, w.Git)
	log, err := os.Create(w.logFile())
	if err != nil {
		p.tb.Fatal(err)
	}
	w.cmd = exec.Command(cmp.Or(p.Options.Program, p.built.worker), "run") //nolint:noctx // it must live on when a context ends
	w.cmd.Dir, w.cmd.Stdout, w.cmd.Stderr = w.Dir, log, log
	w.cmd.Env = append(append(w.environ(), p.Options.Env...), env...)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.Started = time.Now()
	if err := w.cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	go func() {
		w.err = w.cmd.Wait()
		log.Close() //nolint:errcheck // the worker has written it
		close(w.ended)
	}()
	p.tb.Cleanup(w.cleanUp)
	p.mu.Lock()
	p.workers = append(p.workers, w)
	p.mu.Unlock()
	return w
}

func (w *Worker) home() string    { return filepath.Join(w.Dir, "home") }
func (w *Worker) tmp() string     { return filepath.Join(w.Dir, "tmp") }
func (w *Worker) faults() string  { return filepath.Join(w.Dir, "faults") }
func (w *Worker) logFile() string { return filepath.Join(w.Dir, "log.jsonl") }

// environ is what the worker is told. Short times make a test short.
func (w *Worker) environ() []string {
	p, o, n := w.p, w.p.Options, w.p.Names
	path, runLog := os.Getenv("PATH"), p.runLog
	if o.Unlogged {
		runLog = ""
	}
	if !o.Npm {
		path = p.built.bin + string(filepath.ListSeparator) + path
	}
	env := []string{
		"PATH=" + path, "HOME=" + w.home(), "TMPDIR=" + w.tmp(),
		"AWS_REGION=" + emulators.Region, "AWS_ACCESS_KEY_ID=" + emulators.AccessKey, "AWS_SECRET_ACCESS_KEY=" + emulators.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "S3_FORCE_PATH_STYLE=true",
		"AWS_ENDPOINT_URL_SQS=" + startProxy(p.tb, p.Set.SQS, alwaysBy(w.SQS)).url(),
		"AWS_ENDPOINT_URL_DYNAMODB=" + startProxy(p.tb, p.Set.DynamoDB, alwaysBy(w.DynamoDB)).url(),
		"AWS_ENDPOINT_URL_S3=" + startProxy(p.tb, p.Set.S3, alwaysBy(w.S3)).url(),
		"UNCLAIMED_QUEUE_URL=" + p.UnclaimedURL, "UNCLAIMED_DLQ_URL=" + p.unclaimedDLQ, "CONTAINER_OWNERSHIP_TABLE=" + p.Table,
		"INPUT_QUEUE_PATTERN=" + n.InputPattern, "OUTPUT_QUEUE_PATTERN=" + n.OutputPattern, "DLQ_QUEUE_PATTERN=" + n.DLQPattern,
		"INTERRUPTS_QUEUE_PATTERN=" + n.InterruptsPattern, "PROGRESS_QUEUE_PATTERN=" + n.ProgressPattern, "S3_BUCKET_PATTERN=" + n.BucketPattern,
		"WORKSPACE_PATH=" + p.Workspaces, "CONTAINER_ID=" + w.Name, "ALLOWED_REPO_HOSTS=" + p.front.host(), "GITHUB_TOKEN=" + w.token,
		// The scripted agent notes its runs outside of the checkout, which no wall lets it.
		"SANDBOX=off", "AGENT=command", "AGENT_COMMAND=" + p.built.tool + " agent", "AGENT_ENV=RUN_LOG,SITE_TOOL,WORKER_NAME",
		"RUN_LOG=" + runLog, "SITE_TOOL=" + p.built.tool, "WORKER_NAME=" + w.Name,
		"INTERRUPT_POLICY=" + o.Policy, "FAULT_DIR=" + w.faults(), "LOG_LEVEL=debug",
		"HEARTBEAT_FILE=" + filepath.Join(w.tmp(), "heartbeat"),
	}
	for name, d := range map[string]time.Duration{
		"LEASE_DURATION": o.Lease, "LEASE_RENEWAL": o.Renewal, "SWEEP_INTERVAL": o.Sweep,
		"VISIBILITY_TIMEOUT": o.Visibility, "IDLE_TIMEOUT": o.Idle, "SHUTDOWN_GRACE": o.Grace,
	} {
		env = append(env, name+"="+d.String())
	}
	return env
}

func (w *Worker) links() []*Link { return []*Link{w.SQS, w.DynamoDB, w.S3, w.Git} }

// What follows are faults. They are noted in the history, with the boundary at
// which they happen, if it is given.

// Cut resets all connections of the worker, or lets no byte pass, until Restore.
func (w *Worker) Cut(swallow bool, at ...string) {
	kind := Reset
	if swallow {
		kind = Silence
	}
	end := w.note(kind, at)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joined = end
	for _, l := range w.links() {
		if swallow {
			l.Swallow()
		} else {
			l.Reset()
		}
	}
}

// Restore ends every Cut.
func (w *Worker) Restore() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.links() {
		l.Restore()
	}
	if w.joined != nil {
		w.joined()
	}
}

// Kill ends the worker alone by SIGKILL, and waits. What its children do then is
// its keepers' affair.
func (w *Worker) Kill(at ...string) {
	w.note(Kill, at)
	w.signal(syscall.SIGKILL)
	<-w.ended
}

// KillTree ends the worker and everything below it by SIGKILL, as a machine does
// that is switched off.
func (w *Worker) KillTree(at ...string) {
	w.note(KillTree, at)
	w.killTree()
}

func (w *Worker) killTree() {
	for _, pid := range w.stopTree() {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may be gone
	}
	<-w.ended
}

// Terminate sends SIGTERM.
func (w *Worker) Terminate(at ...string) {
	w.note(Term, at)
	w.signal(syscall.SIGTERM)
}

// Freeze stops the worker alone, until Thaw.
func (w *Worker) Freeze(at ...string) {
	end := w.note(Freeze, at)
	w.signal(syscall.SIGSTOP)
	w.freezed(end, w.cmd.Process.Pid)
}

// FreezeTree stops the worker and everything below it, as a machine does that is
// paused, until Thaw.
func (w *Worker) FreezeTree(at ...string) {
	end := w.note(FreezeTree, at)
	w.freezed(end, w.stopTree()...)
}

func (w *Worker) freezed(end func(), pids ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.thawed = end
	w.frozen = append(w.frozen, pids...)
}

// Thaw lets everything go on that was frozen.
func (w *Worker) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signal(syscall.SIGCONT) // a fault may have frozen it
	for _, pid := range w.frozen {
		syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // it may be gone
	}
	w.frozen = nil
	if w.thawed != nil {
		w.thawed()
	}
}

func (w *Worker) note(kind string, at []string) (end func()) {
	f := Fault{Worker: w.Name, Kind: kind}
	if len(at) > 0 {
		f.Boundary = at[0]
	}
	return w.p.Note(f)
}

// stopTree stops a tree from its top downwards, so that none escapes.
func (w *Worker) stopTree() []int {
	w.signal(syscall.SIGSTOP)
	stopped := []int{w.cmd.Process.Pid}
	for {
		more := false
		for _, pid := range below(w.cmd.Process.Pid) {
			if !contains(stopped, pid) {
				syscall.Kill(pid, syscall.SIGSTOP) //nolint:errcheck // it may be gone
				stopped, more = append(stopped, pid), true
			}
		}
		if !more {
			return stopped
		}
	}
}

func (w *Worker) signal(s syscall.Signal) {
	if w.Alive() {
		w.cmd.Process.Signal(s) //nolint:errcheck // it may have ended
	}
}

// Alive reports whether the worker has not ended; it may be frozen.
func (w *Worker) Alive() bool {
	select {
	case <-w.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the worker has ended.
func (w *Worker) Ended() <-chan struct{} { return w.ended }

// Exit waits until the worker has ended by itself, and returns its exit code; -1 if
// a signal ended it. It fails the test after a while.
func (w *Worker) Exit(within time.Duration) int {
	w.p.tb.Helper()
	select {
	case <-w.ended:
	case <-time.After(within):
		w.p.tb.Fatalf("worker %s has not ended within %s", w.Name, within)
	}
	var exit *exec.ExitError
	if w.err != nil && !errors.As(w.err, &exit) {
		w.p.tb.Fatal(w.err)
	}
	return w.cmd.ProcessState.ExitCode()
}

// Expire makes the worker's token one that the git server does not know.
func (w *Worker) Expire() { w.p.Git.Refuse(w.token) }

// Pid is the worker's process id.
func (w *Worker) Pid() int { return w.cmd.Process.Pid }

// Log returns what the worker logged so far.
func (w *Worker) Log() string {
	b, err := os.ReadFile(w.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Arm orders a fault (kill, freeze, term, hold) for the next time that the worker
// writes a mark of the journal. It happens once. All but hold are noted.
func (w *Worker) Arm(mark, how string) error {
	if how != "hold" {
		w.note(how, []string{mark})
	}
	file := filepath.Join(w.faults(), mark)
	if err := os.WriteFile(file+".new", []byte(how), 0o600); err != nil {
		return fmt.Errorf("arm a fault: %w", err)
	}
	return os.Rename(file+".new", file)
}

// Disarm takes an order back; false if the fault happened, or there was none.
func (w *Worker) Disarm(mark string) bool {
	return os.Remove(filepath.Join(w.faults(), mark)) == nil
}

// Fired reports whether the fault at a mark happened.
func (w *Worker) Fired(mark string) bool {
	_, err := os.Stat(filepath.Join(w.faults(), mark+".held"))
	return err == nil
}

// Release lets a command go on that is held at a mark, and forgets that the fault
// happened.
func (w *Worker) Release(mark string) {
	os.Remove(filepath.Join(w.faults(), mark+".held")) //nolint:errcheck // it may not be held
}

func (w *Worker) cleanUp() {
	w.Restore()
	if w.Alive() {
		w.killTree()
	}
	log := w.Log()
	if dir := os.Getenv("WORKER_LOGS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, w.Name+".jsonl"), []byte(log), 0o600); err != nil {
			w.p.tb.Error(err)
		}
	} else if w.p.tb.Failed() {
		w.p.tb.Logf("the end of what worker %s logged (%v; WORKER_LOGS names a directory for all of it):\n%s", w.Name, w.cmd.ProcessState, interesting(log))
	}
}

// interesting leaves out what a log repeats every second, and all but its end.
func interesting(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, `"msg":"metrics"`) && !strings.Contains(line, `"level":"DEBUG"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// AwaitFired waits until the fault at a mark has happened to a worker.
func (p *Platform) AwaitFired(w *Worker, mark string, within time.Duration) {
	p.tb.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !w.Fired(mark) {
		select {
		case <-look.C:
		case <-late.C:
			p.tb.Fatalf("worker %s did not come to %s within %s\n%s", w.Name, mark, within, p.state())
		}
	}
}
