package table_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/journal"
)

// TestRecordsFindsTheCommandsOfAProject among those of others, however long they are.
func TestRecordsFindsTheCommandsOfAProject(t *testing.T) {
	now := time.Now()
	c := client(t, nil)
	own := ownership()
	own.Now = func() time.Time { return now }
	tables := create(t, c, own)
	j := &journal.Journal{Store: tables.Journal()}
	want := map[string]bool{}
	for _, key := range []string{"amelia#scott", "amelia#scotty", "am#scott"} {
		fence := take(t, tables.Claims(), key)
		for i := range 5 {
			e := journal.Entry{ProjectKey: key, CommandID: fmt.Sprint("c-", i), Output: []byte(strings.Repeat("x", i*2000))}
			if err := j.Save(t.Context(), &e, fence); err != nil {
				t.Fatal(err)
			}
			want[e.CommandID] = true
		}
		if err := j.SaveSite(t.Context(), journal.Site{Bucket: key}, fence); err != nil {
			t.Fatal(err)
		}
	}

	found, more, err := tables.Records(t.Context(), "amelia#scott", 1000)
	if err != nil || more || len(found) != 5 {
		t.Fatalf("%d records, %v, %v", len(found), more, err)
	}
	for _, r := range found {
		var e journal.Entry
		if err := json.Unmarshal(r.Body, &e); err != nil || e.ProjectKey != "amelia#scott" || !want[e.CommandID] {
			t.Errorf("record %s is %+v, %v", r.Key, e, err)
		}
		delete(want, e.CommandID)
	}
	if _, more, err := tables.Records(t.Context(), "amelia#scott", 3); err != nil || !more {
		t.Errorf("with a limit: %v, %v", more, err)
	}
	now = now.Add(journal.Retention + time.Minute)
	if found, _, err := table.New(c, own).Records(t.Context(), "amelia#scott", 1000); err != nil || len(found) != 0 {
		t.Errorf("%d expired records, %v", len(found), err)
	}
}
