package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// journalBytes is the size of a journal unless the configuration says otherwise, within
	// minJournalBytes and maxJournalBytes.
	journalBytes    = 4 << 20
	minJournalBytes = 8 << 10
	maxJournalBytes = 64 << 20
	// maxAtomicBytes bounds one atomic write, and what one cell of a journal holds of several.
	maxAtomicBytes = 1 << 20

	journalMagic  = 0x4a574253 // "SBWJ"
	journalSuffix = ".journal"
	// cellAlignBytes keeps cells apart by sectors: a torn write of one never touches the one before.
	cellAlignBytes = 512
	// writeHeaderBytes come before each write in a cell: its offset and its length, 64 bits each.
	writeHeaderBytes = 16
)

// journal is a replica's redo log. An atomic write is put there, stably, before the first of its
// bytes goes to its place; a start after a crash carries out what is in the journal again. So
// there is the old content, if the journal was torn, or else the new one.
//
// The journal is a file beside the replica's record that exists once it is needed. Its cells
// follow each other from the beginning, numbered without a gap; the first that is not whole or not
// the next ends it. It is emptied by making what it describes stable in its place and then
// blanking the first cell, and that happens when it is full, and before an ordinary write to
// bytes that are in it: else a restart would put the older content over the newer.
//
// Writes that come while another is being made stable share the next cell, and one fdatasync.
type journal struct {
	dir  disk.Dir
	id   san.VolumeID
	size int64
	// stabilise makes all that the replica wrote stable in its place.
	stabilise func() error

	// lead is held by who writes the journal or empties it; the fields up to mu are his.
	lead chan struct{}
	file disk.File // nil before the first write
	at   int64     // where the next cell goes
	next uint64    // its number
	// failed is why nobody knows what is in the journal. It stays, and so do ranges.
	failed error

	mu      sync.Mutex
	waiting []*atomicWrite
	// ranges are those that a restart would write again. Who changes them has lead too.
	ranges []byteRange
	// live is len(ranges) > 0, for ordinary writes, which then look no further.
	live atomic.Bool
	// torn is a range that has old and new bytes, because neither could be written; nil without one.
	torn atomic.Pointer[tornRange]
}

type byteRange struct{ off, end int64 }

func (r byteRange) overlaps(off, end int64) bool { return r.off < end && off < r.end }

type tornRange struct {
	byteRange
	cause error
}

// atomicWrite is a write on its way. apply puts it to its place, all or nothing.
type atomicWrite struct {
	byteRange
	p     []byte
	apply func() error
	done  chan struct{}
	err   error
}

func newJournal(dir disk.Dir, id san.VolumeID, size int64, stabilise func() error) *journal {
	return &journal{dir: dir, id: id, size: size, stabilise: stabilise, lead: make(chan struct{}, 1), next: 1}
}

func journalName(id san.VolumeID) string { return string(id) + journalSuffix }

func journalTag(id san.VolumeID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}

// maxBytes is the longest atomic write that fits.
func (j *journal) maxBytes() int64 {
	return min(maxAtomicBytes, (j.size-disk.CellHeaderBytes-writeHeaderBytes)/cellAlignBytes*cellAlignBytes)
}

// write carries out w, whose range nobody else touches meanwhile.
func (j *journal) write(w *atomicWrite) error {
	w.done = make(chan struct{})
	j.mu.Lock()
	j.waiting = append(j.waiting, w)
	j.mu.Unlock()
	select {
	case <-w.done: // in a cell that somebody else wrote
		return w.err
	case j.lead <- struct{}{}:
	}
	defer func() { <-j.lead }()
	for {
		select {
		case <-w.done:
			return w.err
		default:
			j.writeCell()
		}
	}
}

// writeCell carries out as many of the waiting writes as one cell holds.
func (j *journal) writeCell() {
	batch := j.takeBatch()
	err := j.append(batch)
	failed := false
	for _, w := range batch {
		if w.err = err; err == nil {
			w.err = w.apply()
			failed = failed || w.err != nil
		}
	}
	if failed && j.torn.Load() == nil {
		// A write that failed was taken back; a restart must not try it again. If this fails too it
		// will, which is no worse than the write's having been cut by a crash.
		_ = j.empty()
	}
	for _, w := range batch {
		close(w.done)
	}
}

func (j *journal) takeBatch() []*atomicWrite {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, total := 0, int64(0)
	for _, w := range j.waiting {
		if total += writeHeaderBytes + int64(len(w.p)); n > 0 && total > j.maxBytes() {
			break
		}
		n++
	}
	batch := append([]*atomicWrite(nil), j.waiting[:n]...)
	j.waiting = append(j.waiting[:0:0], j.waiting[n:]...)
	return batch
}

// append makes a cell of the writes and makes it stable. After an error the writes have no effect.
func (j *journal) append(batch []*atomicWrite) error {
	if err := j.usable(); err != nil {
		return err
	}
	var payload []byte
	var ranges []byteRange
	for _, w := range batch {
		payload = binary.LittleEndian.AppendUint64(payload, uint64(w.off))
		payload = binary.LittleEndian.AppendUint64(payload, uint64(len(w.p)))
		payload = append(payload, w.p...)
		ranges = append(ranges, w.byteRange)
	}
	cell := disk.AppendCell(make([]byte, 0, disk.CellHeaderBytes+len(payload)), journalMagic, journalTag(j.id), j.next, payload)
	if j.at+int64(len(cell)) > j.size {
		if err := j.empty(); err != nil {
			return err
		}
	}
	// Before it is there for certain, and whether or not it ever is.
	j.setRanges(append(append([]byteRange(nil), j.ranges...), ranges...))
	err := writeFull(j.file, cell, j.at)
	if err == nil {
		err = j.file.Datasync()
	}
	if err != nil {
		return j.fail(err)
	}
	j.at += (int64(len(cell)) + cellAlignBytes - 1) / cellAlignBytes * cellAlignBytes
	j.next++
	return nil
}

