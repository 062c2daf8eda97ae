package disk

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

var _ Cacher = (*OSFile)(nil)

// cachedReads lends what one ReadCached needs, so that it allocates nothing.
type cachedReads struct{ pool sync.Pool }

type cachedRead struct {
	vec  [1][]byte
	off  int64
	done bool
	call func(fd uintptr) // of this very read; made once
}

func (r *cachedReads) get() *cachedRead {
	if c, ok := r.pool.Get().(*cachedRead); ok {
		return c
	}
	c := &cachedRead{}
	c.call = c.read
	return c
}

func (c *cachedRead) read(fd uintptr) {
	for {
		n, err := unix.Preadv2(int(fd), c.vec[:], c.off, unix.RWF_NOWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// Less than all: the rest is not in memory, or not in the file.
		c.done = err == nil && n == len(c.vec[0])
		return
	}
}

// ReadCached implements Cacher by RWF_NOWAIT (preadv2(2)). Where the kernel or the file
// system knows no such reads, nothing counts as cached.
func (o *OSFile) ReadCached(p []byte, off int64) bool {
	c := o.cached.get()
	c.vec[0], c.off, c.done = p, off, false
	err := o.raw.Control(c.call)
	done := c.done
	c.vec[0] = nil
	o.cached.pool.Put(c)
	return err == nil && done
}
