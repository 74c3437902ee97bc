package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/router"
)

const defaultInstruction = "Make the header blue"

type demoOptions struct {
	dir    string
	output string
	stdin  bool
	serve  bool
	text   string
}

func demoCommand(sys system) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo [instruction]",
		Short: "See an instruction become a deployed site, on this machine alone",
		Long: "Creates a git remote with an example site, sends the instruction through the same router as the\n" +
			"container's, over queues in memory, and deploys to a directory. With ANTHROPIC_API_KEY or\n" +
			"CLAUDE_CODE_USE_BEDROCK in the environment Claude carries it out; without, a small scripted\n" +
			"agent does, which knows colours.\n\n" +
			"With --stdin it reads messages instead, one JSON object a line: InputMessages and INTERRUPTs.\n" +
			"They are sent as they come, and each OutputMessage is printed as a line. Exit code 0 then means\n" +
			"that all messages were worked on, whatever the answers say.\n\n" +
			"On the same --dir a demo goes on where it was: a commandId that is known resumes or replays.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.text = defaultInstruction
			if len(args) > 0 {
				o.text = args[0]
			}
			if o.output != "text" && o.output != "json" {
				return fmt.Errorf("--output is %q; text or json", o.output)
			}
			if o.serve && o.stdin {
				return errors.New("--serve shows what one instruction brought; leave --stdin out")
			}
			return runDemo(cmd.Context(), sys, o)
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "where to work (default webordinary-demo in the user's cache directory)")
	cmd.Flags().StringVar(&o.output, "output", "text", "text, or json: the OutputMessage alone on stdout")
	cmd.Flags().BoolVar(&o.serve, "serve", false, "then serve the deployed site on a loopback address, until Ctrl-C")
	cmd.Flags().BoolVar(&o.stdin, "stdin", false, "read messages from stdin, one JSON object a line")
	return cmd
}

// demo is a worker on queues in memory, and somebody who sends to it.
type demo struct {
	sys    system
	dir    string
	config *config
	names  protocol.Names
	queues *router.Memory
	table  *claim.Memory
	log    *slog.Logger
	quiet  bool // steps are told on stderr, as stdout has JSON
	look   style
	screen *display // nil where there is no terminal
	began  time.Time

	mu       sync.Mutex
	watched  map[string]bool
	last     protocol.Pair
	buckets  map[string]*deploy.Directory
	answers  []protocol.OutputMessage
	printing io.Writer // where answers go, a line each; nil in a one-shot demo
}

func runDemo(ctx context.Context, sys system, o demoOptions) error {
	if err := process.Harden(); err != nil {
		return err
	}
	c, err := loadDemoConfig(sys)
	if err != nil {
		return err
	}
	dir, err := demoDir(o.dir)
	if err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	logFile, err := os.OpenFile(filepath.Join(dir, "log.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the directory is the user's choice
	if err != nil {
		return err
	}
	defer logFile.Close() //nolint:errcheck // a log line more or less
	d := &demo{
		sys: sys, dir: dir, config: c, names: c.names(), queues: router.NewMemory(router.MemoryConfig{}), table: &claim.Memory{},
		log: c.logger(logFile), quiet: o.stdin || o.output == "json", watched: map[string]bool{}, buckets: map[string]*deploy.Directory{},
	}
	if o.stdin {
		d.printing = sys.stdout
	}
	d.screen = d.onTerminal(o)
	remote, err := d.createRemote()
	if err != nil {
		return err
	}
	r, err := d.newRouter(ctx, logFile)
	if err != nil {
		return err
	}
	d.introduce(o, remote)
	if err := errors.Join(d.perform(ctx, r, o, remote), d.closeBuckets()); err != nil {
		return err
	}
	if o.stdin {
		return nil
	}
	if err := d.report(o); err != nil || !o.serve {
		return err
	}
	return d.serve(ctx)
}

// onTerminal returns where the steps are drawn; nil if that is no terminal, or if
// there is more than one command.
func (d *demo) onTerminal(o demoOptions) *display {
	f, ok := d.people().(*os.File)
	d.look = styleOf(d.people(), d.sys.environ)
	if !ok || o.stdin || !isTerminal(f) || variable(d.sys.environ, "TERM") == "dumb" {
		return nil
	}
	return newDisplay(f, d.sys.environ)
}

// perform works, while somebody watches.
func (d *demo) perform(ctx context.Context, r *router.Router, o demoOptions, remote string) error {
	d.began = time.Now()
	if d.screen != nil {
		go d.screen.run() // ends with close, which waits
		defer d.screen.close()
	}
	return d.work(ctx, r, o, remote)
}

// loadDemoConfig is the container's configuration, with what a demo does when
// nothing is said.
func loadDemoConfig(sys system) (*config, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c, err := loadConfig(sys.environ)
	if err != nil {
		return nil, err
	}
	if !c.agentExplicit && c.AnthropicKey == "" && !c.UseBedrock {
		c.Agent, c.agentWords = "command", []string{self, "demo-agent"}
	}
	if c.needsKey() && c.AnthropicKey == "" {
		return nil, fmt.Errorf("AGENT is claude, and %s is missing", anthropicKey)
	}
	if !c.claimsExplicit {
		c.MaxClaims = 8
	}
	return c, nil
}

func demoDir(dir string) (string, error) {
	if dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no place to work: %w; name one with --dir", err)
		}
		dir = filepath.Join(caches, "webordinary-demo")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o711) //nolint:gosec // under the wall of users, pairs pass through
}

