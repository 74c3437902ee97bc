package claim

import (
	"context"
	"sync"
)

// Memory is a Table in memory. The zero value is empty and ready.
type Memory struct {
	mu   sync.Mutex
	rows map[string]Row
}

// Get implements Table.
func (m *Memory) Get(ctx context.Context, key string) (Row, error) {
	if ctx.Err() != nil {
		return Row{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[key]
	if !ok {
		return Row{}, ErrNoRow
	}
	return row, nil
}

// Put implements Table.
func (m *Memory) Put(ctx context.Context, next, seen Row) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[next.ProjectKey]
	if ok != (seen != Row{}) || ok && !row.is(seen) {
		return ErrMoved
	}
	if m.rows == nil {
		m.rows = map[string]Row{}
	}
	m.rows[next.ProjectKey] = next
	return nil
}

// is reports whether a row is still the one that was seen.
func (r Row) is(seen Row) bool {
	return r.Fence == seen.Fence && r.Rev == seen.Rev && (!r.foreign() || r.LastActivity.Equal(seen.LastActivity))
}

// Live implements Table.
func (m *Memory) Live(ctx context.Context) ([]Row, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var live []Row
	for _, row := range m.rows {
		if row.ContainerID != "" {
			live = append(live, row)
		}
	}
	return live, nil
}
