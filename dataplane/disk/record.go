package disk

import (
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sandbar-san/sandbar/san"
)

const (
	recordMagic     = 0x43524253 // "SBRC"
	recordSlotBytes = 1 << 20
	recordSuffix    = ".rec"
	recordNewSuffix = ".new"

	// MaxRecordBytes bounds what one record holds.
	MaxRecordBytes = recordSlotBytes - CellHeaderBytes
)

// Record is a small piece of state in a file of its own, kept in two checksummed slots.
// Save is atomic and stable: a crash at any moment leaves the last saved state or the
// one whose Save had not returned. It is safe for concurrent use.
type Record struct {
	dir  Dir
	name string

	mu       sync.Mutex
	payload  []byte // what was saved last; nil when nothing ever was
	sequence uint64 // the highest number used, in vain or not
	slot     int    // the slot that holds payload for certain
}

// OpenRecord opens the record of that name in dir, which may not be there yet. A
// record with one damaged slot is read from the other; with both damaged the error
// matches ErrDamaged.
func OpenRecord(dir Dir, name string) (*Record, error) {
	r := &Record{dir: dir, name: name}
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	f, err := dir.Open(r.file())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	err = r.read(f)
	if err == nil {
		// What was read may be in the page cache only, left by a process that was
		// killed. Save relies on the slot that it does not write being stable.
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return r, nil
}

// ListRecords returns the names of the records in dir, sorted. What a crash left of a
// record that was never saved is none.
func ListRecords(dir Dir) ([]string, error) {
	files, err := dir.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f, recordSuffix); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

func (r *Record) file() string { return r.name + recordSuffix }

// tag binds a slot to its record's name, so that a file copied over another is found out.
func (r *Record) tag() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.name))
	return h.Sum64()
}

// read takes the newer of the file's valid slots.
func (r *Record) read(f File) error {
	var errs [2]error
	for slot := range errs {
		sequence, payload, err := r.readSlot(f, slot)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrBlank) {
			return err
		}
		errs[slot] = err
		if err == nil && (r.payload == nil || sequence > r.sequence) {
			r.payload, r.sequence, r.slot = payload, sequence, slot
		}
	}
	if r.payload == nil {
		return san.Errorf(san.KindInternal, "record %s is damaged in both of its copies (%v; %v); put the file back from a backup, or remove it if what it described can be given up: %w",
			filepath.Join(r.dir.Name(), r.file()), errs[0], errs[1], ErrDamaged)
	}
	return nil
}

// readSlot reads no more than the header promises, and that is bounded by the slot.
func (r *Record) readSlot(f File, slot int) (uint64, []byte, error) {
	off := int64(slot) * recordSlotBytes
	buf := make([]byte, CellHeaderBytes)
	if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err
	}
	length, err := parseCellHeader(buf, recordMagic, r.tag())
	if err != nil {
		return 0, nil, err
	}
	buf = make([]byte, CellHeaderBytes+int64(min(length, MaxRecordBytes)))
	if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err
	}
	sequence, payload, err := ParseCell(buf, recordMagic, r.tag())
	if payload == nil {
		payload = []byte{}
	}
	return sequence, payload, err
}

// Name is the record's name.
func (r *Record) Name() string { return r.name }

// Load returns a copy of what was saved last; ErrNoRecord if nothing was.
func (r *Record) Load() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.payload == nil {
		return nil, san.Errorf(san.KindNotFound, "record %s: %w", filepath.Join(r.dir.Name(), r.file()), ErrNoRecord)
	}
	return append([]byte{}, r.payload...), nil
}

// Save replaces the record's contents; when it returns nil they are stable. After an
// error Load still gives the former contents, but a restart may find either.
func (r *Record) Save(payload []byte) error {
	if len(payload) > MaxRecordBytes {
		return san.Errorf(san.KindInvalid, "record %s would have %d bytes; at most %d fit", r.name, len(payload), MaxRecordBytes)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sequence++
	cell := AppendCell(make([]byte, 0, CellHeaderBytes+len(payload)), recordMagic, r.tag(), r.sequence, payload)
	var err error
	slot := 0
	if r.payload == nil {
		err = r.create(cell)
	} else {
		slot = 1 - r.slot
		err = r.replace(cell, slot)
	}
	if err != nil {
		return san.Wrap("save record", err)
	}
	r.payload, r.slot = append([]byte{}, payload...), slot
	return nil
}

// create makes the file under another name first: a file with the record's own name
// then always holds a state that was whole, and damage can't pass for absence.
func (r *Record) create(cell []byte) error {
	temp := r.name + recordNewSuffix
	f, err := r.dir.Create(temp)
	if err != nil {
		return err
	}
	err = writeFull(f, cell, 0)
	if err == nil {
		err = writeFull(f, cell, recordSlotBytes)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := r.dir.Rename(temp, r.file()); err != nil {
		return err
	}
	return r.dir.Sync()
}

// replace writes the slot that is not the last good one, makes it stable, and then
// brings the other slot up to date too, without waiting: a slot that rots later finds
// its twin. The next replace goes to that twin first, so the stable one is never at risk.
func (r *Record) replace(cell []byte, slot int) error {
	f, err := r.dir.Open(r.file())
	if err != nil {
		return err
	}
	err = writeFull(f, cell, int64(slot)*recordSlotBytes)
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		// Best effort: the state is stable already, and a failure here only leaves the
		// older copy as it is or torn.
		_ = writeFull(f, cell, int64(1-slot)*recordSlotBytes)
	}
	return errors.Join(err, f.Close())
}

// Remove makes the record be gone, stably. A record that is not there is no error.
func (r *Record) Remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Whatever comes of it: a later Save makes the file anew, which is right whether or
	// not it is still there.
	r.payload = nil
	return RemoveRecord(r.dir, r.name)
}

// RemoveRecord is Remove for a record that can't be opened because it is damaged.
func RemoveRecord(dir Dir, name string) error {
	for _, file := range []string{name + recordNewSuffix, name + recordSuffix} {
		if err := dir.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return dir.Sync()
}

// writeFull writes all of b; a short count without an error is one.
func writeFull(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = Error("write", f.Name(), io.ErrShortWrite)
	}
	return err
}
