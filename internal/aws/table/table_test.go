package table_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/claim/claimtest"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/journal/journaltest"
)

// ownership returns the configuration of tables that nobody else uses.
func ownership() table.Config { return table.Config{Ownership: "ownership-" + rand.Text()} }

func TestClaims(t *testing.T) {
	c := client(t, nil)
	claimtest.Run(t, func(t *testing.T) claim.Table {
		t.Helper()
		return create(t, c, ownership()).Claims()
	})
}

func TestJournal(t *testing.T) {
	for name, config := range map[string]func() table.Config{
		"OneTable": ownership,
		"TwoTables": func() table.Config {
			c := ownership()
			c.Journal = "journal-" + rand.Text()
			return c
		},
	} {
		t.Run(name, func(t *testing.T) { testJournal(t, config) })
	}
}

func testJournal(t *testing.T, config func() table.Config) {
	t.Helper()
	c := client(t, nil)
	journaltest.Run(t, func(t *testing.T) journaltest.Harness {
		t.Helper()
		own := config()
		tables := create(t, c, own)
		return journaltest.Harness{
			Open: func(*testing.T) journal.Store { return table.New(c, own).Journal() },
			Take: func(t *testing.T, key string) journal.Fence {
				t.Helper()
				return take(t, tables.Claims(), key)
			},
			Now: time.Now,
		}
	})
}

// take writes the row of a new owner.
func take(t *testing.T, claims claim.Table, key string) journal.Fence {
	t.Helper()
	seen, err := claims.Get(t.Context(), key)
	if err != nil {
		seen = claim.Row{}
	}
	next := claim.Row{ProjectKey: key, ContainerID: "c", Status: claim.Active, Fence: seen.Fence + 1, Rev: seen.Rev + 1, Tenure: rand.Text()}
	if err := claims.Put(t.Context(), next, seen); err != nil {
		t.Fatal(err)
	}
	return journal.Fence{ProjectKey: key, Number: next.Fence}
}