// lockDir keeps a second demo out. The kernel lets go when the program ends,
// however it does.
func lockDir(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the directory is the user's choice
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // nothing was written
		return nil, fmt.Errorf("another demo works in %s; wait for it, or name another --dir", dir)
	}
	return func() { f.Close() }, nil //nolint:errcheck // nothing was written
}

func (d *demo) newRouter(ctx context.Context, metrics io.Writer) (*router.Router, error) {
	store, err := journal.NewDirectory(journal.DirectoryConfig{Root: filepath.Join(d.dir, "journal"), Current: d.fence})
	if err != nil {
		return nil, err
	}
	instruction, err := d.config.newInstruction(ctx, d.sys.environ, filepath.Join(d.dir, "workspace"), d.log)
	if err != nil {
		return nil, err
	}
	instruction.Journal = &journal.Journal{Store: store, Wrote: faults(d.sys.environ)}
	instruction.Rules.AllowFile = true
	instruction.Step, instruction.Took, instruction.Bucket = d.step, d.took, d.bucket
	return router.New(router.Config{
		Unclaimed: unclaimed, Queues: d.queues, Names: d.names, Instruction: *instruction,
		Claims: &claim.Claims{
			Table: d.table, ContainerID: "demo", Duration: d.config.LeaseDuration, Renewal: d.config.LeaseRenewal, Log: d.log,
		},
		MaxClaims: d.config.MaxClaims, IdleTimeout: d.config.IdleTimeout, SweepInterval: d.config.SweepInterval,
		Policy: router.Policy(d.config.InterruptPolicy), ShutdownGrace: d.config.ShutdownGrace, Metrics: metrics, Redact: d.config.redact(), Log: d.log,
	})
}

const unclaimed = "webordinary-unclaimed"

// fence is the one in the claim row, against which journal writes are checked.
func (d *demo) fence(ctx context.Context, key string) (int64, error) {
	row, err := d.table.Get(ctx, key)
	if errors.Is(err, claim.ErrNoRow) {
		return 0, nil
	}
	return row.Fence, err
}

// bucket opens each directory once, for as long as the demo runs.
func (d *demo) bucket(name string) (deploy.Bucket, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.buckets[name]; b != nil {
		return b, nil
	}
	b, err := deploy.OpenDirectory(d.bucketDir(name), nil)
	if err != nil {
		return nil, err
	}
	d.buckets[name] = b
	return b, nil
}

func (d *demo) closeBuckets() error {
	var errs []error
	for _, b := range d.buckets {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

func (d *demo) bucketDir(name string) string { return filepath.Join(d.dir, "sites", name) }

// work runs the router until what is to be sent was answered, or ctx ends.
func (d *demo) work(ctx context.Context, r *router.Router, o demoOptions, remote string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-r.Running():
	}
	if err := d.watch(ctx, d.names.Unclaimed(), d.buried); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		var err error
		if o.stdin {
			err = d.sendLines(ctx)
		} else {
			err = d.sendOne(ctx, o.text, remote)
		}
		if err == nil {
			err = d.queues.Drained(ctx)
		}
		sent <- err
	}()
	var err error
	select {
	case err = <-sent:
		stop()
	case <-ctx.Done():
	case rerr := <-ended:
		return rerr
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, <-ended, d.queues.Close())
}

