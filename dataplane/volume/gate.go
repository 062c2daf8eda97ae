package volume

import (
	"sync"
	"sync/atomic"
)

// gate counts the calls inside and, once shut, lets nobody in.
type gate struct {
	state atomic.Int64 // calls inside, and shutBit
	once  sync.Once
	idle  chan struct{}
}

const shutBit = 1 << 62

func newGate() *gate { return &gate{idle: make(chan struct{})} }

// enter reports whether the caller is in; then it must leave.
func (g *gate) enter() bool {
	if g.state.Add(1)&shutBit != 0 {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.state.Add(-1) == shutBit {
		g.once.Do(func() { close(g.idle) })
	}
}

// shut lets nobody in any more and returns when all have left.
func (g *gate) shut() {
	if g.state.Or(shutBit)&^shutBit == 0 {
		g.once.Do(func() { close(g.idle) })
	}
	<-g.idle
}
