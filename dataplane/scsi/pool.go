package scsi

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 4 KiB to MaxTransferBytes.
const (
	minBufferShift = 12
	maxBufferShift = 25
)

// bufferPool lends data-in buffers. What is not in use is the garbage collector's, so
// an idle logical unit holds none.
type bufferPool struct {
	classes [maxBufferShift - minBufferShift + 1]sync.Pool
}

// buffer is a lent buffer. release is made once for each, so that a read allocates no
// closure.
type buffer struct {
	b       []byte
	release func()
}

// get lends n bytes with arbitrary content, n at most MaxTransferBytes.
func (p *bufferPool) get(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minBufferShift)
	pool := &p.classes[class]
	buf, ok := pool.Get().(*buffer)
	if !ok {
		buf = &buffer{b: make([]byte, 1<<(class+minBufferShift))}
		buf.release = func() { pool.Put(buf) }
	}
	return buf
}
