package protocol

import (
	"math"
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
	// maxField bounds every other text. It is room for the longest id.
	maxField = maxID * utf8.UTFMax
)

// OutputMessage is the answer to a command. Make one with NewOutput.
type OutputMessage struct {
	Type      string `json:"type"` // Encode writes "response"
	CommandID string `json:"commandId"`
	SessionID string `json:"sessionId"`
	ProjectID string `json:"projectId"`
	UserID    string `json:"userId"`
	Success   bool   `json:"success"`
	Summary   string `json:"summary"` // for a person

	S3Bucket       string `json:"s3Bucket,omitempty"`
	S3URL          string `json:"s3Url,omitempty"`
	PreviewURL     string `json:"previewUrl,omitempty"`     // Encode writes S3URL
	DeploymentTime int64  `json:"deploymentTime,omitempty"` // Unix time in ms
	// BuildSuccess says that the site of this command's work was built, now
	// or by an earlier command; DeploySuccess that the bucket holds it. Both
	// are always written, and false also if the step was not reached: why
	// not, says ErrorCode.
	BuildSuccess  bool `json:"buildSuccess"`
	DeploySuccess bool `json:"deploySuccess"`

	Branch            string   `json:"branch,omitempty"`
	CommitID          string   `json:"commitId,omitempty"`
	FilesChanged      []string `json:"filesChanged"`      // never null; at most 500
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
	Tokens     int64   `json:"tokens,omitempty"` // of input, cache and output; none if nobody counts
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

// Encode returns the message as it is published, the same bytes for the same
// message. What is too long is cut, what SQS refuses or a terminal would obey is
// replaced, an error code out of the list becomes Internal. It has at most
// MaxOutput bytes, whatever the fields hold.
func (o OutputMessage) Encode() ([]byte, error) {
	o.Type = "response"
	o.PreviewURL = o.S3URL
	if o.ErrorCode != "" && !o.ErrorCode.Valid() {
		o.ErrorCode = Internal
	}
	o.Summary = fit(o.Summary, MaxSummary)
	o.Error = fit(o.Error, MaxError)
	for _, field := range []*string{
		&o.CommandID, &o.SessionID, &o.ProjectID, &o.UserID, &o.S3Bucket, &o.S3URL, &o.PreviewURL, &o.Branch, &o.CommitID,
	} {
		*field = fit(*field, maxField)
	}
	if o.Agent != nil {
		o.Agent = o.Agent.bounded()
	}
	files := o.FilesChanged
	o.FilesChangedTotal = max(o.FilesChangedTotal, len(files))
	o.FilesChanged = []string{}
	bare, err := marshal(o)
	if err != nil {
		return nil, err
	}
	if o.FilesChanged, err = fitting(files, MaxOutput-len(bare)); err != nil {
		return nil, err
	}
	return marshal(o)
}

// bounded returns a copy that JSON can hold.
func (a AgentInfo) bounded() *AgentInfo {
	a.Model = fit(a.Model, maxField)
	if math.IsNaN(a.CostUSD) || math.IsInf(a.CostUSD, 0) {
		a.CostUSD = 0
	}
	return &a
}

// fitting returns the first names, as many as the limit allows and room has
// bytes for in JSON.
func fitting(files []string, room int) ([]string, error) {
	kept := make([]string, 0, min(len(files), MaxFilesChanged))
	for _, f := range files[:min(len(files), MaxFilesChanged)] {
		f = fit(f, maxField)
		encoded, err := marshal(f)
		if err != nil {
			return nil, err
		}
		room -= len(encoded) + len(",")
		if room < 0 {
			break
		}
		kept = append(kept, f)
	}
	return kept, nil
}

// Attributes are what travels beside the body. Empty ones are left out: SQS
// refuses them.
func (o OutputMessage) Attributes(correlationID string) map[string]string {
	all := map[string]string{}
	for k, v := range map[string]string{"commandId": o.CommandID, "sessionId": o.SessionID, "correlation_id": correlationID} {
		if v = fit(v, maxField); strings.TrimSpace(v) != "" {
			all[k] = v
		}
	}
	return all
}

// fit cleans a text and cuts it to at most n bytes. Cleaning never makes it
// shorter, so what lies far behind n need not be looked at.
func fit(s string, n int) string {
	return clip(clean(s[:min(len(s), n+utf8.UTFMax)]), n)
}

// clip cuts a text to at most n bytes, between runes.
func clip(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// clean replaces what is not UTF-8 and the runes that SQS refuses. Among them is
// ESC, and with it go the controls of U+0080 to U+009F, so no terminal obeys
// what is left.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return r
		case unicode.IsControl(r), r == 0xFFFE, r == 0xFFFF:
			return utf8.RuneError
		}
		return r
	}, s)
}
