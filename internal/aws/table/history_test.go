package table_test

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim/claimtest"
)

// TestNeverTwoTrustedHolders: as over a table in memory, but shorter, and in real
// time, in which a lease lasts two seconds. On a machine that is busy it takes
// longer.
func TestNeverTwoTrustedHolders(t *testing.T) {
	_, tables := open(t)
	counts := claimtest.History(t, claimtest.HistoryConfig{
		Table: tables.Claims(), Seed: 1, Second: 50 * time.Millisecond, Length: 20 * time.Second, Enough: 300,
	})
	t.Logf("operations: %v", counts)
	if counts[claimtest.Took] == 0 {
		t.Errorf("operations: %v: nobody ever took a project", counts)
	}
}
