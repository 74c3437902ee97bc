// Package runlog is a file with one line for each beginning and end of a run of
// the tests' agent and build, written by many processes.
package runlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// The events of a run.
const (
	Start   = "start"
	End     = "end"     // it was not cut off
	Overlap = "overlap" // it did not start: somebody else was in the checkout
)

// Run is one line.
type Run struct {
	Kind   string    `json:"kind"` // agent or build
	Event  string    `json:"event"`
	Token  string    `json:"token"` // of the instruction
	Pid    int       `json:"pid"`
	Worker string    `json:"worker"`
	Dir    string    `json:"dir"`
	Inode  uint64    `json:"inode"` // of the checkout: it stays when the checkout is moved
	At     time.Time `json:"at"`
}

// Append adds a line with the present time.
func Append(name string, r Run) error {
	r.At = time.Now()
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n')) // one write: lines do not mix
	return errors.Join(err, f.Close())
}

// Read returns all lines, in the order they were written.
func Read(name string) ([]Run, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var runs []Run
	dec := json.NewDecoder(bytes.NewReader(b))
	for dec.More() {
		var r Run
		if err := dec.Decode(&r); err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}
