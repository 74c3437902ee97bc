package claim_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/claim/claimtest"
)

func TestNeverTwoTrustedHolders(t *testing.T) {
	total := map[claimtest.Kind]int{}
	n := 0
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for kind, count := range claimtest.History(t, claimtest.HistoryConfig{
					Table: &claim.Memory{}, Seed: seed, Second: time.Second, Length: 150 * time.Minute,
				}) {
					total[kind] += count
					n += count
				}
			})
		})
	}
	t.Logf("%d operations: %v", n, total)
	if n < 10_000 || total[claimtest.Took] < 300 || total[claimtest.Wrote] < 1000 || total[claimtest.Released] < 50 {
		t.Errorf("%d operations, %v: too few to show anything", n, total)
	}
}
