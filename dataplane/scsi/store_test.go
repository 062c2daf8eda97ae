package scsi

import (
	"context"
	"errors"
	"sync"
)

// errStore is the error that a memStore fails with unless told another.
var errStore = errors.New("injected failure")

// memStore is a Store in memory that can fail, count and block.
type memStore struct {
	mu   sync.Mutex
	data []byte
	// failRead … failZero, when set, decide each call's error.
	failRead, failWrite, failFlush, failZero func() error
	// gate, when set, is received from before each write takes effect.
	gate                          chan struct{}
	reads, writes, flushes, zeros int
	fua                           bool
}

func newMemStore(size int) *memStore { return &memStore{data: make([]byte, size)} }

func (m *memStore) SizeBytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.data))
}

func (m *memStore) grow(size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = append(m.data, make([]byte, size-len(m.data))...)
}

// span bounds a call as the Store's contract promises; a breach is the device server's defect.
func (m *memStore) span(off int64, n int) []byte {
	if off < 0 || n <= 0 || off+int64(n) > int64(len(m.data)) || off%512 != 0 || n%512 != 0 {
		panic("store called outside of its contract")
	}
	return m.data[off : off+int64(n)]
}

func failing(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (m *memStore) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if err := failing(m.failRead); err != nil {
		return err
	}
	copy(p, m.span(off, len(p)))
	return nil
}

func (m *memStore) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	m.fua = fua
	if err := failing(m.failWrite); err != nil {
		return err
	}
	copy(m.span(off, len(p)), p)
	return nil
}

func (m *memStore) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	return failing(m.failFlush)
}

func (m *memStore) Zero(ctx context.Context, off, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zeros++
	if err := failing(m.failZero); err != nil {
		return err
	}
	clear(m.span(off, int(length)))
	return nil
}
