package iscsi

import (
	"math/bits"
	"sync"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
)

// Buffers for data-out come in powers of two from 4 KiB to scsi.MaxTransferBytes.
const minBufferShift = 12

// buffers lends data-out buffers, shared by all sessions of a server. What is not in use is
// the garbage collector's.
type buffers struct {
	classes [32 - minBufferShift]sync.Pool
}

// buffer is a lent block of memory; give it back with buffers.put.
type buffer struct{ b []byte }

func sizeClass(n int) int { return max(0, bits.Len(uint(max(n, 1)-1))-minBufferShift) }

// get lends at least n bytes of any content, n at most scsi.MaxTransferBytes.
func (p *buffers) get(n int) *buffer {
	class := sizeClass(min(n, scsi.MaxTransferBytes))
	if b, ok := p.classes[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 1<<(class+minBufferShift))}
}

// put takes a buffer back; nil is fine.
func (p *buffers) put(b *buffer) {
	if b != nil {
		p.classes[sizeClass(len(b.b))].Put(b)
	}
}
