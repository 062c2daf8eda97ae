package volume

import (
	"bytes"
	"context"

	"github.com/sandbar-san/sandbar/san"
)

// restoreStepBytes is the unit in which an atomic write that failed is taken back.
const restoreStepBytes = 4096

// MaxAtomicBytes is the longest write that WriteAtomic takes.
func (r *Replica) MaxAtomicBytes() int64 { return r.journal.maxBytes() }

// WriteAtomic stores p at off, at most MaxAtomicBytes: whatever happens, an error, a kill of the
// process or a loss of power, the range then has all of its old bytes or all of the new ones. It
// is stable when WriteAtomic returns nil, asked for or not. It costs one fdatasync of the
// replica's journal, which those who write at the same time share.
func (r *Replica) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	if int64(len(p)) > r.MaxAtomicBytes() {
		return san.Errorf(san.KindInvalid, "an atomic write of %d bytes to volume %s is too long; at most %d are possible", len(p), r.id, r.MaxAtomicBytes())
	}
	return r.access(ctx, "write", off, int64(len(p)), false, func(pl *placement) error {
		// A medium that lost writes may lose these too, from what is to be their place.
		err := pl.each(off, int64(len(p)), func(c piece) error { return c.medium.Failed() })
		if err != nil {
			return err
		}
		old := make([]byte, len(p))
		if err := pl.read(old, off); err != nil {
			return err
		}
		w := &atomicWrite{byteRange: byteRange{off, off + int64(len(p))}, p: p}
		w.apply = func() error {
			err := pl.write(p, off)
			if err != nil {
				if back := pl.restore(old, off); back != nil {
					r.journal.torn.Store(&tornRange{w.byteRange, san.Errorf(san.KindUnavailable,
						"an atomic write of %d bytes at %d failed half-way and could not be taken back: %w; put the medium right, then restart the unit, which finishes the write from its journal", len(p), off, back)})
				}
			}
			return err
		}
		if err := r.journal.write(w); err != nil {
			return err
		}
		r.stats.writes.Add(1)
		r.stats.writeBytes.Add(uint64(len(p)))
		return nil
	})
}

func (pl *placement) read(p []byte, off int64) error {
	return pl.each(off, int64(len(p)), func(c piece) error { return c.medium.ReadAt(p[c.from:c.to], c.at) })
}

func (pl *placement) write(p []byte, off int64) error {
	return pl.each(off, int64(len(p)), func(c piece) error {
		defer c.medium.changes.Add(1) // in vain too: some of it may be there
		return c.medium.WriteAt(p[c.from:c.to], c.at)
	})
}

// restore puts back what a write that failed has changed. It writes nothing where nothing changed:
// that may be just what can't be written.
func (pl *placement) restore(old []byte, off int64) error {
	now := make([]byte, restoreStepBytes)
	return pl.each(off, int64(len(old)), func(c piece) error {
		defer c.medium.changes.Add(1)
		for from, at := c.from, c.at; from < c.to; {
			n := min(c.to-from, restoreStepBytes-at%restoreStepBytes)
			want, have := old[from:from+n], now[:n]
			if err := c.medium.ReadAt(have, at); err != nil {
				return err
			}
			if !bytes.Equal(have, want) {
				if err := c.medium.WriteAt(want, at); err != nil {
					return err
				}
			}
			from, at = from+n, at+n
		}
		return nil
	})
}

// recover carries out what the journal has, so that no atomic write is half done, and empties it.
// Nobody else uses the replica yet.
func (r *Replica) recover() error {
	pl := r.where.Load()
	cells, err := replayJournal(r.journal.dir, r.id, func(p []byte, off int64) error {
		if off < 0 || off > pl.sizeBytes-int64(len(p)) {
			return san.Errorf(san.KindInternal, "the journal of volume %s has a write of %d bytes at %d, which is outside of it; delete the volume here and rebuild it from another copy", r.id, len(p), off)
		}
		return pl.write(p, off)
	})
	if err != nil {
		return san.Wrap("finish the atomic writes of volume "+string(r.id), err)
	}
	if cells > 0 {
		if err := flushMedia(pl.media); err != nil {
			return err
		}
	}
	return removeJournal(r.journal.dir, r.id)
}
