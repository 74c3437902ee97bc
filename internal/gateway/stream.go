package gateway

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// maxEvent bounds an event that is looked at. Those that tell of tokens are small.
const maxEvent = 1 << 20

// events takes server-sent events apart, however they are cut.
type events struct {
	each func(data []byte) // data is valid during the call

	line, data []byte
	long       bool // the line is too long, and is not kept
}

// take takes the next bytes.
func (e *events) take(p []byte) {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			e.add(p)
			return
		}
		e.add(p[:i])
		e.endLine()
		p = p[i+1:]
	}
}

func (e *events) add(p []byte) {
	if e.long || len(e.line)+len(p) > maxEvent {
		e.line, e.long = e.line[:0], true
		return
	}
	e.line = append(e.line, p...)
}

func (e *events) endLine() {
	line := bytes.TrimSuffix(e.line, []byte{'\r'})
	switch data, is := bytes.CutPrefix(line, []byte("data:")); {
	case e.long:
	case len(line) == 0:
		if len(e.data) > 0 {
			e.each(e.data)
		}
		e.data = e.data[:0]
	case is && len(e.data)+len(data) <= maxEvent:
		e.data = append(append(e.data, data...), '\n')
	}
	e.line, e.long = e.line[:0], false
}

// The parts of a message of AWS's event stream: lengths and their checksum,
// headers, payload, and a checksum of all.
const (
	preludeSize = 12
	sumSize     = 4
)

// frames takes AWS's event stream apart, however it is cut. Headers are not looked
// at, and neither is the last checksum: what it is to protect is what the agent
// gets, and not what is counted.
type frames struct {
	each func(payload []byte) // payload is valid during the call

	buffer []byte
	skip   int  // bytes of a frame that is too large
	broken bool // what comes is no event stream
}

// take takes the next bytes.
func (f *frames) take(p []byte) {
	for len(p) > 0 && !f.broken {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip -= n
			p = p[n:]
			continue
		}
		want := preludeSize
		if len(f.buffer) >= preludeSize {
			want = int(binary.BigEndian.Uint32(f.buffer))
		}
		n := min(want-len(f.buffer), len(p))
		f.buffer = append(f.buffer, p[:n]...)
		p = p[n:]
		if len(f.buffer) == want {
			f.next(want)
		}
	}
}

// next looks at a prelude, or at a whole frame.
func (f *frames) next(size int) {
	if size > preludeSize { // a frame has at least four bytes more
		headers := int(binary.BigEndian.Uint32(f.buffer[4:]))
		f.each(f.buffer[preludeSize+headers : size-sumSize])
		f.buffer = f.buffer[:0]
		return
	}
	total, headers := uint64(binary.BigEndian.Uint32(f.buffer)), uint64(binary.BigEndian.Uint32(f.buffer[4:]))
	switch {
	case crc32.ChecksumIEEE(f.buffer[:8]) != binary.BigEndian.Uint32(f.buffer[8:]), total < preludeSize+sumSize+headers:
		f.buffer, f.broken = nil, true
	case total > maxEvent:
		f.buffer, f.skip = f.buffer[:0], int(total)-preludeSize //nolint:gosec // 32 bits
	}
}
