package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// style colours words, on terminals only.
type style struct{ on bool }

// styleOf looks at where the text goes. NO_COLOR, if it is not empty, forbids colours.
func styleOf(w io.Writer, environ []string) style {
	f, ok := w.(*os.File)
	if !ok || variable(environ, "NO_COLOR") != "" || variable(environ, "TERM") == "dumb" {
		return style{}
	}
	return style{on: isTerminal(f)}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// The colours that are used, as terminals know them.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (s style) paint(colour, text string) string {
	if !s.on || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// cell is a text in a table.
type cell struct{ text, colour string }

func plain(text string) cell           { return cell{text: text} }
func painted(colour, text string) cell { return cell{text: text, colour: colour} }
func when(is bool, colour, text string) cell {
	if is {
		return painted(colour, text)
	}
	return plain(text)
}

// grid is a table whose columns stand below each other. The last column may be as long
// as it likes.
type grid struct {
	indent string
	rows   [][]cell
}

// head adds a row of titles.
func (g *grid) head(titles ...string) {
	row := make([]cell, len(titles))
	for i, t := range titles {
		row[i] = painted(faint, t)
	}
	g.rows = append(g.rows, row)
}

func (g *grid) add(cells ...cell) { g.rows = append(g.rows, cells) }

// write prints the table. What comes from outside can do nothing to the terminal.
func (g *grid) write(w io.Writer, s style) error {
	var widths []int
	for _, row := range g.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(inert(c.text)))
		}
	}
	var b strings.Builder
	for _, row := range g.rows {
		b.WriteString(g.indent)
		for i, c := range row {
			text := inert(c.text)
			b.WriteString(s.paint(c.colour, text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, trimLines(b.String()))
	return err
}

// trimLines takes the spaces away that empty cells leave at ends of lines.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

// inert makes one line of a text, which no terminal obeys.
func inert(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return utf8.RuneError
		}
		return r
	}, text)
}

// short cuts a text to n runes.
func short(text string, n int) string {
	runes := []rune(strings.TrimSpace(inert(text)))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}

// ago is how long ago something was, in a word.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t)) + " ago"
}

// span is a duration in its largest units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
