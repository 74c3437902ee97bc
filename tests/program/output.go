package program

import (
	"bytes"
	"os"
	"sync"
)

// Output is what a program says while a test reads along. The zero value is ready.
type Output struct {
	mu   sync.Mutex
	said bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.Write(b)
}

// String returns all that was said so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

// Tail returns the last n bytes of a file, for what a failed test logs; the error if
// there is none.
func Tail(path string, n int) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-n):]
}
