package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

type sendOptions struct {
	given
	file    string
	follow  bool
	timeout time.Duration
	output  string
}

func sendCommand(sys system) *cobra.Command {
	var o sendOptions
	cmd := &cobra.Command{
		Use:   "send [instruction]",
		Short: "Send an instruction, and follow it to its answer",
		Long: "Sends an instruction as the platform does: it goes to the project's input queue, and then, unless\n" +
			"the project's row says that a worker has it and lives, a claim request to the unclaimed queue.\n\n" +
			"With --file it sends many, one JSON object a line, each an InputMessage; --file - and an\n" +
			"instruction that is missing mean stdin. What a line does not say (projectId, userId, threadId,\n" +
			"repoUrl, sessionId, commandId) is taken from the flags, or made up. All lines are checked before\n" +
			"the first is sent.\n\n" +
			"With --follow it waits for the answers, tells on stderr what happens, and ends with code 0 if all\n" +
			"succeeded. It takes its own answers from the output queue, and puts the others back at once.",
		Example: "  webordinary send --project amelia --user scott --thread t1 --follow \"Make the header green\"\n" +
			"  webordinary send --project amelia --user scott --file batch.jsonl --follow --output json",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSend(cmd.Context(), sys, o, args) },
	}
	o.add(cmd, " of the instruction")
	f := cmd.Flags()
	f.StringVar(&o.thread, "thread", "", "threadId: the conversation, which has a branch of its own")
	f.StringVar(&o.repo, "repo", "", "repoUrl; needed when the project is used for the first time")
	f.StringVar(&o.session, "session", "", "sessionId, which comes back with the answer (default made up)")
	f.StringVar(&o.command, "command", "", "commandId (default made up)")
	f.StringVar(&o.file, "file", "", "file with an InputMessage a line, in JSON; - is stdin")
	f.BoolVar(&o.follow, "follow", false, "wait for the answers; the exit code says whether all succeeded")
	f.DurationVar(&o.timeout, "timeout", 0, "with --follow: how long to wait (default until all are answered)")
	outputFlag(cmd, &o.output, "what was sent, or with --follow each OutputMessage, a line each")
	return cmd
}

func runSend(ctx context.Context, sys system, so sendOptions, args []string) error {
	o, err := newOperator(ctx, sys, so.output, "UNCLAIMED_QUEUE_URL")
	if err != nil {
		return err
	}
	defer o.close()
	all, err := so.read(sys, args, protocol.Rules{AllowedRepoHosts: o.config.AllowedRepoHosts, Names: o.names})
	if err != nil {
		return err
	}
	s := &sender{newAsker(o)}
	if so.timeout > 0 && !so.follow {
		return errors.New("--timeout is how long --follow waits; say --follow too")
	}
	var f *follower
	if so.follow {
		if f, err = newFollower(ctx, o, all); err != nil {
			return err
		}
	}
	if err := s.sendAll(ctx, all, !so.follow); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	return f.run(ctx, so.timeout)
}

// read returns the instructions, all of them checked.
func (so sendOptions) read(sys system, args []string, rules protocol.Rules) ([]instruction, error) {
	switch {
	case len(args) > 0 && so.file != "":
		return nil, errors.New("an instruction and --file are given; only one of them can be sent")
	case len(args) > 0:
		line, err := json.Marshal(map[string]string{"instruction": args[0]})
		if err != nil {
			return nil, err
		}
		one, err := complete(line, so.given, rules)
		return []instruction{one}, hinted(err)
	case so.command != "":
		return nil, errors.New("--command is for one instruction; in a batch each line has its own commandId")
	case so.file == "" && fromTerminal(sys.stdin):
		return nil, errors.New("the instruction is missing: webordinary send --project P --user U --thread T \"instruction\"; or --file")
	case so.file == "" || so.file == "-":
		return readBatch(sys.stdin, so.given, rules)
	}
	f, err := os.Open(so.file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	all, err := readBatch(f, so.given, rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", so.file, err)
	}
	return all, nil
}

// hinted names the flag of an id that is missing.
func hinted(err error) error {
	for id, flag := range map[string]string{"projectId": "--project", "userId": "--user", "threadId": "--thread"} {
		if err != nil && err.Error() == id+" is missing" {
			return fmt.Errorf("%w; say %s", err, flag)
		}
	}
	return err
}

// fromTerminal reports whether there is a person at the other end.
func fromTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && isTerminal(f)
}

// sender sends instructions as the orchestrator does.
type sender struct{ *asker }

// sendAll sends in order. Whatever ends it, nothing that was sent is left to nobody.
func (s *sender) sendAll(ctx context.Context, all []instruction, result bool) (err error) {
	defer func() { err = errors.Join(err, s.settle(ctx)) }()
	for _, one := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.sendOne(ctx, one, result); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) sendOne(ctx context.Context, one instruction, result bool) error {
	m := one.message
	p := m.Pair()
	input := s.names.Input(p)
	if err := s.publish(ctx, input, bytes.TrimSpace(one.body)); err != nil {
		if errorCode(err) == "" { // nobody answered who would know more
			return fmt.Errorf("%s was not sent: %w", m.CommandID, err)
		}
		if d, derr := s.depth(ctx, input); derr == nil && d.Missing {
			return fmt.Errorf("%s has no input queue (%s): it was not set up, or a pattern of queue names or the region is another one", p.Key(), input)
		}
		return fmt.Errorf("%s was not sent: %w", m.CommandID, err)
	}
	asked, err := s.ask(ctx, p)
	if err != nil {
		return err
	}
	switch {
	case !result:
		s.note("%s", sentLine(m, asked))
		return nil
	case s.json:
		return writeJSON(s.sys.stdout, sent{
			CommandID: m.CommandID, ProjectID: m.ProjectID, UserID: m.UserID, ThreadID: m.ThreadID, SessionID: m.SessionID, ClaimRequested: asked,
		})
	}
	return s.say("%s", sentLine(m, asked))
}

// sent is what send prints of a message.
type sent struct {
	CommandID      string `json:"commandId"`
	ProjectID      string `json:"projectId"`
	UserID         string `json:"userId"`
	ThreadID       string `json:"threadId"`
	SessionID      string `json:"sessionId"`
	ClaimRequested bool   `json:"claimRequested"`
}

func sentLine(m protocol.InputMessage, asked bool) string {
	then := "a worker has the project"
	if asked {
		then = "a worker was asked to take the project"
	}
	return fmt.Sprintf("sent %s to %s; %s", inert(m.CommandID), m.Pair().Key(), then)
}
