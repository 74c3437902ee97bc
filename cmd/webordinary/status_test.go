package main

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/protocol"
)

// TestStatusReadsRecordsInAnyOrder: a table gives its items in none.
func TestStatusReadsRecordsInAnyOrder(t *testing.T) {
	began := time.Unix(1_800_000_000, 0).UTC()
	record := func(id, thread string, minute int, code protocol.ErrorCode) journal.Record {
		at := began.Add(time.Duration(minute) * time.Minute)
		out, err := json.Marshal(protocol.OutputMessage{CommandID: id, Success: code == "", ErrorCode: code, Timestamp: at.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(journal.Entry{CommandID: id, ThreadID: thread, Sent: at, Done: []journal.Mark{journal.Opened, journal.Finished}, Output: out})
		if err != nil {
			t.Fatal(err)
		}
		return journal.Record{Key: id, Body: body}
	}
	records := []journal.Record{
		record("c-1", "t1", 1, ""), record("c-2", "t2", 2, protocol.BuildFailed), record("c-3", "t1", 3, protocol.AgentFailed), record("c-4", "t1", 4, ""),
	}
	for range 2 {
		var s projectStatus
		if err := s.read(records); err != nil {
			t.Fatal(err)
		}
		if len(s.Threads) != 2 || s.Threads[0].Last.CommandID != "c-4" || s.Threads[0].Commands != 3 || s.Threads[1].Last.CommandID != "c-2" {
			t.Errorf("threads %+v", s.Threads)
		}
		if s.LastError == nil || s.LastError.CommandID != "c-3" {
			t.Errorf("last error %+v", s.LastError)
		}
		slices.Reverse(records)
	}
}