func (d *demo) sendOne(ctx context.Context, text, remote string) error {
	m := protocol.InputMessage{
		ProjectID: "demo", UserID: "you", ThreadID: "demo", SessionID: "demo", CommandID: uuid.NewString(),
		Instruction: text, RepoURL: remote, Timestamp: time.Now(),
	}
	body, err := m.Encode()
	if err != nil {
		return err
	}
	p := m.Pair()
	if err := d.watchPair(ctx, p); err != nil {
		return err
	}
	// A claim request that carries its work.
	return d.publish(ctx, unclaimed, message.NewMessage(watermill.NewUUID(), body))
}

// report says what came of a one-shot demo.
func (d *demo) report(o demoOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.answers) == 0 {
		return fmt.Errorf("stopped before the instruction was done; what was done is kept in %s", d.dir)
	}
	out := d.answers[len(d.answers)-1]
	if o.output == "json" {
		if err := json.NewEncoder(d.sys.stdout).Encode(out); err != nil {
			return err
		}
	} else if d.screen == nil {
		pretty, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			return err
		}
		d.show(d.sys.stdout, "\n%s\n", pretty)
	}
	if d.screen != nil {
		d.summarize(out)
	}
	site := filepath.Join(d.bucketDir(d.names.Bucket("demo")), "index.html")
	d.show(d.people(), "\nsite    %s\nbranch  %s in %s\nlog     %s\n", site, out.Branch, d.remoteDir(), filepath.Join(d.dir, "log.jsonl"))
	if !out.Success {
		d.show(d.people(), "\n%s: %s\n", out.ErrorCode, out.Error)
		return errUnsuccessful
	}
	return nil
}

// people is where text for people goes.
func (d *demo) people() io.Writer {
	if d.quiet {
		return d.sys.stderr
	}
	return d.sys.stdout
}

func (d *demo) show(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format, args...) //nolint:errcheck // nobody reads: there is nobody to tell
}

// step shows what is done.
func (d *demo) step(s handlers.Step) {
	if d.screen != nil {
		d.screen.step(s)
		return
	}
	if s.Text != "" || s.Tool != "" {
		d.tell(s.Name, strings.TrimSpace(s.Tool+" "+s.Text))
	}
}

// took shows that a step is over.
func (d *demo) took(_ context.Context, step string, took time.Duration, failed bool) {
	if d.screen != nil {
		d.screen.took(step, took, failed)
	}
}

// summarize says on a terminal what came of the instruction.
func (d *demo) summarize(out protocol.OutputMessage) {
	mark, colour := "done", green
	if !out.Success {
		mark, colour = "failed", red
	}
	text := "\n" + d.look.paint(colour, mark) + "    in " + seconds(time.Since(d.began))
	if a := out.Agent; a != nil && a.Turns > 0 {
		text += fmt.Sprintf(", %s of the model, %.2f dollars", counts(a.Turns, "answer", "answers"), a.CostUSD)
	}
	d.show(d.people(), "%s\n", text)
	for line := range strings.SplitSeq(strings.TrimSpace(d.config.redact()(out.Summary)), "\n") {
		if line = inert(line); line != "" {
			d.show(d.people(), "        %s\n", line)
		}
	}
	if n := out.FilesChangedTotal; n > 0 {
		const most = 5
		some := out.FilesChanged[:min(len(out.FilesChanged), most)]
		list := inert(strings.Join(some, ", "))
		if n > len(some) {
			list += fmt.Sprintf(" and %d more", n-len(some))
		}
		d.show(d.people(), "files   %s\n", list)
	}
}

// tell shows a line of a few words.
func (d *demo) tell(name, text string) {
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, d.config.redact()(text))
	if d.screen != nil {
		d.screen.print("  " + d.look.paint(faint, padded(name, 10)) + "  " + inert(line))
		return
	}
	d.show(d.people(), "%-10s %s\n", name, line)
}

func (d *demo) introduce(o demoOptions, remote string) {
	who := "Claude"
	if d.config.Agent == "command" {
		who = "the program " + d.config.agentWords[0]
		if !d.config.agentExplicit {
			who = "a small scripted agent, as there is no ANTHROPIC_API_KEY; it knows colours"
		}
	}
	d.tell("agent is", who)
	for _, w := range d.config.warnings() {
		d.tell("warning", w)
		d.log.Warn("configuration", slog.String("warning", w))
	}
	if !o.stdin {
		d.tell("remote", strings.TrimPrefix(remote, "file://"))
		d.tell("send", o.text)
	}
}
