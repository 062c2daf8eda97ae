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
	// atomics counts atomic writes; longest is what MaxAtomicBytes says.
	atomics int
	longest int64
	// holes are the 512-byte pieces that were zeroed and not written since; failMap decides Mapped's error.
	holes   map[int64]bool
	failMap func() error
	// bad is a 512-byte piece that can't be read, -1 for none.
	bad int64
	// cold has every access wait.
	cold bool
}

func newMemStore(size int) *memStore {
	return &memStore{data: make([]byte, size), longest: 16 << 10, holes: map[int64]bool{}, bad: -1}
}

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
	if at := m.bad * 512; off <= at && at < off+int64(len(p)) {
		return errStore
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
	m.dig(off, int64(len(p)), false)
	return nil
}

// dig marks a range as a hole, or as filled.
func (m *memStore) dig(off, length int64, hole bool) {
	for at := off; at < off+length; at += 512 {
		m.holes[at] = hole
	}
}

func (m *memStore) MaxAtomicBytes() int64 { return m.longest }

func (m *memStore) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	if int64(len(p)) > m.longest {
		panic("store called outside of its contract")
	}
	err := m.WriteAt(ctx, p, off, true)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.atomics++
	return err
}

func (m *memStore) Mapped(ctx context.Context, off, length int64) (run int64, mapped bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.span(off, int(length))
	if err := failing(m.failMap); err != nil {
		return 0, false, err
	}
	for run = 512; run < length && m.holes[off+run] == m.holes[off]; {
		run += 512
	}
	return run, !m.holes[off], nil
}

func (m *memStore) ReadNow(p []byte, off int64) bool {
	return !m.cold && m.ReadAt(context.Background(), p, off) == nil
}

func (m *memStore) WriteNow(p []byte, off int64) (bool, error) {
	if m.cold {
		return false, nil
	}
	return true, m.WriteAt(context.Background(), p, off, false)
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
	m.dig(off, length, true)
	return nil
}
