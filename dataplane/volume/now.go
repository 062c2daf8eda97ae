package volume

import "github.com/sandbar-san/sandbar/san"

// pageBytes is the unit in which the kernel caches files. A write of part of one that is not in
// memory waits until it has been read.
const pageBytes = 4096

// begin lets an access in that can begin at once. Otherwise, or if there is anything
// about it to be told, it returns nil, and the access is for [Replica.access].
func (r *Replica) begin(off, length int64, shared bool) (*placement, *span) {
	if !r.gate.enter() {
		return nil, nil
	}
	pl := r.where.Load()
	if off < 0 || length <= 0 || off > pl.sizeBytes-length {
		r.gate.leave()
		return nil, nil
	}
	s := r.lock.try(off, length, shared)
	if s == nil {
		r.gate.leave()
		return nil, nil
	}
	// Emptying the journal takes its time, and what is torn is an error that says more.
	if r.journal.readable(off, off+length) != nil || !shared && r.journal.live.Load() && r.journal.holds(off, off+length) {
		r.end(s)
		return nil, nil
	}
	return pl, s
}

func (r *Replica) end(s *span) {
	r.lock.unlock(s)
	r.gate.leave()
}

// ReadNow is ReadAt where that needs to wait neither for a medium nor for another access.
// Otherwise it reports false, and p holds anything.
func (r *Replica) ReadNow(p []byte, off int64) (done bool) {
	pl, s := r.begin(off, int64(len(p)), true)
	if s == nil {
		return false
	}
	defer r.end(s)
	done = true
	_ = pl.each(off, int64(len(p)), func(c piece) error { // do never fails here
		done = done && c.medium.ReadCached(p[c.from:c.to], c.at)
		return nil
	})
	if done {
		r.stats.reads.Add(1)
		r.stats.readBytes.Add(uint64(len(p)))
	}
	return done
}

// WriteNow is WriteAt without FUA where that needs to wait neither for a medium to be read nor for another
// access. Otherwise it reports false and has done nothing. It may still take long: when
// memory is full of what was written before.
func (r *Replica) WriteNow(p []byte, off int64) (done bool, err error) {
	pl, s := r.begin(off, int64(len(p)), false)
	if s == nil {
		return false, nil
	}
	defer r.end(s)
	whole := true
	_ = pl.each(off, int64(len(p)), func(c piece) error { // do never fails here
		whole = whole && c.at%pageBytes == 0 && (c.to-c.from)%pageBytes == 0
		return nil
	})
	if !whole {
		return false, nil
	}
	if err = pl.write(p, off); err != nil {
		r.stats.errors.Add(1)
		return true, san.Wrap("write volume "+string(r.id), err)
	}
	r.wrote(p)
	return true, nil
}
