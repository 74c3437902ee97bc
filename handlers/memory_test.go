package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
	"github.com/webordinary/claude-code-container/internal/journal"
)

// memoryBucket is a bucket that takes no time. Its zero value is empty.
type memoryBucket struct {
	wrote func() // called after each write, one at a time; may be nil

	mu      sync.Mutex
	objects map[string]deploy.Object
	bodies  map[string]string
}

func (b *memoryBucket) List(ctx context.Context) ([]deploy.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	listed := slices.Collect(maps.Values(b.objects))
	for i := range listed { // as S3 does
		listed[i].SHA256, listed[i].ContentType, listed[i].CacheControl = "", "", ""
	}
	return listed, nil
}

func (b *memoryBucket) Put(ctx context.Context, o deploy.Object, body io.ReadSeeker, c deploy.Condition) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	if hex.EncodeToString(sum[:]) != o.SHA256 || int64(len(content)) != o.Size {
		return "", deploy.ErrContent
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	present, there := b.objects[o.Key]
	if c.Absent && there || c.ETag != "" && present.ETag != c.ETag {
		return "", deploy.ErrPrecondition
	}
	if b.objects == nil {
		b.objects, b.bodies = map[string]deploy.Object{}, map[string]string{}
	}
	// Two objects of the same content have the same ETag.
	o.ETag, o.Modified = "etag-"+o.SHA256, time.Now()
	b.objects[o.Key], b.bodies[o.Key] = o, string(content)
	b.told()
	return o.ETag, nil
}

func (b *memoryBucket) Delete(ctx context.Context, keys ...string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		delete(b.objects, key)
		delete(b.bodies, key)
	}
	b.told()
	return nil
}

func (b *memoryBucket) told() {
	if b.wrote != nil {
		b.wrote()
	}
}

// content is what a visitor gets.
func (b *memoryBucket) content() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.bodies)
}

func TestMemoryBucket(t *testing.T) {
	deploytest.Run(t, func(*testing.T) deploytest.Harness {
		b := &memoryBucket{}
		return deploytest.Harness{Bucket: b, Get: func(_ *testing.T, key string) (deploy.Object, []byte, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			o, there := b.objects[key]
			return o, []byte(b.bodies[key]), there
		}}
	})
}

// memoryStore is a journal in memory, fenced by the claims in a table.
type memoryStore struct {
	table claim.Table

	mu      sync.Mutex
	records map[string]journal.Record
}

func (s *memoryStore) Get(ctx context.Context, key string) (journal.Record, error) {
	if ctx.Err() != nil {
		return journal.Record{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, there := s.records[key]
	if !there {
		return journal.Record{}, journal.ErrNotFound
	}
	return r, nil
}

func (s *memoryStore) Put(ctx context.Context, r journal.Record, f journal.Fence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, err := s.table.Get(ctx, f.ProjectKey)
	if err != nil {
		return err
	}
	if row.Fence != f.Number {
		return journal.ErrFenced
	}
	if s.records == nil {
		s.records = map[string]journal.Record{}
	}
	s.records[r.Key] = r
	return nil
}

// broken names an asset that a page wants and the site lacks; each line of a page
// that begins with _astro/ is one.
func broken(site map[string]string) string {
	for key, content := range site {
		if !strings.HasSuffix(key, ".html") {
			continue
		}
		for line := range strings.Lines(content) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "_astro/") && site[line] == "" {
				return fmt.Sprintf("%s wants %s", key, line)
			}
		}
	}
	return ""
}
