package volume

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

// punchAlignBytes is the smallest piece of which media give space back.
const punchAlignBytes = 4096

// ErrClosed is I/O to a replica that was closed or deleted.
var ErrClosed = errors.New("the volume is closed on this unit")

// Replica is this unit's copy of one volume, open for I/O. All methods are safe for
// concurrent use; overlapping calls take effect one after the other, in the order in
// which they came.
type Replica struct {
	id    san.VolumeID
	block uint32
	gate  *gate
	lock  rangeLock
	where atomic.Pointer[placement]
	// journal makes atomic writes atomic.
	journal *journal
	stats   counters
}

// placement says where each byte is. It never changes; a volume that grows gets a new one.
type placement struct {
	sizeBytes int64
	segments  []segment // by start, without gaps
	media     []*medium
}

// segment is a run of bytes that are neighbours both in the volume and on a medium.
type segment struct {
	start, length int64 // in the volume
	medium        *medium
	at            int64 // on the medium
}

// medium is a medium as one replica uses it.
type medium struct {
	*extent.Medium
	changes atomic.Uint64 // writes that this replica has finished
	stable  atomic.Uint64 // how many of them are known to be stable
}

// piece is the part of an access that is in one segment.
type piece struct {
	medium   *medium
	at       int64 // on the medium
	from, to int64 // in the access
}

// each calls do for each piece of [off, off+length), in order, until one fails.
func (pl *placement) each(off, length int64, do func(piece) error) error {
	i := 0
	if len(pl.segments) > 1 {
		i = sort.Search(len(pl.segments), func(i int) bool { s := &pl.segments[i]; return s.start+s.length > off })
	}
	for from := int64(0); from < length; i++ {
		s := &pl.segments[i]
		skip := off + from - s.start
		n := min(s.length-skip, length-from)
		if err := do(piece{medium: s.medium, at: s.at + skip, from: from, to: from + n}); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// ID is the volume's id.
func (r *Replica) ID() san.VolumeID { return r.id }

// SizeBytes is the volume's size.
func (r *Replica) SizeBytes() int64 { return r.where.Load().sizeBytes }

// BlockSizeBytes is the volume's block size.
func (r *Replica) BlockSizeBytes() uint32 { return r.block }

// access does what all reads and writes have in common: it checks the range, waits for
// overlapping accesses, and counts failures.
func (r *Replica) access(ctx context.Context, what string, off, length int64, shared bool, do func(*placement) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !r.gate.enter() {
		return r.closed()
	}
	defer r.gate.leave()
	pl := r.where.Load()
	if off < 0 || length < 0 || off > pl.sizeBytes-length {
		return san.Errorf(san.KindInvalid, "%s of %d bytes at %d is outside volume %s, which has %d bytes", what, length, off, r.id, pl.sizeBytes)
	}
	if length == 0 {
		return nil
	}
	s, err := r.lock.lock(ctx, off, length, shared)
	if err != nil {
		return err
	}
	if err = r.journal.readable(off, off+length); err == nil {
		err = do(pl)
	}
	r.lock.unlock(s)
	if err != nil {
		r.stats.errors.Add(1)
		return san.Wrap(what+" volume "+string(r.id), err)
	}
	return nil
}

func (r *Replica) closed() error {
	return san.Errorf(san.KindUnavailable, "volume %s: %w", r.id, ErrClosed)
}

// ReadAt fills p from off.
func (r *Replica) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.access(ctx, "read", off, int64(len(p)), true, func(pl *placement) error {
		err := pl.each(off, int64(len(p)), func(c piece) error { return c.medium.ReadAt(p[c.from:c.to], c.at) })
		if err == nil {
			r.stats.reads.Add(1)
			r.stats.readBytes.Add(uint64(len(p)))
		}
		return err
	})
}

// WriteAt stores p at off; with fua it is stable when WriteAt returns nil. After an error
// the range may hold old and new bytes; disk.ErrNoSpace is a full medium.
func (r *Replica) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	err := r.access(ctx, "write", off, int64(len(p)), false, func(pl *placement) error {
		if err := r.journal.settle(off, off+int64(len(p))); err != nil {
			return err
		}
		err := pl.write(p, off)
		if err == nil {
			r.wrote(p)
		}
		return err
	})
	if err != nil || !fua {
		return err
	}
	return r.flush("write", off, int64(len(p)))
}

