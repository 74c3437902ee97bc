package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HeaderRules is the version of the rules by which a file's headers follow from
// its name. It goes up when a rule changes, so that objects get the new headers
// although their content stays.
const HeaderRules = 1

const (
	stateVersion = "state-2"
	maxState     = 16 << 20  // bytes of an encoded State
	relist       = time.Hour // how old the look may be that a State rests on
)

// ErrState is what DecodeState returns, possibly wrapped, for what is no State
// that this version can use.
var ErrState = errors.New("not a state of this version")

// State is what a bucket holds, as far as we know. After a Sync without error
// that is all of it. After one with an error each object in it is one that was
// there at some time: its ETag tells whether it still is.
type State struct {
	Listed  time.Time // when the bucket was last listed
	Objects []Object  // sorted by key
}

// Encode returns the state as text, or an error if that takes more than 16 MB: a
// line with version, time and number of objects, and one for each object. JSON took
// longer to read than a small edit takes to deploy.
func (s *State) Encode() ([]byte, error) {
	raw := make([]byte, 0, 100+256*len(s.Objects))
	raw = fmt.Appendf(raw, "%s %d %d\n", stateVersion, s.Listed.UnixMicro(), len(s.Objects))
	for i := range s.Objects {
		o := &s.Objects[i]
		raw = strconv.AppendInt(raw, o.Size, 10)
		raw = strconv.AppendInt(append(raw, '\t'), o.Modified.UnixMicro(), 10)
		for _, text := range [...]string{o.SHA256, o.ETag, o.ContentType, o.CacheControl, o.Key} {
			raw = appendField(append(raw, '\t'), text)
		}
		raw = append(raw, '\n')
	}
	if len(raw) > maxState {
		return nil, fmt.Errorf("the state of a bucket takes %d bytes, more than %d", len(raw), maxState)
	}
	return raw, nil
}

// DecodeState reads what Encode returned.
func DecodeState(raw []byte) (*State, error) {
	if len(raw) > maxState {
		return nil, fmt.Errorf("%w: %d bytes", ErrState, len(raw))
	}
	head, rest, _ := strings.Cut(string(raw), "\n")
	var version string
	var listed int64
	var n int
	if _, err := fmt.Sscanf(head, "%s %d %d", &version, &listed, &n); err != nil || version != stateVersion || n != strings.Count(rest, "\n") {
		return nil, fmt.Errorf("%w: it begins with %.40q", ErrState, head)
	}
	s := &State{Listed: time.UnixMicro(listed), Objects: make([]Object, n)}
	for i := range s.Objects {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if err := s.Objects[i].decode(line); err != nil {
			return nil, fmt.Errorf("%w: object %d: %w", ErrState, i, err)
		}
	}
	if rest != "" {
		return nil, fmt.Errorf("%w: it ends with %.40q", ErrState, rest)
	}
	return s, nil
}

// decode reads a line of Encode.
func (o *Object) decode(line string) error {
	size, line, _ := strings.Cut(line, "\t")
	modified, line, _ := strings.Cut(line, "\t")
	micro, err := strconv.ParseInt(modified, 10, 64)
	if err != nil {
		return err
	}
	o.Modified = time.UnixMicro(micro)
	if o.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
		return err
	}
	for _, text := range [...]*string{&o.SHA256, &o.ETag, &o.ContentType, &o.CacheControl, &o.Key} {
		*text, line, _ = strings.Cut(line, "\t")
		if !strings.HasPrefix(*text, `"`) {
			continue
		}
		if *text, err = strconv.Unquote(*text); err != nil {
			return err
		}
	}
	return nil
}

// appendField quotes what would end a field. A foreign key may hold anything.
func appendField(raw []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' {
			return strconv.AppendQuote(raw, text)
		}
	}
	return append(raw, text...)
}

func (s *State) byKey() map[string]Object {
	if s == nil {
		return map[string]Object{}
	}
	return byKey(s.Objects)
}

func byKey(objects []Object) map[string]Object {
	m := make(map[string]Object, len(objects))
	for _, o := range objects {
		m[o.Key] = o
	}
	return m
}

// look tells what the bucket holds: from memory where that may be trusted, once.
func (d *deployment) look(ctx context.Context) ([]Object, error) {
	if ctx.Err() != nil {
		return nil, failed(ctx, "list the bucket", ctx.Err())
	}
	if d.trusting {
		d.trusting = false
		d.listed, d.found = d.options.State.Listed, d.memory
		return d.options.State.Objects, nil
	}
	now := d.options.Now()
	objects, err := d.bucket.List(ctx)
	if err != nil {
		return nil, failed(ctx, "list the bucket", err)
	}
	for i := range objects {
		d.recognise(&objects[i])
	}
	d.listed, d.found = now, byKey(objects)
	return objects, nil
}

// recognise adds what we know of an object to what its bucket knows of it. One
// that this Sync put is known. One that an earlier Sync put has the content it
// had under that ETag, but somebody may have put the same with other headers;
// the rules that all were put under tell those.
func (d *deployment) recognise(o *Object) {
	own, ours := d.put[o.Key] // nothing is under way
	before, known := d.memory[o.Key]
	switch {
	case ours && own.ETag != o.ETag:
		delete(d.put, o.Key) // somebody has replaced it
	case ours && o.SHA256 == "":
		o.SHA256, o.ContentType, o.CacheControl = own.SHA256, own.ContentType, own.CacheControl
	case known && o.SHA256 == "" && before.ETag == o.ETag && before.Size == o.Size:
		o.SHA256 = before.SHA256
	}
	if o.ContentType == "" && o.CacheControl == "" && d.options.Rules == HeaderRules {
		o.ContentType, o.CacheControl = contentType(o.Key), cacheControl(o.Key)
	}
}

// state is what the bucket holds after a whole deploy: the build, and retired
// assets.
func (d *deployment) state(files []File) *State {
	objects := make([]Object, 0, len(files)+len(d.last.Retired))
	for i := range files {
		o := files[i].object()
		seen, ours := d.put[o.Key]
		if !ours {
			seen = d.found[o.Key]
		}
		o.ETag, o.Modified = seen.ETag, seen.Modified
		objects = append(objects, o)
	}
	for key := range d.last.Retired {
		objects = append(objects, d.found[key])
	}
	return d.remember(objects)
}

// hints is what is known after a deploy that was cut off: each object as it was
// last seen.
func (d *deployment) hints() *State {
	seen := maps.Clone(d.memory)
	maps.Copy(seen, d.found)
	maps.Copy(seen, d.put)
	return d.remember(slices.Collect(maps.Values(seen)))
}

func (d *deployment) remember(objects []Object) *State {
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return &State{Listed: d.listed, Objects: objects}
}
