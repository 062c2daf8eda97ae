package iscsi

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// taskContext is the context of one command. It is made for each command and cancelled
// only when the command is aborted, so it must cost next to nothing: the channel exists
// once somebody asks for it. It is never used again for another command, because a Store
// may hold on to it.
type taskContext struct {
	cancelled atomic.Bool
	mu        sync.Mutex
	done      chan struct{}
}

var _ context.Context = (*taskContext)(nil)

// Deadline says that there is none.
func (c *taskContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value holds nothing.
func (c *taskContext) Value(any) any { return nil }

// Err is context.Canceled once the command has been aborted.
func (c *taskContext) Err() error {
	if c.cancelled.Load() {
		return context.Canceled
	}
	return nil
}

// Done is closed when the command is aborted.
func (c *taskContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.cancelled.Load() {
			close(c.done)
		}
	}
	return c.done
}

func (c *taskContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cancelled.Swap(true) && c.done != nil {
		close(c.done)
	}
}
