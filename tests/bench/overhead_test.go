package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/process/processtest"
	"github.com/webordinary/claude-code-container/tests/modelserver"
)

const (
	overheadRounds = 25
	overheadHolds  = 5 // of which memory is looked at
)

// overheadRow is the row of a wall.
func overheadRow(w process.Wall) string {
	return "Keeper, gateway and " + string(w) + " around Claude Code, more than when it is started by hand"
}

// taken is what one start of the CLI took.
type taken struct {
	first time.Duration // until the model was asked
	end   time.Duration
	cpu   time.Duration // processor time of all processes but the model's
}

// BenchmarkOverhead has the real CLI talk to a scripted model, started by hand and as
// the worker does it, behind each wall.
func BenchmarkOverhead(b *testing.B) {
	o := newOverhead(b)
	ways := []*agentProcess{o.start("")}
	for _, wall := range process.Walls() {
		ways = append(ways, o.start(wall))
	}
	byHand, more := make([]taken, 0, overheadRounds), make([][]taken, len(ways))
	for round := range overheadRounds + 1 {
		took := make([]taken, len(ways))
		for i := range ways {
			i = (i + round) % len(ways) // each goes first equally often
			took[i] = o.measure(ways[i])
		}
		if round == 0 {
			continue // it reads the programs from the disk
		}
		byHand = append(byHand, took[0])
		for i, t := range took {
			more[i] = append(more[i], taken{t.first - took[0].first, t.end - took[0].end, t.cpu - took[0].cpu})
		}
	}
	b.Logf("by hand %v", byHand)
	for i, w := range ways[1:] {
		keeper, worker := o.memory(w)
		b.Logf("%s, more than by hand: %v; bytes of the keeper %d, of the worker %d", w.wall, more[i+1], keeper, worker)
		results.set(overheadRow(w.wall), row{
			fmt.Sprintf("%s; **%.1f MB**, %.1f of them the worker's", times(more[i+1]),
				float64(median(keeper)+median(worker))/1e6, float64(median(worker))/1e6),
			"by hand: " + times(byHand) + "; goals ≤ 100 ms more, ≤ 30 MB",
			fmt.Sprintf("%d; memory %d", overheadRounds, overheadHolds),
		})
	}
}

// times says what several starts took.
func times(all []taken) string {
	each := func(of func(taken) time.Duration) string {
		var list []time.Duration
		for _, t := range all {
			list = append(list, of(t))
		}
		return spread(list, time.Millisecond, 0)
	}
	return fmt.Sprintf("%s until the model is asked, %s until the end, processor time %s",
		each(func(t taken) time.Duration { return t.first }), each(func(t taken) time.Duration { return t.end }),
		each(func(t taken) time.Duration { return t.cpu }))
}

// overhead is what the measurement needs, whoever starts the CLI.
type overhead struct {
	b       *testing.B
	model   *modelserver.Server
	users   processtest.Users
	program string // this one, where another user may start it
	setup   agentSetup
	runs    int
}

func newOverhead(b *testing.B) *overhead {
	b.Helper()
	o := &overhead{b: b, model: modelserver.Start(b), users: processtest.NewUsers(b)}
	above := filepath.Dir(o.users.Keeper)
	keeper := filepath.Join(above, "webordinary-keeper")
	o.users.Install(b, processtest.Build(b, "github.com/webordinary/claude-code-container/cmd/keeper"), keeper, 0o755)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	o.program = filepath.Join(above, "worker.test")
	o.users.Install(b, self, o.program, 0o755)
	cli := realCLI(b)
	o.setup = agentSetup{
		CLI: cli, Model: o.model.URL(), Keeper: keeper, Setuid: o.users.Keeper,
		Read: []string{filepath.Dir(filepath.Dir(filepath.Dir(cli)))}, Env: process.Environ(os.Environ(), nil),
	}
	o.model.Play("say", modelserver.Say("Said."))
	return o
}

// realCLI is the Claude Code CLI, as make setup installs it.
func realCLI(tb testing.TB) string {
	tb.Helper()
	path, err := filepath.EvalSymlinks("../../.tools/npm/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		tb.Fatal("the Claude Code CLI is not installed: run make setup")
	}
	return path
}

// agentProcess is a process of an unprivileged user that starts the CLI, as a worker
// does or by hand.
type agentProcess struct {
	wall    process.Wall // empty means by hand
	pid     int
	idle    int64 // its resident bytes before it did anything
	orders  *json.Encoder
	answers *json.Decoder
}

