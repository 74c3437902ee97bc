package bench

import (
	"fmt"
	"strings"
	"time"
)

// deployTable compares deploys: a row for each step of a site at a distance, a
// column for each tool.
type deployTable struct {
	tools []tool
	rows  []*compared
}

func (t *deployTable) begun(tools []tool) { t.tools = tools }

func (t *deployTable) add(c *compared) { t.rows = append(t.rows, c) }

// markdown is the table. What is missing is named.
func (t *deployTable) markdown() string {
	var b strings.Builder
	if len(t.rows) == 0 {
		return "Not measured: the benchmark failed or was left out.\n"
	}
	var missing []string
	b.WriteString("| Site, latency | Step |")
	for _, tool := range t.tools {
		if tool.missing != "" {
			missing = append(missing, tool.name+": "+tool.missing)
			continue
		}
		fmt.Fprintf(&b, " %s |", tool.name)
	}
	b.WriteString(" Best of the others |\n|---|---|" + strings.Repeat("---|", len(t.tools)-len(missing)) + "---|\n")
	for _, c := range t.rows {
		for _, step := range steps() {
			t.row(&b, c, step)
		}
	}
	b.WriteString("\nEach cell: wall time, processor time, most resident memory, requests, bytes sent.")
	if len(missing) > 0 {
		fmt.Fprintf(&b, " **Not measured:** %s.", strings.Join(missing, "; "))
	}
	b.WriteString("\n")
	return b.String()
}

func (t *deployTable) row(b *strings.Builder, c *compared, step string) {
	fmt.Fprintf(b, "| %s (%d files, %s), %s | %s |", c.site.name, c.site.files, size(c.site.bytes), c.delay, step)
	ours := medianCost(c.costs[step][0])
	best, by := time.Duration(0), ""
	for i, tool := range t.tools {
		if tool.missing != "" {
			continue
		}
		got := medianCost(c.costs[step][i])
		fmt.Fprintf(b, " %s |", got)
		if i > 1 && (by == "" || got.wall < best) {
			best, by = got.wall, tool.name
		}
	}
	if by == "" {
		b.WriteString(" none is here |\n")
		return
	}
	fmt.Fprintf(b, " **%.1f×** ours (%s) |\n", best.Seconds()/ours.wall.Seconds(), by)
}
