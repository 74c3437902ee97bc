package protocol

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sizes of what goes out, in bytes and entries.
const (
	MaxOutput       = 200 * 1024
	MaxSummary      = 16 * 1024
	MaxError        = 8 * 1024
	MaxFilesChanged = 500
	maxFileName     = 1024
)

// OutputMessage is the answer to a command. Make one with NewOutput.
type OutputMessage struct {
	Type      string `json:"type"` // "response"
	CommandID string `json:"commandId"`
	SessionID string `json:"sessionId"`
	ProjectID string `json:"projectId"`
	UserID    string `json:"userId"`
	Success   bool   `json:"success"`
	Summary   string `json:"summary"` // for a person

	S3Bucket       string `json:"s3Bucket,omitempty"`
	S3URL          string `json:"s3Url,omitempty"`
	PreviewURL     string `json:"previewUrl,omitempty"`     // the same
	DeploymentTime int64  `json:"deploymentTime,omitempty"` // Unix time in ms
	BuildSuccess   bool   `json:"buildSuccess"`             // the site was built, now or by an earlier command
	DeploySuccess  bool   `json:"deploySuccess"`            // the bucket holds this command's result

	Branch            string   `json:"branch,omitempty"`
	CommitID          string   `json:"commitId,omitempty"`
	FilesChanged      []string `json:"filesChanged"`      // at most 500
	FilesChangedTotal int      `json:"filesChangedTotal"` // of these, and those left out

	Error       string    `json:"error,omitempty"`
	ErrorCode   ErrorCode `json:"errorCode,omitempty"`
	Interrupted bool      `json:"interrupted,omitempty"`
	Superseded  bool      `json:"superseded,omitempty"` // a later command was deployed before this one

	Attempt   int        `json:"attempt"`   // 1, and one more for each redrive
	Timestamp int64      `json:"timestamp"` // Unix time in ms
	Agent     *AgentInfo `json:"agent,omitempty"`
}

// AgentInfo is what the agent's work on this command came to.
type AgentInfo struct {
	Turns      int     `json:"turns"`
	CostUSD    float64 `json:"costUsd"`
	Model      string  `json:"model"`
	DurationMs int64   `json:"durationMs"`
}

// NewOutput begins the answer to a command.
func NewOutput(m InputMessage) OutputMessage {
	return OutputMessage{
		Type: "response", CommandID: m.CommandID, SessionID: m.SessionID, ProjectID: m.ProjectID, UserID: m.UserID,
		FilesChanged: []string{}, Attempt: 1,
	}
}

// SetFiles sets the changed files and their number.
func (o *OutputMessage) SetFiles(files []string) {
	o.FilesChanged, o.FilesChangedTotal = files, len(files)
}

// Encode returns the message as it is published. What is too long is cut; what
// SQS refuses or a terminal would obey is replaced. It has at most MaxOutput
// bytes.
func (o OutputMessage) Encode() ([]byte, error) {
	o.Summary = clip(clean(o.Summary), MaxSummary)
	o.Error = clip(clean(o.Error), MaxError)
	o.CommandID, o.SessionID = clip(clean(o.CommandID), 4*maxID), clip(clean(o.SessionID), 4*maxID)
	files := o.FilesChanged[:min(len(o.FilesChanged), MaxFilesChanged)]
	o.FilesChangedTotal = max(o.FilesChangedTotal, len(o.FilesChanged))
	o.FilesChanged = make([]string, 0, len(files))
	for _, f := range files {
		o.FilesChanged = append(o.FilesChanged, clip(clean(f), maxFileName))
	}
	for {
		body, err := marshal(o)
		if err != nil || len(body) <= MaxOutput {
			return body, err
		}
		if n := len(o.FilesChanged); n > 0 {
			o.FilesChanged = o.FilesChanged[:n/2]
			continue
		}
		o.Summary, o.Error = clip(o.Summary, len(o.Summary)/2), clip(o.Error, len(o.Error)/2)
	}
}

// Attributes are what travels beside the body. Empty ones are left out: SQS
// refuses them.
func (o OutputMessage) Attributes(correlationID string) map[string]string {
	all := map[string]string{}
	for k, v := range map[string]string{"commandId": o.CommandID, "sessionId": o.SessionID, "correlation_id": correlationID} {
		if v = clip(clean(v), maxID); strings.TrimSpace(v) != "" {
			all[k] = v
		}
	}
	return all
}

const cut = "…"

// clip cuts a text to at most n bytes, between runes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(n-len(cut), 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + cut
}

// clean replaces the runes that SQS refuses. Among them is ESC, so no terminal
// obeys what is left.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return r
		case unicode.IsControl(r), r == 0xFFFE, r == 0xFFFF, r == utf8.RuneError:
			return utf8.RuneError
		}
		return r
	}, s)
}
