package fsm

import (
	"sync"

	"github.com/sandbar-san/sandbar/san"
)

// window keeps the last items of an endless sequence. Its slices may be read while it goes on: it
// only ever writes behind what it has handed out.
type window[T any] struct {
	items []T
	head  int
	limit int
}

// all returns what is in the window, oldest first.
func (w *window[T]) all() []T { return w.items[w.head:len(w.items):len(w.items)] }

// push adds v and returns what fell out for it.
func (w *window[T]) push(v T) (dropped T, full bool) {
	if len(w.items)-w.head == w.limit {
		dropped, full = w.items[w.head], true
		w.head++
	}
	if len(w.items) == cap(w.items) {
		live := w.items[w.head:]
		room := make([]T, len(live), len(live)+max(len(live)/2, 64))
		copy(room, live)
		w.items, w.head = room, 0
	}
	w.items = append(w.items, v)
	return dropped, full
}

// memory is the answered requests, by who asked and the id that he chose. The machine writes it; any
// view reads it.
type memory struct {
	mu    sync.RWMutex
	byKey map[string]*Request
	order window[*Request]
}

func newMemory(limit int) *memory {
	return &memory{byKey: map[string]*Request{}, order: window[*Request]{limit: limit}}
}

// find returns what is remembered as of log index at.
func (m *memory) find(principal string, id san.RequestID, at san.Index) *Request {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r := m.byKey[requestKey(principal, id)]; r != nil && r.Index <= at {
		return r
	}
	return nil
}

func (m *memory) add(r *Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, full := m.order.push(r); full {
		delete(m.byKey, old.key())
	}
	m.byKey[r.key()] = r
}
