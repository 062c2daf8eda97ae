package volume

import (
	"context"
	"sync"
)

// rangeLock orders accesses to byte ranges: those that overlap, unless both only read,
// run one after the other in the order in which they came; all others run in parallel.
// Finding the overlaps looks at each access in progress once; their number is bounded
// by the commands that sessions may have outstanding.
type rangeLock struct {
	mu         sync.Mutex
	head, tail *span // in the order of arrival, running and waiting
	spare      *span // a list of spans to use again, by next
}

// span is one access.
type span struct {
	off, end   int64
	shared     bool
	blockers   int           // earlier accesses that it has to wait for
	ready      chan struct{} // gets one value when the last of them has gone
	prev, next *span
}

func (s *span) conflicts(o *span) bool {
	return s.off < o.end && o.off < s.end && !(s.shared && o.shared)
}

// lock returns once [off, off+length) may be accessed; shared accesses only read. The
// error is the context's, and then nothing is held.
func (l *rangeLock) lock(ctx context.Context, off, length int64, shared bool) (*span, error) {
	l.mu.Lock()
	s := l.take()
	s.off, s.end, s.shared = off, off+length, shared
	for q := l.head; q != nil; q = q.next {
		if q.conflicts(s) {
			s.blockers++
		}
	}
	l.append(s)
	wait := s.blockers > 0
	l.mu.Unlock()
	if !wait {
		return s, nil
	}
	select {
	case <-s.ready:
		return s, nil
	case <-ctx.Done():
		l.unlock(s)
		return nil, ctx.Err()
	}
}

// try is lock without waiting: it returns nil where lock would have waited.
func (l *rangeLock) try(off, length int64, shared bool) *span {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := span{off: off, end: off + length, shared: shared}
	for q := l.head; q != nil; q = q.next {
		if q.conflicts(&wanted) {
			return nil
		}
	}
	s := l.take()
	s.off, s.end, s.shared = off, off+length, shared
	l.append(s)
	return s
}

// append puts a span at the end. l.mu is held.
func (l *rangeLock) append(s *span) {
	if s.prev = l.tail; s.prev != nil {
		s.prev.next = s
	} else {
		l.head = s
	}
	l.tail = s
}

// unlock ends an access, or a wait for one.
func (l *rangeLock) unlock(s *span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q := s.next; q != nil; q = q.next {
		if q.conflicts(s) {
			if q.blockers--; q.blockers == 0 {
				q.ready <- struct{}{}
			}
		}
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.tail = s.prev
	}
	select {
	case <-s.ready: // it was let in while it gave up
	default:
	}
	*s = span{ready: s.ready, next: l.spare}
	l.spare = s
}

func (l *rangeLock) take() *span {
	s := l.spare
	if s == nil {
		return &span{ready: make(chan struct{}, 1)}
	}
	l.spare, s.next = s.next, nil
	return s
}
