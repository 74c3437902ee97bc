package handlers

import (
	"context"

	"github.com/webordinary/claude-code-container/internal/agent"
)

// tell says that a step begins.
func (j *job) tell(name, text string) {
	j.mu.Lock()
	j.began[name] = j.h.now()
	files := j.out.FilesChanged
	j.mu.Unlock()
	j.show(Step{Name: name, Text: text, Files: files})
}

// tellTool says what the agent does.
func (j *job) tellTool(e agent.Event) {
	s := Step{Name: "agent", Tool: e.Tool, Text: e.Detail}
	if e.File != "" {
		s.Files = []string{e.File}
	}
	j.show(s)
}

func (j *job) show(s Step) {
	if j.h.Step == nil {
		return
	}
	s.Pair, s.CommandID = j.in.Pair(), j.in.CommandID
	if j.h.Redact != nil {
		s.Text = j.h.Redact(s.Text)
	}
	j.h.Step(s)
}

// measure runs a step, and tells how long it took if there was something to do.
func (j *job) measure(ctx context.Context, name string, run func(context.Context) error) error {
	before := j.failedAlready()
	err := run(ctx)
	failed := err != nil || !before && j.failedAlready()
	j.mu.Lock()
	began, did := j.began[name]
	delete(j.began, name)
	j.mu.Unlock()
	if did {
		j.h.took(ctx, name, j.h.now().Sub(began), failed)
	}
	return err
}

// conclude tells of the answer.
func (j *job) conclude(ctx context.Context) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.concludeLocked(ctx)
}

func (j *job) concludeLocked(ctx context.Context) {
	if j.h.Concluded != nil {
		j.h.Concluded(ctx, j.in, j.out)
	}
}
