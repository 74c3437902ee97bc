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
	if ok != (seen != Row{}) || ok && (row.Fence != seen.Fence || row.Rev != seen.Rev) {
		return ErrMoved
	}
	if m.rows == nil {
		m.rows = map[string]Row{}
	}
	m.rows[next.ProjectKey] = next
	return nil
}
