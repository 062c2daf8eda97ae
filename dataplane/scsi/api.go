package scsi

import "context"

// Store is the block store beneath a logical unit; dataplane/volume implements it.
// Offsets and lengths are bytes, multiples of the block size, and inside SizeBytes:
// the device server has checked them. Implementations are safe for concurrent use;
// two overlapping calls take effect in some order, as if one after the other.
//
// Errors: one that is disk.ErrNoSpace becomes 07/27/07 (SPACE ALLOCATION FAILED WRITE PROTECT),
// disk.ErrReadOnly 07/27/00 (WRITE PROTECTED), a context error means that the command was not started, any other becomes MEDIUM ERROR
// (03/11/00 for reads, 03/0C/00 for writes and flushes).
type Store interface {
	// SizeBytes is the present size; it may grow.
	SizeBytes() int64
	// ReadAt fills p from off.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt stores p at off; with fua it is on stable media when WriteAt returns.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Flush makes every write that returned before it stable.
	Flush(ctx context.Context) error
	// MaxAtomicBytes is the longest write that WriteAtomic takes; 0 where there is none.
	MaxAtomicBytes() int64
	// WriteAtomic stores p at off, stably: an error, a crash or a loss of power leaves all of the old
	// bytes or all of the new ones.
	WriteAtomic(ctx context.Context, p []byte, off int64) error
	// Mapped says whether the Store holds space for the byte at off, and how many of the length bytes
	// from there on are in the same state, at least one. What is not mapped reads as zeros.
	Mapped(ctx context.Context, off, length int64) (run int64, mapped bool, err error)
	// Zero makes the range read as zeros and gives its space back where the medium can.
	Zero(ctx context.Context, off, length int64) error
}

// QuickStore is a Store that can do without waiting what needs no waiting.
type QuickStore interface {
	Store
	// ReadNow is ReadAt if that waits for nothing; else it reports false, and p holds anything.
	ReadNow(p []byte, off int64) (done bool)
	// WriteNow is WriteAt without fua if that waits for nothing; else it reports false and
	// has done nothing.
	WriteNow(p []byte, off int64) (done bool, err error)
}