func (o *overhead) start(wall process.Wall) *agentProcess {
	o.b.Helper()
	name := "by-hand"
	if wall != "" {
		name = string(wall)
	}
	setup := o.setup
	setup.Wall, setup.Dir, setup.Pair = wall, o.users.Mkdir(o.b, name, 0o711), "overhead-"+strconv.Itoa(os.Getpid())
	home := o.users.Mkdir(o.b, name+"-home", 0o700)
	cmd := exec.CommandContext(o.b.Context(), o.program)
	cmd.Dir, cmd.Stderr = setup.Dir, os.Stderr
	cmd.Env = process.With(setup.Env, agentVariable+"=1", "HOME="+home, "TMPDIR="+home)
	setup.Env = process.With(setup.Env, "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: processtest.WorkerID, Gid: processtest.WorkerID}}
	in, err := cmd.StdinPipe()
	o.ok(err)
	out, err := cmd.StdoutPipe()
	o.ok(err)
	o.ok(cmd.Start())
	o.b.Cleanup(func() {
		in.Close() //nolint:errcheck // its end is the order to end
		cmd.Wait() //nolint:errcheck // what it did is measured
	})
	p := &agentProcess{wall: wall, pid: cmd.Process.Pid, orders: json.NewEncoder(in), answers: json.NewDecoder(out)}
	o.ok(p.orders.Encode(setup))
	p.read(o.b) // it is there
	p.idle = resident(o.b, p.pid)
	return p
}

func (o *overhead) ok(err error) {
	o.b.Helper()
	if err != nil {
		o.b.Fatal(err)
	}
}

func (p *agentProcess) read(b *testing.B) agentRan {
	b.Helper()
	var ran agentRan
	if err := p.answers.Decode(&ran); err != nil || ran.Error != "" {
		b.Fatalf("%q: %v %s", p.wall, err, ran.Error)
	}
	return ran
}

// order has the CLI started in a new conversation.
func (o *overhead) order(p *agentProcess) {
	o.b.Helper()
	o.runs++
	o.model.Forget()
	o.ok(p.orders.Encode(agentOrder{Thread: strconv.Itoa(o.runs), Instruction: "say"}))
}

// measure has the CLI started, and waits for its end.
func (o *overhead) measure(p *agentProcess) taken {
	o.b.Helper()
	o.order(p)
	ran := p.read(o.b)
	asked := o.model.Requests()
	if len(asked) == 0 {
		o.b.Fatalf("%q: the model was not asked", p.wall)
	}
	return taken{asked[0].At.Sub(ran.Began), ran.Ended.Sub(ran.Began), ran.CPU}
}

// memory returns what is resident more than the CLI while it waits for an answer: of
// the keeper and what leads through the wall, and of the worker. A byte is a nanosecond.
func (o *overhead) memory(p *agentProcess) (keeper, worker []time.Duration) {
	o.b.Helper()
	for range overheadHolds {
		gate := modelserver.NewGate()
		o.model.Play("say", modelserver.Say("Said.").Behind(gate))
		o.order(p)
		select {
		case <-gate.Reached():
		case <-time.After(patience):
			o.b.Fatalf("%q: the model was not asked", p.wall)
		}
		var all int64
		for _, pid := range between(o.b, p.pid) {
			all += proportional(o.b, pid)
		}
		keeper, worker = append(keeper, time.Duration(all)), append(worker, time.Duration(resident(o.b, p.pid)-p.idle))
		gate.Open()
		p.read(o.b)
	}
	return keeper, worker
}

// between are the processes below one, down to the CLI, which does not count, nor does
// what is below it.
func between(b *testing.B, root int) []int {
	b.Helper()
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", queue[0]))
		if err != nil {
			b.Fatal(err)
		}
		for _, task := range tasks {
			children, err := os.ReadFile(task)
			if err != nil {
				b.Fatal(err)
			}
			for child := range strings.FieldsSeq(string(children)) {
				exe, err := os.Readlink("/proc/" + child + "/exe")
				if err != nil || filepath.Base(exe) == "claude" {
					continue
				}
				pid, err := strconv.Atoi(child)
				if err != nil {
					b.Fatal(err)
				}
				all, queue = append(all, pid), append(queue, pid)
			}
		}
	}
	if len(all) == 0 {
		b.Fatal("there is no keeper")
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// proportional is a process's memory, in bytes, where what several have is divided by
// their number.
func proportional(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	f := strings.Fields(rest)
	if len(f) < 2 || f[1] != "kB" {
		b.Fatalf("no Pss in %s", text)
	}
	kb, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb << 10
}
