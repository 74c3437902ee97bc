package platform

import (
	"bufio"
	"io"
	"net/http"

	"github.com/webordinary/claude-code-container/tests/apicall"
)

// calls are those of all workers of this test process.
var calls apicall.Recorder //nolint:gochecknoglobals // one per test process is what it is for

// Calls returns what the workers of all tests have called in AWS so far, without
// those that create resources.
func Calls() []string { return calls.Calls() }

func (p *Platform) noteCall(r *http.Request) {
	if err := calls.Note(apicall.Name(r)); err != nil {
		p.tb.Error(err)
	}
}

// listen returns a writer for one direction of a connection, which tells of each
// request in it. It changes nothing, and takes whatever comes.
func listen(heard func(*http.Request)) io.WriteCloser {
	if heard == nil {
		return deaf{io.Discard}
	}
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		in := bufio.NewReader(r)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				break
			}
			heard(req)
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				break
			}
		}
		io.Copy(io.Discard, r) //nolint:errcheck // until the end
	}()
	return ear{w, ended}
}

type deaf struct{ io.Writer }

// Close implements io.Closer.
func (deaf) Close() error { return nil }

type ear struct {
	*io.PipeWriter
	ended chan struct{}
}

// Close waits until what was heard is told.
func (e ear) Close() error {
	err := e.PipeWriter.Close()
	<-e.ended
	return err
}
