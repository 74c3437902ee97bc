package protocol

import "slices"

// Sizes of a progress event.
const (
	MaxProgressText  = 1024
	MaxProgressFiles = 100
)

// Progress is what happens while a command is carried out. It goes to the pair's
// progress queue, if there is one: at most one event a second, in which the newest
// tool wins; each step has an event of its own. None comes after the command's
// answer, and one may be lost. An event as it is published:
//
//	{"type":"progress","commandId":"c-1","threadId":"t-1","sessionId":"s-1","projectId":"amelia","userId":"scott",
//	 "step":"agent","tool":"Edit","text":"src/Header.astro","files":["src/Header.astro"],"filesTotal":1,
//	 "timestamp":1760000000000,"sequence":3}
type Progress struct {
	Type      string `json:"type"` // Encode writes "progress"
	CommandID string `json:"commandId"`
	ThreadID  string `json:"threadId"`
	SessionID string `json:"sessionId"`
	ProjectID string `json:"projectId"`
	UserID    string `json:"userId"`

	Step string `json:"step"`           // workspace, agent, commit, build, deploy or push
	Tool string `json:"tool,omitempty"` // that the agent uses
	Text string `json:"text,omitempty"` // a line for a person; at most 1 KB
	// Files were touched so far, relative to the checkout: the newest 100 that
	// the agent edited, and after the commit those it holds. Never null.
	Files      []string `json:"files"`
	FilesTotal int      `json:"filesTotal"` // of these, and those left out

	Timestamp int64 `json:"timestamp"` // Unix time in ms
	// Sequence begins at 1 and grows by one; a gap means that events were lost. A
	// worker that goes on with another's command begins anew: the timestamp comes
	// first.
	Sequence int64 `json:"sequence"`
}

// NewProgress begins an event of a command.
func NewProgress(m InputMessage) Progress {
	return Progress{
		CommandID: m.CommandID, ThreadID: m.ThreadID, SessionID: m.SessionID, ProjectID: m.ProjectID, UserID: m.UserID,
	}
}

// Encode returns the event as it is published. What is too long is cut, what SQS
// refuses or a terminal would obey is replaced. It has at most MaxOutput bytes.
func (p Progress) Encode() ([]byte, error) {
	p.Type = "progress"
	for _, field := range []*string{&p.CommandID, &p.ThreadID, &p.SessionID, &p.ProjectID, &p.UserID, &p.Step, &p.Tool} {
		*field = fit(*field, maxField)
	}
	p.Text = fit(p.Text, MaxProgressText)
	p.FilesTotal = max(p.FilesTotal, len(p.Files))
	newest := slices.Clone(p.Files[max(0, len(p.Files)-MaxProgressFiles):])
	p.Files = []string{}
	for _, f := range newest {
		p.Files = append(p.Files, fit(f, maxField))
	}
	return marshal(p)
}

// Attributes are what travels beside an event's body.
func (p Progress) Attributes(correlationID string) map[string]string {
	return OutputMessage{CommandID: p.CommandID, SessionID: p.SessionID}.Attributes(correlationID)
}
