// Package browser opens pages in a headless Chromium and says what a person would
// see. It speaks the browser's debugging protocol through a pipe: no port is opened,
// and no library is needed for the five commands that are used.
package browser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Browser is a running Chromium. It is for one goroutine, and ends with the test.
type Browser struct {
	tb      testing.TB
	in      io.Writer
	replies chan reply
	id      int
}

type reply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// patience is how long the browser may take for an answer.
const patience = 90 * time.Second

// Start starts a browser with nothing of anybody's in it.
func Start(tb testing.TB) *Browser {
	tb.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		tb.Fatalf("there is no chromium to look at pages with; make setup installs it as root, else: apt-get install chromium (%v)", err)
	}
	ours, theirs := pipe(tb), pipe(tb)
	cmd := exec.Command(path, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", //nolint:noctx // it ends with the test
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--no-proxy-server", "--user-data-dir="+tb.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{ours[0], theirs[1]} // the protocol's 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "HOME="+tb.TempDir())
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ours[0].Close()   //nolint:errcheck // it is the child's now
	theirs[1].Close() //nolint:errcheck // it is the child's now
	b := &Browser{tb: tb, in: ours[1], replies: make(chan reply, 1000)}
	go b.read(theirs[0])
	tb.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may be gone
		cmd.Wait()                                      //nolint:errcheck // it was killed
		ours[1].Close()                                 //nolint:errcheck // nobody reads
		theirs[0].Close()                               //nolint:errcheck // nobody writes
	})
	return b
}

func pipe(tb testing.TB) [2]*os.File {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	return [2]*os.File{r, w}
}

// read takes what the browser says: JSON, each with a NUL behind it.
func (b *Browser) read(r io.Reader) {
	defer close(b.replies)
	in := bufio.NewReader(r)
	for {
		body, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m reply
		if json.Unmarshal(body[:len(body)-1], &m) == nil {
			b.replies <- m
		}
	}
}

// await returns the first message that is wanted.
func (b *Browser) await(what string, wanted func(reply) bool) reply {
	b.tb.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case m, more := <-b.replies:
			if !more {
				b.tb.Fatalf("the browser ended before it answered %s", what)
			}
			if wanted(m) {
				return m
			}
		case <-late.C:
			b.tb.Fatalf("the browser did not answer %s within %v", what, patience)
		}
	}
}

// call sends a command and waits for its result.
func (b *Browser) call(session, method string, params, result any) {
	b.tb.Helper()
	b.id++
	id := b.id
	body, err := json.Marshal(map[string]any{"id": id, "sessionId": session, "method": method, "params": params})
	if session == "" {
		body, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err != nil {
		b.tb.Fatal(err)
	}
	if _, err := b.in.Write(append(body, 0)); err != nil {
		b.tb.Fatalf("%s: %v", method, err)
	}
	m := b.await(method, func(m reply) bool { return m.ID == id })
	if m.Error != nil {
		b.tb.Fatalf("%s: %s", method, m.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			b.tb.Fatalf("%s: %v", method, err)
		}
	}
}

// Page is an open page.
type Page struct {
	browser *Browser
	session string
}

// Open opens an address, and returns when the page has been loaded.
func (b *Browser) Open(url string, width, height int) *Page {
	b.tb.Helper()
	var target struct{ TargetID, SessionID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	p := &Page{browser: b, session: target.SessionID}
	b.call(p.session, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call(p.session, "Page.enable", map[string]any{}, nil)
	var went struct{ ErrorText string }
	b.call(p.session, "Page.navigate", map[string]any{"url": url}, &went)
	if went.ErrorText != "" {
		b.tb.Fatalf("open %s: %s", url, went.ErrorText)
	}
	for p.Eval("document.readyState") != "complete" {
		b.await("that the page is loaded", func(m reply) bool { return m.Method == "Page.loadEventFired" })
	}
	return p
}

// Eval returns what an expression of JavaScript comes to in the page, as a text.
func (p *Page) Eval(expression string) string {
	p.browser.tb.Helper()
	var out struct {
		Result struct {
			Value any
		}
		ExceptionDetails *struct{ Text string }
	}
	p.browser.call(p.session, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out)
	if out.ExceptionDetails != nil {
		p.browser.tb.Fatalf("%s: %s", expression, out.ExceptionDetails.Text)
	}
	return fmt.Sprint(out.Result.Value)
}

// Style returns a computed style of the first element that a selector finds.
func (p *Page) Style(selector, property string) string {
	p.browser.tb.Helper()
	return p.Eval(fmt.Sprintf("getComputedStyle(document.querySelector(%q)).getPropertyValue(%q)", selector, property))
}

// Screenshot returns what is seen, as a PNG.
func (p *Page) Screenshot() []byte {
	p.browser.tb.Helper()
	var out struct{ Data string }
	p.browser.call(p.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &out)
	png, err := base64.StdEncoding.DecodeString(out.Data)
	if err != nil {
		p.browser.tb.Fatal(err)
	}
	return png
}
