package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// level is how bad a finding is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// finding is what one check found, and what to do about it.
type finding struct {
	Check string `json:"check"`
	Level level  `json:"level"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"`
}

func ok(check, format string, args ...any) finding {
	return finding{Check: check, Level: levelOK, Found: fmt.Sprintf(format, args...)}
}

func bad(l level, check, found, do string) finding {
	return finding{Check: check, Level: l, Found: found, Do: do}
}

// checkTime bounds one check.
const checkTime = 15 * time.Second

type doctorOptions struct {
	pairFlags
	repo, output string
}

func doctorCommand(sys system) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that a worker could work here, and say what to do if not",
		Long: "Checks what a worker needs, with the same environment: AWS and what was set up there, the git token,\n" +
			"the model's credentials, the programs, the wall around the agent, and this machine. A line each: ok,\n" +
			"warn or fail, what was found, and what to do.\n\n" +
			"It reads only, and leaves nothing behind. On the file system of the workspaces it makes a file without\n" +
			"a name, or where that is not possible one that it takes away at once, to see whom it belongs to; the\n" +
			"wall of users is tried in a directory that it takes away. A push is not tried: the remote is asked\n" +
			"what it asks before one.\n\n" +
			"With --project and --user it checks that project's queues and bucket too, and with --repo whether the\n" +
			"token may push there; without --repo it takes the repository of the workspace, if there is one.\n\n" +
			"Exit code 1 means that something failed; with warnings it is 0.",
		Example: "  webordinary doctor --project amelia --user scott --repo https://github.com/acme/site.git",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), sys, o) },
	}
	o.add(cmd, " whose queues and bucket are checked")
	cmd.Flags().StringVar(&o.repo, "repo", "", "repository that the git token is tried on")
	outputFlag(cmd, &o.output, "an object with findings")
	return cmd
}

// doctor has what the checks look at.
type doctor struct {
	*operator
	options doctorOptions
	pair    *protocol.Pair // nil means all
	deaf    bool           // there are no credentials: nothing in AWS needs to be asked
	silent  bool           // SQS did not answer: it needs not be asked again
	// wall says which wall is around the agent, and what it leaves open.
	wall func(context.Context) []finding
}

func runDoctor(ctx context.Context, sys system, options doctorOptions) error {
	d := &doctor{options: options}
	findings, err := d.prepare(ctx, sys)
	if err != nil {
		return err
	}
	if d.operator != nil {
		defer d.close()
	}
	show := &chart{sys: sys, json: options.output == outputJSON, style: styleOf(sys.stdout, sys.environ)}
	for _, f := range findings {
		show.add(f)
	}
	if d.operator != nil {
		for _, check := range d.checks() {
			for _, f := range bounded(ctx, check) {
				show.add(f)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return show.end()
}

// prepare reads the configuration. Without it, that it is wrong is the only finding.
func (d *doctor) prepare(ctx context.Context, sys system) ([]finding, error) {
	o, err := readOperator(ctx, sys, d.options.output)
	if err != nil {
		var all []finding
		text := err.Error()
		if wrong, ok := errors.AsType[*configError](err); ok {
			text = wrong.problems
		}
		for line := range strings.Lines(text) {
			all = append(all, bad(levelFail, "configuration", strings.TrimSpace(line), "see `webordinary run --help`"))
		}
		return all, nil
	}
	d.operator = o
	pair, given, err := d.options.pair(o.names)
	if err != nil {
		o.close()
		return nil, err
	}
	if given {
		d.pair = &pair
	}
	d.wall = o.config.lookAtWall
	return []finding{ok("configuration", "can be read")}, nil
}

// checks are all that is looked at, in this order.
func (d *doctor) checks() []func(context.Context) []finding {
	return []func(context.Context) []finding{
		d.credentials, d.inAWS(d.sharedQueues), d.inAWS(d.projectQueues), d.inAWS(d.ownershipTable), d.inAWS(d.journalTable), d.inAWS(d.site),
		d.gitToken, d.model, d.agentProgram, d.programs, d.wall, d.workspaces, d.disk, d.settings,
	}
}

// inAWS leaves a check out that can find no more than that there are no credentials.
func (d *doctor) inAWS(check func(context.Context) []finding) func(context.Context) []finding {
	return func(ctx context.Context) []finding {
		if d.deaf {
			return nil
		}
		return check(ctx)
	}
}

// bounded makes a check that hangs one that failed.
func bounded(ctx context.Context, check func(context.Context) []finding) []finding {
	ctx, cancel := context.WithTimeout(ctx, 4*checkTime)
	defer cancel()
	return check(ctx)
}

// chart prints findings as they come.
type chart struct {
	sys   system
	json  bool
	style style
	all   []finding
	count map[level]int
	err   error
}

func (c *chart) add(f finding) {
	if c.count == nil {
		c.count = map[level]int{}
	}
	c.all = append(c.all, f)
	c.count[f.Level]++
	if c.json {
		return
	}
	colour := map[level]string{levelOK: green, levelWarn: yellow, levelFail: red}[f.Level]
	line := c.style.paint(colour, fmt.Sprintf("%-4s", f.Level)) + "  " + c.style.paint(bold, fmt.Sprintf("%-13s", f.Check)) + "  " + inert(f.Found)
	if f.Do != "" {
		line += c.style.paint(faint, " → ") + inert(f.Do)
	}
	_, err := fmt.Fprintln(c.sys.stdout, line)
	c.err = errors.Join(c.err, err)
}

// errUnhealthy ends doctor with code 1.
var errUnhealthy = fmt.Errorf("%w: a check failed", errUnsuccessful)

func (c *chart) end() error {
	if c.json {
		err := writeJSON(c.sys.stdout, struct {
			OK       int       `json:"ok"`
			Warn     int       `json:"warn"`
			Fail     int       `json:"fail"`
			Findings []finding `json:"findings"`
		}{c.count[levelOK], c.count[levelWarn], c.count[levelFail], c.all})
		c.err = errors.Join(c.err, err)
	} else {
		_, err := fmt.Fprintf(c.sys.stdout, "\n%d ok, %s, %s\n", c.count[levelOK], counted(c.count[levelWarn], "warning"), counted(c.count[levelFail], "failure"))
		c.err = errors.Join(c.err, err)
	}
	switch {
	case c.err != nil:
		return c.err
	case c.count[levelFail] > 0:
		return errUnhealthy
	}
	return nil
}
