package scsi

import (
	"context"
	"sync"
)

// rangeLock orders commands that read and then write the same blocks (COMPARE AND
// WRITE, ORWRITE, WRITE AND VERIFY) against all other writes. Plain writes claim their
// range shared, and then never wait for each other; the atomic ones claim it exclusive. Claims
// that conflict are granted in the order in which they came.
type rangeLock struct {
	mu         sync.Mutex
	head, tail *claim
	// exclusive counts the exclusive claims in the list: while it is 0 nothing can conflict.
	exclusive int
	// free keeps used claims, so that a write allocates none.
	free *claim
}

// claim is a range of blocks [first, end) that is held or waited for.
type claim struct {
	prev, next *claim
	first, end uint64
	exclusive  bool
	// blockers counts the earlier claims that conflict; the claim is held at 0.
	blockers int
	granted  chan struct{}
}

func (c *claim) conflicts(o *claim) bool {
	return (c.exclusive || o.exclusive) && c.first < o.end && o.first < c.end
}

// acquire claims blocks from first on. It fails with ctx's error when ctx ends
// before the claim is granted.
func (l *rangeLock) acquire(ctx context.Context, first, blocks uint64, exclusive bool) (*claim, error) {
	l.mu.Lock()
	c := l.add(first, first+blocks, exclusive)
	if c.blockers == 0 {
		l.mu.Unlock()
		return c, nil
	}
	granted := make(chan struct{})
	c.granted = granted
	l.mu.Unlock()
	select {
	case <-granted:
		return c, nil
	case <-ctx.Done():
		l.release(c)
		return nil, ctx.Err()
	}
}

// try claims blocks shared if nothing can be in the way; else it returns nil.
func (l *rangeLock) try(first, blocks uint64) *claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exclusive > 0 {
		return nil
	}
	return l.add(first, first+blocks, false)
}

// add appends a claim and counts its blockers.
func (l *rangeLock) add(first, end uint64, exclusive bool) *claim {
	c := l.free
	if c == nil {
		c = new(claim)
	} else {
		l.free = c.next
	}
	*c = claim{prev: l.tail, first: first, end: end, exclusive: exclusive}
	if exclusive || l.exclusive > 0 {
		for o := l.head; o != nil; o = o.next {
			if c.conflicts(o) {
				c.blockers++
			}
		}
	}
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
	if exclusive {
		l.exclusive++
	}
	return c
}

// release gives up a claim, held or waiting, and grants those that waited for it alone.
func (l *rangeLock) release(c *claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exclusive > 0 {
		for o := c.next; o != nil; o = o.next {
			if !c.conflicts(o) {
				continue
			}
			if o.blockers--; o.blockers == 0 {
				close(o.granted)
			}
		}
	}
	if c.exclusive {
		l.exclusive--
	}
	if c.prev == nil {
		l.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		l.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	*c = claim{next: l.free}
	l.free = c
}
