package hostlib

import (
	"slices"
)

// change is a write or discard that the unit has answered. Its bytes may still be in the unit's volatile
// cache alone.
type change struct {
	seq  uint64
	off  int64
	size int64
	data []byte // nil: a discard
}

// costBytes is what a change counts for.
func (c *change) costBytes() int64 { return int64(len(c.data)) + 64 }

// journal holds the changes since the last flush, in the order in which they were answered, so
// that a unit that lost its cache can be given them again. It is guarded by its line's mutex.
type journal struct {
	seq     uint64
	changes []change
	bytes   int64
	freed   chan struct{} // closed and replaced when bytes goes down or failed changes
	failed  error         // why the last flush that was to make room failed
}

func newJournal() journal { return journal{freed: make(chan struct{})} }

func (j *journal) add(c change) {
	j.seq++
	c.seq = j.seq
	j.changes = append(j.changes, c)
	j.bytes += c.costBytes()
}

// trim forgets what is stable: all up to seq.
func (j *journal) trim(seq uint64) {
	n := 0
	for n < len(j.changes) && j.changes[n].seq <= seq {
		j.bytes -= j.changes[n].costBytes()
		n++
	}
	j.changes = slices.Clone(j.changes[n:])
	j.wake(nil)
}

// wake lets those who wait for room look again.
func (j *journal) wake(failed error) {
	j.failed = failed
	close(j.freed)
	j.freed = make(chan struct{})
}
