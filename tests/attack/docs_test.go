package attack

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of attacks into docs/security.md")

const (
	tableFile  = "../../docs/security.md"
	tableBegin = "<!-- attacks: written by go test ./tests/attack -run TestTable -update -->\n"
	tableEnd   = "<!-- /attacks -->\n"
)

// TestTable compares the document's table with what the tests expect.
func TestTable(t *testing.T) {
	body, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(body), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks of the table", tableFile)
	}
	if *update {
		if err := os.WriteFile(tableFile, []byte(before+tableBegin+markdown()+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(table, markdown()); d != "" {
		t.Errorf("%s is not what the tests say; run it with -update (-document +tests):\\n%s", tableFile, d)
	}
}

// TestEveryRowIsShown looks for the tests that the rows name.
func TestEveryRowIsShown(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		all.WriteString(readAll(name))
	}
	for _, r := range rows() {
		if r.other == "" && len(r.outcomes) == 0 {
			t.Errorf("%q is tried by nobody", r.what)
		}
		for name := range strings.SplitSeq(r.proof, ", ") {
			if (r.other != "" || r.proof != "") && !strings.Contains(all.String(), "\nfunc "+name+"(") {
				t.Errorf("%q is shown by %q, which is not there", r.what, name)
			}
		}
	}
}

// TestEnoughAttacks counts.
func TestEnoughAttacks(t *testing.T) {
	if n := len(rows()); n < 25 {
		t.Errorf("%d attacks; at least 25 are wanted", n)
	}
}

func markdown() string {
	var b strings.Builder
	b.WriteString("| attack | " + strings.Join(walls()[1:], " | ") + " | stopped by what is no wall |\n|---|---|---|---|---|---|\n")
	var notes []row
	for _, r := range rows() {
		fmt.Fprintf(&b, "| %s", r.what)
		for _, wall := range walls()[1:] {
			fmt.Fprintf(&b, " | %s", r.cell(wall))
		}
		fmt.Fprintf(&b, " | %s |\n", r.other)
		if r.note != "" {
			notes = append(notes, r)
		}
	}
	b.WriteString("\nWhat a wall leaves open:\n\n")
	for _, r := range notes {
		fmt.Fprintf(&b, "- %s (%s): %s\n", r.what, strings.Join(r.open, "; "), r.note)
	}
	return b.String()
}

func (r row) cell(wall string) string {
	switch {
	case len(r.outcomes) == 0:
		return "–"
	case slices.Contains(r.open, wall):
		return "**does not stop it**"
	case r.other != "":
		return "stopped"
	}
	return "stops it"
}
