package table_test

import (
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim/claimtest"
)

// TestNeverTwoTrustedHolders: as over a table in memory, but shorter, and in real
// time, in which a lease lasts 900 ms.
func TestNeverTwoTrustedHolders(t *testing.T) {
	_, tables := open(t)
	counts := claimtest.History(t, claimtest.HistoryConfig{
		Table: tables.Claims(), Seed: 1, Second: 20 * time.Millisecond, Length: 6 * time.Second,
	})
	t.Logf("operations: %v", counts)
	if counts[claimtest.Took] < 4 || counts[claimtest.Trusted]+counts[claimtest.Wrote] < 50 {
		t.Errorf("operations: %v: too few to show anything", counts)
	}
}