// usable opens the journal if it is not open, and says why it can't be written.
func (j *journal) usable() error {
	if j.failed != nil {
		return j.failed
	}
	if t := j.torn.Load(); t != nil {
		return t.cause
	}
	if j.file != nil {
		return nil
	}
	f, err := j.dir.Create(journalName(j.id))
	if err != nil {
		return err
	}
	// Its space is taken now, so that a full file system fails the first write and none later.
	err = f.Truncate(j.size)
	if err == nil {
		err = f.Zero(0, j.size)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = j.dir.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Close(), removeJournal(j.dir, j.id))
	}
	j.file = f
	return nil
}

func (j *journal) fail(err error) error {
	j.failed = san.Errorf(san.KindUnavailable, "the journal of volume %s in %s can't be written, and nobody knows what is in it: %w; repair that file system, then restart the unit", j.id, j.dir.Name(), err)
	return j.failed
}

func (j *journal) setRanges(ranges []byteRange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ranges = ranges
	j.live.Store(len(ranges) > 0)
}

func (j *journal) holds(off, end int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.ranges {
		if r.overlaps(off, end) {
			return true
		}
	}
	return false
}

// settle must come before an ordinary write of [off, end): no restart may put older content there.
func (j *journal) settle(off, end int64) error {
	if !j.live.Load() || !j.holds(off, end) {
		return nil
	}
	j.lead <- struct{}{}
	defer func() { <-j.lead }()
	if !j.holds(off, end) {
		return nil
	}
	if err := j.usable(); err != nil {
		return err
	}
	return j.empty()
}

// empty makes the journal describe nothing. It is blank on the disk before another cell is written:
// half of a log, carried out again, would be worse than all of it or nothing.
func (j *journal) empty() error {
	if err := j.stabilise(); err != nil {
		return err
	}
	err := writeFull(j.file, make([]byte, cellAlignBytes), 0)
	if err == nil {
		err = j.file.Datasync()
	}
	if err != nil {
		return j.fail(err)
	}
	j.at = 0
	j.setRanges(nil)
	return nil
}

// readable refuses a range that is neither old nor new.
func (j *journal) readable(off, end int64) error {
	if t := j.torn.Load(); t != nil && t.overlaps(off, end) {
		return t.cause
	}
	return nil
}

// close ends the use of the journal; what is in it stays for the next start. No call may be in
// progress.
func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// removeJournal makes a volume's journal be gone, stably. One that is not there is no error.
func removeJournal(dir disk.Dir, id san.VolumeID) error {
	err := dir.Remove(journalName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return dir.Sync()
}

func writeFull(f disk.File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		return disk.Error("write", f.Name(), io.ErrShortWrite)
	}
	return err
}

// replayJournal reads a volume's journal and calls do for each write in it, in their order. One
// that is not there is empty.
func replayJournal(dir disk.Dir, id san.VolumeID, do func(p []byte, off int64) error) (n int, err error) {
	f, err := dir.Open(journalName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// A process that was killed may have left a cell in the cache only. Were it lost after half of it
	// has gone to its place, it would be worth nothing.
	if err := f.Datasync(); err != nil {
		return 0, err
	}
	log := make([]byte, min(f.SizeBytes(), maxJournalBytes))
	if got, err := f.ReadAt(log, 0); err != nil && got < len(log) {
		return 0, disk.Error("read", f.Name(), fmt.Errorf("%w: it ended at byte %d: %w", disk.ErrIO, got, err))
	}
	for at, number := 0, uint64(0); at < len(log); {
		seq, payload, err := disk.ParseCell(log[at:], journalMagic, journalTag(id))
		if err != nil || number != 0 && seq != number {
			break // its end: an unused place, a torn cell, or one from before it was emptied
		}
		if err := eachWrite(payload, do); err != nil {
			return n, err
		}
		n++
		number = seq + 1
		at += (disk.CellHeaderBytes + len(payload) + cellAlignBytes - 1) / cellAlignBytes * cellAlignBytes
	}
	return n, nil
}

// eachWrite takes a cell apart.
func eachWrite(payload []byte, do func(p []byte, off int64) error) error {
	for len(payload) > 0 {
		if len(payload) < writeHeaderBytes {
			return san.Errorf(san.KindInternal, "a cell of the journal ends in the middle: %w", disk.ErrDamaged)
		}
		off, length := binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:])
		payload = payload[writeHeaderBytes:]
		if length > uint64(len(payload)) || off > san.MaxVolumeSizeBytes {
			return san.Errorf(san.KindInternal, "a cell of the journal has a write of %d bytes at %d: %w", length, off, disk.ErrDamaged)
		}
		if err := do(payload[:length], int64(off)); err != nil {
			return err
		}
		payload = payload[length:]
	}
	return nil
}
