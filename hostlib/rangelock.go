package hostlib

import (
	"context"
	"sync"
)

// rangeLock orders requests to overlapping parts of a volume by their arrival. Writes exclude all others,
// reads only writes. A request that waits holds up later ones that overlap it, so that
// nobody starves. The zero value is ready.
type rangeLock struct {
	mu   sync.Mutex
	seq  uint64
	held []*hold // granted and waiting, in no order
}

// hold is one request's place.
type hold struct {
	from, to int64
	shared   bool
	seq      uint64
	blockers int
	granted  chan struct{} // nil if nothing was in the way
}

func (h *hold) excludes(o *hold) bool {
	return h.from < o.to && o.from < h.to && !(h.shared && o.shared)
}

// enter takes a place for [from, to) and returns at once.
func (l *rangeLock) enter(from, to int64, shared bool) *hold {
	h := &hold{from: from, to: to, shared: shared}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	h.seq = l.seq
	for _, o := range l.held {
		if o.excludes(h) {
			h.blockers++
		}
	}
	if h.blockers > 0 {
		h.granted = make(chan struct{})
	}
	l.held = append(l.held, h)
	return h
}

// wait returns once the range is h's, or leaves its place when ctx ends.
func (l *rangeLock) wait(ctx context.Context, h *hold) error {
	if h.granted == nil {
		return nil
	}
	select {
	case <-h.granted:
		return nil
	case <-ctx.Done():
		l.leave(h)
		return context.Cause(ctx)
	}
}

// lock is enter and wait.
func (l *rangeLock) lock(ctx context.Context, from, to int64, shared bool) (*hold, error) {
	h := l.enter(from, to, shared)
	return h, l.wait(ctx, h)
}

// leave gives the range or the place up.
func (l *rangeLock) leave(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.held) - 1
	for i := 0; i <= last; {
		switch o := l.held[i]; {
		case o == h:
			l.held[i], l.held[last] = l.held[last], nil
			l.held = l.held[:last]
			last--
			continue
		case o.seq > h.seq && h.excludes(o):
			if o.blockers--; o.blockers == 0 {
				close(o.granted)
			}
		}
		i++
	}
}
