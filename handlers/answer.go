package handlers

import (
	"context"
	"log/slog"
	"strings"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// record marks a step as finished, durably.
func (j *job) record(ctx context.Context, m journal.Mark) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entry.Add(m)
	return j.saveLocked(ctx)
}

func (j *job) save(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saveLocked(ctx)
}

func (j *job) saveLocked(ctx context.Context) error {
	draft, err := j.out.Encode()
	if err != nil {
		return err
	}
	j.entry.Draft = draft
	return j.h.save(ctx, &j.entry)
}

// finish journals the answer, byte for byte, and returns it.
func (j *job) finish(ctx context.Context) (protocol.Answer, error) {
	j.mu.Lock()
	j.out.Success = j.out.ErrorCode == ""
	j.out.Timestamp = j.h.now().UnixMilli()
	if j.out.Success && len(j.out.FilesChanged) == 0 {
		j.out.Summary = strings.TrimSpace(j.out.Summary + "\n\nNo files were changed.")
	}
	j.mu.Unlock()
	a, err := j.encode(ctx)
	if err != nil {
		return protocol.Answer{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entry.Add(journal.Finished)
	j.entry.Output, j.entry.Attributes, j.entry.Draft, j.entry.Runs = a.Body, a.Attributes, nil, 0
	if err := j.h.save(ctx, &j.entry); err != nil {
		return protocol.Answer{}, j.h.internal(ctx, err)
	}
	j.concludeLocked(ctx)
	return a, nil
}

type correlationKey struct{}

// WithCorrelation returns a context whose answers carry a correlation id.
func WithCorrelation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

func (j *job) encode(ctx context.Context) (protocol.Answer, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.out.Timestamp == 0 {
		j.out.Timestamp = j.h.now().UnixMilli()
	}
	if j.h.Redact != nil {
		j.out.Summary, j.out.Error = j.h.Redact(j.out.Summary), j.h.Redact(j.out.Error)
	}
	body, err := j.out.Encode()
	if err != nil {
		return protocol.Answer{}, err
	}
	id, _ := ctx.Value(correlationKey{}).(string)
	return protocol.Answer{Body: body, Attributes: j.out.Attributes(id)}, nil
}

// failed counts a run that ended in a transient error; when there were as many
// as are allowed, the failure is permanent.
func (j *job) failed(ctx context.Context, err error) error {
	if herr := j.h.internal(ctx, err); HandedBack(herr) {
		return herr
	}
	f := *failureOf(err)
	if f.Permanent {
		return &f
	}
	ctx, cancel := j.h.detach(ctx)
	defer cancel()
	j.mu.Lock()
	j.entry.Tries++
	j.entry.Runs = 0
	if j.out.ErrorCode == "" {
		j.out.ErrorCode, j.out.Error = f.Code, f.Reason
	}
	f.Permanent = j.entry.Tries >= j.h.attempts()
	j.mu.Unlock()
	if serr := j.save(ctx); serr != nil {
		j.h.log().WarnContext(ctx, "attempt not recorded", slog.Any("error", serr))
	}
	j.h.log().WarnContext(ctx, "attempt failed",
		slog.Int("try", j.entry.Tries), slog.String("error_code", string(f.Code)), slog.Any("error", err))
	return &f
}

// remember leaves a note for the next instruction in the same conversation.
func (j *job) remember() error {
	note := "Your work on the instruction before this one was interrupted. That instruction was: " + subject(j.in.Instruction) +
		"\nWhat you had done of it is in the files. Carry on from there only if the new instruction asks for it."
	return agent.Remember(j.ws.Conversations(), j.in.ProjectID, j.in.UserID, j.in.ThreadID, note)
}
