package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// HeaderRules is the version of the rules by which a file's headers follow from
// its name. It goes up when a rule changes, so that objects get the new headers
// although their content stays.
const HeaderRules = 1

const (
	stateVersion = 1
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

// encodedState is the JSON form of a State.
type encodedState struct {
	Version int       `json:"version"`
	Listed  time.Time `json:"listed"`
	Objects []Object  `json:"objects"`
}

// Encode returns the state in JSON, or an error if that takes more than 16 MB.
func (s *State) Encode() ([]byte, error) {
	raw, err := json.Marshal(encodedState{Version: stateVersion, Listed: s.Listed, Objects: s.Objects})
	if err != nil {
		return nil, fmt.Errorf("encode the state of a bucket: %w", err)
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
	var e encodedState
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if e.Version != stateVersion {
		return nil, fmt.Errorf("%w: version %d", ErrState, e.Version)
	}
	return &State{Listed: e.Listed, Objects: e.Objects}, nil
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
	now := make(map[string]Object, len(files)+len(d.last.Retired))
	for key := range d.last.Retired {
		now[key] = d.found[key]
	}
	for _, f := range files {
		o := f.object()
		o.ETag, o.Modified = d.found[f.Key].ETag, d.found[f.Key].Modified
		if put, ours := d.put[f.Key]; ours {
			o.ETag, o.Modified = put.ETag, put.Modified
		}
		now[f.Key] = o
	}
	return d.remember(now)
}

// hints is what is known after a deploy that was cut off: each object as it was
// last seen.
func (d *deployment) hints() *State {
	seen := maps.Clone(d.memory)
	maps.Copy(seen, d.found)
	maps.Copy(seen, d.put)
	return d.remember(seen)
}

func (d *deployment) remember(objects map[string]Object) *State {
	s := &State{Listed: d.listed, Objects: slices.Collect(maps.Values(objects))}
	slices.SortFunc(s.Objects, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return s
}
