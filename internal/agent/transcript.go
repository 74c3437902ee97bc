package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// maxTranscript bounds a transcript, in bytes: by then the CLI has long since
// begun to summarise, and reads it whole.
const maxTranscript = 32 << 20

// errDamaged says that a transcript is none of the conversation, or not whole.
var errDamaged = errors.New("the transcript is damaged")

// checkTranscript reads a transcript and returns how many of its bytes are whole
// lines: a crash may have cut the last one. Each line is a JSON object, and those
// that name a conversation name this one. All else is errDamaged.
func checkTranscript(r io.Reader, id string) (whole int64, err error) {
	lines := bufio.NewReader(io.LimitReader(r, maxTranscript+1))
	named := false
	for {
		line, err := lines.ReadBytes('\n')
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return 0, err
		}
		isOwn, valid := checkLine(line, id)
		switch {
		case whole+int64(len(line)) > maxTranscript, !valid && !last:
			return 0, errDamaged
		case valid:
			whole += int64(len(line))
			named = named || isOwn
		}
		if last {
			break
		}
	}
	if !named {
		return 0, errDamaged
	}
	return whole, nil
}

// checkLine reports whether a line names the conversation, and whether it may be a
// line of it.
func checkLine(line []byte, id string) (isOwn, valid bool) {
	if len(bytes.TrimSpace(line)) == 0 {
		return false, true
	}
	var entry struct {
		SessionID string `json:"sessionId"`
	}
	if line[0] != '{' || json.Unmarshal(line, &entry) != nil {
		return false, false
	}
	isOwn = entry.SessionID == id
	return isOwn, isOwn || entry.SessionID == ""
}
