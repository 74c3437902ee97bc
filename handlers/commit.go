package handlers

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

func (j *job) commit(ctx context.Context) error {
	if j.entry.Has(journal.Committed) {
		return nil
	}
	j.tell("commit", "recording the changes")
	message := func(files []string) string { return commitMessage(j.in, j.h.Lease.Fence(), files) }
	if j.failedAlready() {
		message = wipMessage(j.in)
	}
	lacks, err := j.lacksCommit(ctx)
	if err != nil {
		return err
	}
	c, err := j.ws.Commit(ctx, workspace.CommitRequest{Message: message, AllowEmpty: lacks})
	switch {
	case errors.Is(err, workspace.ErrNoChange):
		err = j.takeHead(ctx)
		j.leftOut(c.Left)
	case err != nil:
		if !j.blame(ctx, err) {
			return err
		}
		err = j.takeHead(ctx)
	default:
		err = j.take(ctx, c)
		j.leftOut(c.Left)
	}
	if err != nil {
		return err
	}
	return j.record(ctx, journal.Committed)
}

// lacksCommit reports whether the command is to have a commit of its own although it
// may be empty: its unfinished work has one. A former run may have made it, and a
// crash came before the journal knew. Only the message tells, which an agent can
// forge: then an empty commit is missing, and no more.
func (j *job) lacksCommit(ctx context.Context) (bool, error) {
	if j.entry.Wip == "" {
		return false, nil
	}
	made, err := j.ws.CommandIDs(ctx, j.entry.Wip)
	return !slices.Contains(made, j.in.CommandID), err
}

// takeHead is for a run without a commit of its own. If the thread's head is not
// where the command found it, a former run's work is there, and a crash came
// before the journal knew.
func (j *job) takeHead(ctx context.Context) error {
	if head := j.ws.Head(); head != j.entry.Base {
		files, err := j.ws.Files(ctx, j.entry.Base, head)
		if err != nil {
			return err
		}
		j.setCommit(head, files)
		return nil
	}
	j.setCommit(j.entry.Base, nil)
	return nil
}

// take makes a new commit the command's. What was saved as unfinished work is
// part of it.
func (j *job) take(ctx context.Context, c workspace.Commit) error {
	files := c.Files
	if j.entry.Wip != "" {
		var err error
		if files, err = j.ws.Files(ctx, j.entry.Base, c.SHA); err != nil {
			return err
		}
	}
	j.setCommit(c.SHA, files)
	return nil
}

func (j *job) setCommit(sha string, files []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.setCommitLocked(sha, files)
}

func (j *job) setCommitLocked(sha string, files []string) {
	if files == nil {
		files = []string{}
	}
	j.entry.Commit, j.out.CommitID = sha, sha
	j.out.SetFiles(files)
}

// leftOut names in the summary what was not committed.
func (j *job) leftOut(files []string) {
	for _, f := range files {
		j.out.Summary += "\n\nLeft out of the commit, as this platform does not allow it: " + f
	}
}

// changed reports whether the command has a commit of its own.
func (j *job) changed() bool { return j.entry.Commit != j.entry.Base }

// amend takes the lock file that installing changed into the commit.
func (j *job) amend(ctx context.Context) error {
	message := func(files []string) string { return commitMessage(j.in, j.h.Lease.Fence(), files) }
	c, err := j.ws.Commit(ctx, workspace.CommitRequest{Message: message, Amend: j.changed()})
	if errors.Is(err, workspace.ErrNoChange) {
		return nil
	}
	if err != nil {
		return err
	}
	return j.take(ctx, c)
}

// maxSubject is the length of a commit's first line.
const maxSubject = 72

// subject is the first line of an instruction, cut at a word.
func subject(instruction string) string {
	line := strings.TrimSpace(instruction)
	line, _, _ = strings.Cut(line, "\n")
	line = strings.Join(strings.Fields(line), " ")
	if utf8.RuneCountInString(line) <= maxSubject {
		return line
	}
	runes := []rune(line)[:maxSubject-1]
	short := string(runes)
	if i := strings.LastIndexByte(short, ' '); i > maxSubject/2 {
		short = short[:i]
	}
	return short + "…"
}

// commitMessage tells people what a commit is. Its trailers are evidence of one
// thing only; see isTwin.
func commitMessage(in protocol.InputMessage, fence int64, files []string) string {
	var b strings.Builder
	b.WriteString(heading(in) + "\n\nFiles:\n")
	const most = 50
	for _, f := range files[:min(len(files), most)] {
		b.WriteString("- " + strings.ReplaceAll(strings.ToValidUTF8(f, "�"), "\n", "�") + "\n")
	}
	if len(files) > most {
		b.WriteString("- and more\n")
	}
	b.WriteString("\nThread-Id: " + in.ThreadID + "\nSession-Id: " + in.SessionID + "\nCommand-Id: " + in.CommandID +
		"\nUser: " + in.UserID + "\nFence: " + strconv.FormatInt(fence, 10) + "\n")
	return b.String()
}

// wipMessage is the message of a commit with unfinished work.
func wipMessage(in protocol.InputMessage) func([]string) string {
	return func([]string) string {
		return "WIP: " + heading(in) +
			"\n\nThread-Id: " + in.ThreadID + "\nSession-Id: " + in.SessionID + "\nWip-For: " + in.CommandID + "\nUser: " + in.UserID + "\n"
	}
}

// heading is the subject, and the whole instruction. A line of it that looks like a
// trailer of ours is quoted.
func heading(in protocol.InputMessage) string {
	lines := strings.Split(strings.TrimSpace(in.Instruction), "\n")
	for i, line := range lines {
		key, _, ok := strings.Cut(strings.ToLower(strings.TrimSpace(line)), ":")
		if ok && slices.Contains([]string{"thread-id", "session-id", "command-id", "user", "fence", "wip-for"}, strings.TrimSpace(key)) {
			lines[i] = "> " + line
		}
	}
	return subject(in.Instruction) + "\n\n" + strings.Join(lines, "\n")
}

// isTwin reports whether a commit's message is that of this command, made by an
// owner before the one with this fence: one that was frozen, and pushed late. It is
// asked only of commits that the remote has and we have not. No agent can push;
// what an agent or an instruction wrote into a message of ours is not in its last
// paragraph.
func isTwin(message string, in protocol.InputMessage, fence int64) bool {
	message = strings.TrimRight(message, "\n")
	last := strings.LastIndex(message, "\n\n")
	if last < 0 {
		return false
	}
	trailers := map[string]string{}
	for line := range strings.SplitSeq(message[last+2:], "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if _, twice := trailers[key]; !ok || twice {
			return false
		}
		trailers[key] = value
	}
	theirs, err := strconv.ParseInt(trailers["Fence"], 10, 64)
	return err == nil && 0 < theirs && theirs < fence && trailers["Command-Id"] == in.CommandID &&
		trailers["User"] == in.UserID && trailers["Thread-Id"] == in.ThreadID
}
