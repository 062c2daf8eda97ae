package hostlib

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// stepBytes is the longest part of a request that is kept whole: longer ones are done step by step.
	stepBytes = 4 << 20
	// closeWait bounds how long Close waits for requests in flight and for the unit.
	closeWait = 5 * time.Second
)

// Volume is an open volume, as a block device of any byte offset. It is safe for concurrent use, and
// fast only with many requests in flight. Requests that overlap take effect one after the other, in the order
// in which they came; that holds for one Volume, not for several of the same volume. It implements io.ReaderAt, io.WriterAt and io.Closer.
type Volume struct {
	name     string
	block    int64
	discards bool
	line     *line
	locks    rangeLock
	opts     volumeOptions
	size     atomic.Int64 // as last seen

	ctx         context.Context // ends with Close
	cancel      context.CancelCauseFunc
	keepers     sync.WaitGroup
	flushWanted chan struct{}
	onClose     func()

	mu      sync.Mutex
	closed  bool
	ops     sync.WaitGroup
	closing sync.Once
	closeIt error
}

// volumeOptions are the parts of Config that a Volume needs.
type volumeOptions struct {
	retryLimit     time.Duration
	unflushedBytes int64
}

// newVolume makes a volume of its first session; line dials the later ones.
func newVolume(name string, n *line, d device, opts volumeOptions, onClose func()) *Volume {
	ctx, cancel := context.WithCancelCause(context.Background())
	v := &Volume{
		name: name, block: d.BlockSizeBytes(), discards: d.CanDiscard(), line: n, opts: opts, ctx: ctx, cancel: cancel,
		flushWanted: make(chan struct{}, 1), onClose: onClose,
	}
	v.size.Store(d.SizeBytes())
	first := newLive(d, 1)
	n.publish(first, nil)
	v.keepers.Go(func() { n.keep(ctx, first) })
	v.keepers.Go(v.makeRoom)
	return v
}

// Name is the volume's name.
func (v *Volume) Name() string { return v.name }

// Size is the volume's size in bytes. It follows the volume when that grows.
func (v *Volume) Size() int64 {
	if l := v.line.current.Load(); l != nil {
		v.size.Store(l.SizeBytes())
	}
	return v.size.Load()
}

// BlockSize is the size in bytes of the volume's blocks. Requests whose ends lie between
// blocks are possible, and cost a read more for each such end of a write.
func (v *Volume) BlockSize() int64 { return v.block }

// CanDiscard reports whether Discard is supported.
func (v *Volume) CanDiscard() bool { return v.discards }

// enter takes part in the volume until leave.
func (v *Volume) enter() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return san.Errorf(san.KindConflict, "volume %s: %w", v.name, ErrClosed)
	}
	v.ops.Add(1)
	return nil
}

// outside refuses a range that is not of the volume.
func (v *Volume) outside(what string, off, length int64) error {
	if size := v.Size(); off < 0 || length < 0 || off > size || length > size-off {
		return san.Errorf(san.KindInvalid, "%s of %d bytes at offset %d of volume %s is outside of its %d bytes", what, length, off, v.name, size)
	}
	return nil
}

// ReadAt is ReadAtContext without a context of its own: it is given up after Config.RetryLimit.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	return v.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext fills p from off, as io.ReaderAt asks: at the volume's end it returns what there is
// and io.EOF. While the unit can't be reached it waits, until ctx ends or, if ctx has no
// deadline, for Config.RetryLimit. After an error p's contents beyond n are undefined.
func (v *Volume) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	if err := v.enter(); err != nil {
		return 0, err
	}
	defer v.ops.Done()
	size := v.Size()
	if off < 0 {
		return 0, v.outside("read", off, int64(len(p)))
	}
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	end := error(nil)
	if int64(len(p)) > size-off {
		p, end = p[:size-off], io.EOF
	}
	for n < len(p) {
		m := v.step(off+int64(n), len(p)-n)
		if err := v.read(ctx, p[n:n+m], off+int64(n)); err != nil {
			return n, err
		}
		n += m
	}
	return n, end
}

// step is how much of length bytes at off to do at once; what is left begins at a block.
func (v *Volume) step(off int64, length int) int {
	if length <= stepBytes {
		return length
	}
	return stepBytes - int((off+stepBytes)%v.block)
}

// WriteAt is WriteAtContext without a context of its own: it is given up after Config.RetryLimit.
func (v *Volume) WriteAt(p []byte, off int64) (int, error) {
	return v.WriteAtContext(context.Background(), p, off)
}

// WriteAtContext stores p at off. What it stored survives the loss of the connection and a restart of the
// unit, but only Flush makes it survive the end of this program or of its machine too. While the unit can't be reached
// it waits, as ReadAtContext does. It returns how much is stored for certain; if the error's san.KindOf is
// san.KindUnknown, more of p may be stored, or may still come to be: after ctx ended, a request that was on its way is
// not called back, but requests that overlap it wait for its end. A p of more than 4 MiB is stored in steps.
func (v *Volume) WriteAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	if err := v.enter(); err != nil {
		return 0, err
	}
	defer v.ops.Done()
	if err := v.outside("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for n < len(p) {
		m := v.step(off+int64(n), len(p)-n)
		if err := v.write(ctx, p[n:n+m], off+int64(n)); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// Flush is FlushContext without a context of its own.
func (v *Volume) Flush() error { return v.FlushContext(context.Background()) }

// FlushContext makes every write and discard that returned before it stable at the unit.
func (v *Volume) FlushContext(ctx context.Context) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.ops.Done()
	return v.flush(ctx)
}

// Discard is DiscardContext without a context of its own.
func (v *Volume) Discard(off, length int64) error {
	return v.DiscardContext(context.Background(), off, length)
}

// DiscardContext tells the unit that the range is not needed any more. Blocks that are only partly in
// it are left alone. Without support the error is errors.ErrUnsupported.
func (v *Volume) DiscardContext(ctx context.Context, off, length int64) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.ops.Done()
	if err := v.outside("discard", off, length); err != nil {
		return err
	}
	from, to := (off+v.block-1)/v.block*v.block, (off+length)/v.block*v.block
	if from >= to {
		return nil
	}
	return v.discard(ctx, from, to)
}

// Close makes stable what is not yet, logs out and ends all requests. Those that wait for a lost unit
// fail at once. If the unit can't be reached, or not in some seconds, the error says so; the volume is closed
// in any case, but writes that were not flushed may then be lost if the unit restarts.
func (v *Volume) Close() error {
	v.closing.Do(func() {
		v.mu.Lock()
		v.closed = true
		v.mu.Unlock()
		v.closeIt = v.close()
	})
	return v.closeIt
}

func (v *Volume) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeWait, ErrLost)
	defer cancel()
	var err error
	if v.line.current.Load() != nil {
		quiet := make(chan struct{})
		go func() { // ends with the requests, which end with v.ctx at the latest
			defer close(quiet)
			v.ops.Wait()
		}()
		select {
		case <-quiet:
		case <-ctx.Done():
		}
		if v.line.unflushed() {
			err = v.flush(ctx)
		}
	} else if v.line.unflushed() && !v.line.gone() {
		err = san.Errorf(san.KindUnavailable, "close volume %s: what was not flushed may be lost: %w", v.name, ErrLost)
	}
	v.cancel(ErrClosed)
	v.keepers.Wait()
	v.ops.Wait()
	if v.onClose != nil {
		v.onClose()
	}
	if errors.Is(err, ErrGone) {
		return nil // whoever has the volume now, it is not this host
	}
	return err
}