func (r *Replica) wrote(p []byte) {
	r.stats.writes.Add(1)
	r.stats.writeBytes.Add(uint64(len(p)))
}

// Zero makes the range read as zeros and gives its space back where the medium can.
func (r *Replica) Zero(ctx context.Context, off, length int64) error {
	return r.access(ctx, "zero", off, length, false, func(pl *placement) error {
		if err := r.journal.settle(off, off+length); err != nil {
			return err
		}
		err := pl.each(off, length, func(c piece) error {
			defer c.medium.changes.Add(1)
			return zeroPiece(c)
		})
		if err == nil {
			r.stats.zeros.Add(1)
			r.stats.zeroBytes.Add(uint64(length))
		}
		return err
	})
}

// errRunEnds ends the search for the end of a run.
var errRunEnds = errors.New("the run ends here")

// Mapped says whether a medium holds space for the byte at off, and for how many of the length bytes
// from there on that is so, at least one. What is not mapped reads as zeros. Writes at the same time
// may make the answer an old one.
func (r *Replica) Mapped(ctx context.Context, off, length int64) (run int64, mapped bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	if !r.gate.enter() {
		return 0, false, r.closed()
	}
	defer r.gate.leave()
	pl := r.where.Load()
	if off < 0 || length <= 0 || off > pl.sizeBytes-length {
		return 0, false, san.Errorf(san.KindInvalid, "%d bytes at %d are outside volume %s, which has %d bytes", length, off, r.id, pl.sizeBytes)
	}
	err = pl.each(off, length, func(c piece) error {
		n, state, err := c.medium.Mapped(c.at, c.to-c.from)
		switch {
		case err != nil:
			return err
		case run > 0 && state != mapped:
			return errRunEnds
		}
		mapped = state
		if run += n; n < c.to-c.from {
			return errRunEnds
		}
		return nil
	})
	if err != nil && !errors.Is(err, errRunEnds) {
		return 0, false, san.Wrap("map of volume "+string(r.id), err)
	}
	return run, mapped, nil
}

// zeroPiece punches the whole blocks out and writes zeros to what is left at the edges.
func zeroPiece(c piece) error {
	end := c.at + c.to - c.from
	first := (c.at + punchAlignBytes - 1) / punchAlignBytes * punchAlignBytes
	last := end / punchAlignBytes * punchAlignBytes
	if first >= last {
		return c.medium.WriteAt(make([]byte, end-c.at), c.at)
	}
	if c.at < first {
		if err := c.medium.WriteAt(make([]byte, first-c.at), c.at); err != nil {
			return err
		}
	}
	if err := c.medium.PunchHole(first, last-first); err != nil {
		return err
	}
	if last < end {
		return c.medium.WriteAt(make([]byte, end-last), last)
	}
	return nil
}

// Flush makes every write that returned before it stable: by one fdatasync of each medium
// that this replica changed since it was last made stable, shared with whoever else asks
// at that moment. Once a medium has failed to do so, every later Flush fails, because what
// was acknowledged before may be lost.
func (r *Replica) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.flush("flush", 0, r.SizeBytes())
}

// flush makes what is in the range's media stable.
func (r *Replica) flush(what string, off, length int64) error {
	if !r.gate.enter() {
		return r.closed()
	}
	defer r.gate.leave()
	var media []*medium
	pl := r.where.Load()
	_ = pl.each(off, length, func(c piece) error { // do never fails here
		for _, m := range media {
			if m == c.medium {
				return nil
			}
		}
		media = append(media, c.medium)
		return nil
	})
	err := flushMedia(media)
	if err != nil {
		r.stats.errors.Add(1)
		return san.Wrap(what+" volume "+string(r.id), err)
	}
	r.stats.flushes.Add(1)
	return nil
}

func flushMedia(media []*medium) error {
	if len(media) == 1 {
		return media[0].flush()
	}
	var g errgroup.Group
	for _, m := range media {
		g.Go(m.flush)
	}
	return g.Wait()
}

