package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// instruction is an InputMessage that is ready to be sent.
type instruction struct {
	message protocol.InputMessage
	body    []byte
}

// given is what the flags of send say of a message that does not say it itself.
type given struct {
	pairFlags
	thread, repo, session, command string
}

// maxLine is more than the longest message that a queue takes.
const maxLine = 1 << 20

// readBatch reads InputMessages, a JSON object a line. It returns them only if all are
// right; else it says of each line what is wrong with it.
func readBatch(r io.Reader, g given, rules protocol.Rules) ([]instruction, error) {
	var all []instruction
	var wrong []error
	ids := map[string]int{} // the line of each command
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	n := 0
	for in.Scan() {
		n++
		line := bytes.TrimSpace(in.Bytes())
		if len(line) == 0 {
			continue
		}
		one, err := complete(line, g, rules)
		if err == nil {
			key := one.message.Pair().Key() + " " + one.message.CommandID
			if first := ids[key]; first > 0 {
				err = fmt.Errorf("its commandId is that of line %d too", first)
			} else {
				ids[key] = n
			}
		}
		if err != nil {
			if line[0] != '{' {
				err = fmt.Errorf("%w; each line of a batch is a JSON object, and a single instruction is an argument in quotes", err)
			}
			wrong = append(wrong, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		all = append(all, one)
	}
	if err := in.Err(); err != nil {
		wrong = append(wrong, fmt.Errorf("line %d: %w", n+1, err))
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("nothing was sent:\n%w", errors.Join(wrong...))
	}
	if len(all) == 0 {
		return nil, errors.New("there is no message to send: want an InputMessage a line, in JSON")
	}
	return all, nil
}

// complete adds what a message lacks, and checks it by the worker's rules. Fields
// that we do not know stay in it.
func complete(line []byte, g given, rules protocol.Rules) (instruction, error) {
	in, err := protocol.DecodeInput(line, protocol.Delivery{})
	if err != nil {
		return instruction{}, err
	}
	if in.Command == nil {
		return instruction{}, errors.New("it is an interrupt without an instruction; send takes instructions")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return instruction{}, err
	}
	m := in.Command
	for _, f := range []struct{ name, has, otherwise string }{
		{"projectId", m.ProjectID, g.project},
		{"userId", m.UserID, g.user},
		{"threadId", m.ThreadID, g.thread},
		{"repoUrl", m.RepoURL, g.repo},
		{"sessionId", m.SessionID, orNew(g.session, "cli-")},
		{"commandId", m.CommandID, orNew(g.command, "cli-")},
	} {
		if f.has == "" && f.otherwise != "" {
			fields[f.name] = quoted(f.otherwise)
		}
	}
	if fields["type"] == nil {
		fields["type"] = quoted("work")
	}
	if fields["timestamp"] == nil {
		fields["timestamp"] = json.RawMessage(fmt.Sprint(time.Now().UnixMilli()))
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return instruction{}, err
	}
	if in, err = protocol.DecodeInput(body, protocol.Delivery{}); err != nil {
		return instruction{}, err
	}
	return instruction{message: *in.Command, body: body}, in.Command.Validate(rules)
}

func orNew(id, prefix string) string {
	if id != "" {
		return id
	}
	return prefix + strings.ToLower(rand.Text()[:13])
}

func quoted(s string) json.RawMessage {
	b, err := json.Marshal(s)
	must(err) // a string always encodes
	return b
}
