package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// defaultGroup is where the container's log goes in AWS.
const defaultGroup = "/ecs/webordinary/edit"

type logsOptions struct {
	file    string // empty means CloudWatch Logs, - standard input
	group   string
	since   time.Duration
	follow  bool
	command string
	project string
	output  string
}

func logsCommand(sys system) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs [file]",
		Short: "Show the worker's log as lines for people",
		Long: "Shows the worker's log, which is lines of JSON, as lines for people: from a file, from standard\n" +
			"input (-), or, when none is named, from CloudWatch Logs with your AWS credentials.\n\n" +
			"A command's lines are found by --command, with the commandId or the correlation id; a project's by\n" +
			"--project, with projectId or projectId#userId. What is measured is shown in short.\n\n" +
			"With --output json the lines that were selected come as they are.",
		Example: "  webordinary logs --follow --project amelia#scott\n  webordinary logs --since 24h --command 0b1c\n  webordinary run | webordinary logs -",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.output != "text" && o.output != "json" {
				return fmt.Errorf("--output is %q; text or json", o.output)
			}
			if len(args) > 0 {
				o.file = args[0]
			}
			if o.file != "" && (cmd.Flags().Changed("group") || cmd.Flags().Changed("since")) {
				return errors.New("--group and --since are for CloudWatch Logs, and a file is named")
			}
			return showLogs(cmd.Context(), sys, o)
		},
	}
	cmd.Flags().StringVar(&o.group, "group", defaultGroup, "log group in CloudWatch Logs")
	cmd.Flags().DurationVar(&o.since, "since", time.Hour, "how far to look back in CloudWatch Logs")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with what is logged from now on, until Ctrl-C")
	cmd.Flags().StringVar(&o.command, "command", "", "only lines of the command with this commandId or correlation id")
	cmd.Flags().StringVar(&o.project, "project", "", "only lines of this projectId, or projectId#userId")
	cmd.Flags().StringVar(&o.output, "output", "text", "text, or json: lines as they are")
	return cmd
}

func showLogs(ctx context.Context, sys system, o logsOptions) error {
	out := &logLines{out: sys.stdout, options: o, style: styleOf(sys.stdout, sys.environ), zone: time.Local} //nolint:gosmopolitan // a person reads it
	var err error
	switch o.file {
	case "":
		err = followGroup(ctx, sys, o, out.show)
	case "-":
		ended := make(chan error, 1)
		go func() { ended <- readLines(ctx, sys.stdin, out.show) }() // ends with the input, or with the program
		select {
		case err = <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		}
	default:
		err = readFile(ctx, o, out.show)
	}
	if (o.follow || o.file == "-") && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // that is how it ends
	}
	return err
}

func readFile(ctx context.Context, o logsOptions, show func([]byte) error) error {
	f, err := os.Open(o.file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	t := &tailReader{r: f}
	if o.follow {
		t.ctx = ctx
	}
	return readLines(ctx, t, show)
}

// tailReader reads a file, and with a context also what comes to it later.
type tailReader struct {
	r   io.Reader
	ctx context.Context //nolint:containedctx // an io.Reader has none
}

// Read implements io.Reader.
func (t *tailReader) Read(p []byte) (int, error) {
	for {
		n, err := t.r.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) || t.ctx == nil {
			return n, err
		}
		if !waited(t.ctx, 250*time.Millisecond) {
			return 0, t.ctx.Err()
		}
	}
}

// waited reports whether the time passed before the context ended.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// maxLogLine bounds a line; a longer one comes in pieces, as text.
const maxLogLine = 1 << 20

func readLines(ctx context.Context, r io.Reader, show func([]byte) error) error {
	in := bufio.NewReaderSize(r, maxLogLine)
	for ctx.Err() == nil {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			if serr := show(line); serr != nil {
				return serr
			}
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("read the log: %w", err)
		}
	}
	return ctx.Err()
}
