package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/webordinary/claude-code-container/handlers"
)

// display shows the steps of a command on a terminal: a line for each that is done,
// with how long it took, and below them one that moves for each at work.
//
//	✓ workspace    0.3s  opening branch thread-demo
//	✓ agent       12.4s  5 uses of tools, 2 files edited
//	⠹ build        3.1s  building the site
type display struct {
	out   io.Writer
	style style
	width func() int
	now   func() time.Time

	stop, stopped chan struct{}

	mu    sync.Mutex
	work  []shownStep // at work
	drawn int         // lines of it on the screen
	frame int
}

// shownStep is a step at work.
type shownStep struct {
	name, text string
	began      time.Time
	tools      int
	files      []string
}

const (
	displayEvery = 100 * time.Millisecond
	spinner      = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
)

// newDisplay returns a display; run draws it.
func newDisplay(f *os.File, environ []string) *display {
	d := &display{
		out: f, style: styleOf(f, environ), now: time.Now, stop: make(chan struct{}), stopped: make(chan struct{}),
		width: func() int {
			size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
			if err != nil || size.Col == 0 {
				return 80
			}
			return int(size.Col)
		},
	}
	return d
}

// run draws anew, until close.
func (d *display) run() {
	defer close(d.stopped)
	tick := time.NewTicker(displayEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.mu.Lock()
			d.frame++
			d.draw()
			d.mu.Unlock()
		case <-d.stop:
			d.mu.Lock()
			d.work = nil
			d.draw()
			d.mu.Unlock()
			return
		}
	}
}

func (d *display) close() {
	close(d.stop)
	<-d.stopped
}

// step takes what is told.
func (d *display) step(s handlers.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Name == handlers.StepDone || s.Name == handlers.StepReleased {
		return
	}
	i := slices.IndexFunc(d.work, func(w shownStep) bool { return w.name == s.Name })
	if i < 0 {
		i = len(d.work)
		d.work = append(d.work, shownStep{name: s.Name, began: d.now()})
	}
	w := &d.work[i]
	w.text = strings.TrimSpace(s.Tool + " " + s.Text)
	if s.Tool != "" {
		w.tools++
		for _, f := range s.Files {
			if !slices.Contains(w.files, f) {
				w.files = append(w.files, f)
			}
		}
	}
	d.draw()
}

// took takes the end of a step.
func (d *display) took(name string, took time.Duration, failed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := shownStep{name: name}
	if i := slices.IndexFunc(d.work, func(w shownStep) bool { return w.name == name }); i >= 0 {
		w = d.work[i]
		d.work = slices.Delete(d.work, i, i+1)
	}
	if name == handlers.StepWait { // in a demo it is nothing
		return
	}
	mark := d.style.paint(green, "✓")
	if failed {
		mark = d.style.paint(red, "✗")
	}
	d.draw(d.line(mark, w, took))
}

// print writes a line above the moving ones.
func (d *display) print(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draw(line)
}

// draw replaces the moving lines by these, which stay, and the moving ones. The
// lock is held.
func (d *display) draw(stay ...string) {
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	b.WriteString("\r\x1b[J")
	for _, line := range stay {
		b.WriteString(line + "\n")
	}
	frames := []rune(spinner)
	for _, w := range d.work {
		b.WriteString(d.line(d.style.paint(yellow, string(frames[d.frame%len(frames)])), w, d.now().Sub(w.began)) + "\n")
	}
	d.drawn = len(d.work)
	io.WriteString(d.out, b.String()) //nolint:errcheck // nobody reads: there is nobody to tell
}

// line is a step. A moving one must fit into the terminal.
func (d *display) line(mark string, w shownStep, took time.Duration) string {
	text := w.text
	if w.tools > 0 && !slices.ContainsFunc(d.work, func(at shownStep) bool { return at.name == w.name }) {
		text = counts(w.tools, "use of a tool", "uses of tools")
		if len(w.files) > 0 {
			text += ", " + counts(len(w.files), "file edited", "files edited")
		}
	}
	const before = 26
	return fmt.Sprintf("  %s %s %7s  %s", mark, d.style.paint(bold, padded(w.name, 10)), seconds(took),
		d.style.paint(faint, short(text, max(d.width()-before, 10))))
}

func counts(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// seconds is a duration as a clock shows it.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", max(d, 0).Seconds())
	}
	return span(d)
}