func (m *medium) flush() error {
	// Before the short cut: a failure concerns also what an earlier flush would have
	// found clean.
	if err := m.Failed(); err != nil {
		return err
	}
	seen := m.changes.Load()
	if m.stable.Load() >= seen {
		return nil
	}
	if err := m.Sync(); err != nil {
		return err
	}
	for {
		known := m.stable.Load()
		if known >= seen || m.stable.CompareAndSwap(known, seen) {
			return nil
		}
	}
}

// close waits for the I/O in flight and refuses all that comes later.
func (r *Replica) close() error {
	r.gate.shut()
	return r.journal.close()
}

// counters count what succeeded, and failures.
type counters struct {
	reads, readBytes, writes, writeBytes, zeros, zeroBytes, flushes, errors atomic.Uint64
}

// Stats is how much a replica did since it was opened. Failed calls count in Errors only.
type Stats struct {
	Reads, ReadBytes   uint64
	Writes, WriteBytes uint64
	Zeros, ZeroBytes   uint64
	Flushes            uint64 // writes with FUA included
	Errors             uint64
}

// Stats returns the replica's counters.
func (r *Replica) Stats() Stats {
	c := &r.stats
	return Stats{
		Reads: c.reads.Load(), ReadBytes: c.readBytes.Load(),
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		Zeros: c.zeros.Load(), ZeroBytes: c.zeroBytes.Load(),
		Flushes: c.flushes.Load(), Errors: c.errors.Load(),
	}
}

// newReplica opens a volume.
func (m *Manager) newReplica(spec Spec) (*Replica, error) {
	pl, err := m.place(spec, nil)
	if err != nil {
		return nil, err
	}
	r := &Replica{id: spec.ID, block: spec.BlockSizeBytes, gate: newGate()}
	r.where.Store(pl)
	r.journal = newJournal(m.records, spec.ID, m.journalBytes, func() error { return flushMedia(r.where.Load().media) })
	return r, nil
}

// place builds the map of a volume from what its media say. have are the media as the replica uses
// them already: they know what is not stable yet. A volume that is not whole is an error that
// matches disk.ErrDamaged.
func (m *Manager) place(spec Spec, have []*medium) (*placement, error) {
	pl := &placement{sizeBytes: spec.SizeBytes, media: slices.Clone(have)}
	known := map[san.MediumID]*medium{}
	for _, md := range have {
		known[md.ID()] = md
	}
	for i, sl := range spec.Slices {
		md := known[sl.Medium]
		if md == nil {
			on := m.media[sl.Medium]
			if on == nil {
				return nil, missingMedium(spec.ID, sl.Medium)
			}
			md = &medium{Medium: on}
			known[sl.Medium] = md
			pl.media = append(pl.media, md)
		}
		if err := pl.add(spec.ID, md, spec.firstLogical(i), sl.Extents); err != nil {
			return nil, err
		}
	}
	// The last extent may reach beyond the volume's end.
	last := &pl.segments[len(pl.segments)-1]
	last.length = spec.SizeBytes - last.start
	return pl, nil
}

// add appends the extents of one slice, joined with what they continue.
func (pl *placement) add(id san.VolumeID, m *medium, first, count uint32) error {
	size := m.ExtentSizeBytes()
	next := first
	for _, e := range m.Extents(id) {
		if e.Logical < first || e.Logical >= first+count {
			continue
		}
		if e.Logical != next {
			break
		}
		next++
		at := m.OffsetBytes(e.Index)
		if n := len(pl.segments); n > 0 {
			if s := &pl.segments[n-1]; s.medium == m && s.at+s.length == at {
				s.length += size
				continue
			}
		}
		pl.segments = append(pl.segments, segment{start: int64(e.Logical) * size, length: size, medium: m, at: at})
	}
	if next != first+count {
		return san.Errorf(san.KindInternal, "volume %s has lost extent %d on medium %s (%s); rebuild it from another copy or restore the medium: %w", id, next, m.ID(), m.Name(), disk.ErrDamaged)
	}
	return nil
}

func missingMedium(id san.VolumeID, m san.MediumID) error {
	return san.Errorf(san.KindUnavailable, "volume %s needs medium %s, which this unit does not have open; put it back and restart the unit: %w", id, m, ErrNoMedium)
}

// ErrNoMedium is a medium that is not among the unit's open ones.
var ErrNoMedium = errors.New("medium not present")
