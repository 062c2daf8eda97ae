package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// segmentSize is the length of each of the two files, bytes. An append that is longer makes its file
	// longer.
	segmentSize = 8 << 20
	// moveAtOnce bounds one write to the store, between which appends and the votes that it keeps get their turn.
	moveAtOnce = 256
	// keptBuffer is the largest buffer that is kept from one append to the next.
	keptBuffer = 1 << 20
)

// Log is a raft.LogStore whose newest entries are in the package's files and whose other entries are in the
// store behind it. All methods may be called at once.
type Log struct {
	store  raft.LogStore
	movers sync.WaitGroup

	// Locks are taken in this order.
	moving   sync.Mutex // held by whoever writes to the store
	writing  sync.Mutex // held by whoever writes a frame; guards the fields down to entries
	changed  *sync.Cond // on writing: a frame was written, idle became free, or err was set
	active   *segment
	idle     *segment
	idleFree bool
	wanted   bool // an append waits for idle to be free
	buf      []byte
	err      error // of the first write that failed: from then on nobody knows what is on the disk

	reading sync.RWMutex
	entries map[uint64]held // not in the store yet
}

// segment is one use of a file.
type segment struct {
	file   file
	size   int64
	number uint64
	frames uint32
	end    int64
}

type held struct {
	log     *raft.Log
	segment uint64
}

// Files are the names of the package's files in a folder.
func Files(dir string) [2]string {
	return [2]string{filepath.Join(dir, "tail-0.log"), filepath.Join(dir, "tail-1.log")}
}

// Open opens the two files in dir and brings store up to date. With fresh the store has had no files yet, so
// they are made, and entries in them are an error, since they would be another store's; otherwise absent
// files are an error, since they may have held entries. Unsynced is for tests: nothing survives a crash of
// the machine then. The caller has made sure that nobody else has the folder open.
func Open(dir string, store raft.LogStore, fresh, unsynced bool) (*Log, error) {
	var files [2]file
	var images [2][]byte
	var err error
	for i, path := range Files(dir) {
		if !fresh {
			if _, err = os.Stat(path); err != nil {
				err = fmt.Errorf("a part of the log is gone: %w", err)
				break
			}
		}
		var f *os.File
		if f, images[i], err = openFile(path, segmentSize); err != nil {
			break
		}
		files[i] = osFile{f}
		if unsynced {
			files[i] = unsyncedFile{osFile{f}}
		}
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err == nil && fresh && (holdsFrame(images[0]) || holdsFrame(images[1])) {
		err = fmt.Errorf("the entries in %s do not belong to the log beside them", dir)
	}
	var l *Log
	if err == nil {
		l, err = open(store, files, images, segmentSize)
	}
	if err != nil {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
		return nil, err
	}
	return l, nil
}

func open(store raft.LogStore, files [2]file, images [2][]byte, size int64) (*Log, error) {
	var segments [2]found
	for i, image := range images {
		var err error
		if segments[i], err = scan(image); err != nil {
			return nil, err
		}
	}
	active, lacking, err := judge(images, segments)
	if err != nil {
		return nil, err
	}
	if err := redo(store, lacking); err != nil {
		return nil, err
	}
	last := segments[active]
	l := &Log{
		store: store, entries: make(map[uint64]held), idleFree: true,
		active: &segment{file: files[active], size: size, number: max(1, last.number), frames: last.frames, end: last.end},
		idle:   &segment{file: files[1-active], size: size},
	}
	l.changed = sync.NewCond(&l.writing)
	if len(lacking) > 1 {
		err = l.markMoved(lacking[0].number)
	}
	return l, err
}

// Close waits for a write to the store that is under way and closes the files, not the store. What is not in the
// store yet goes there at the next Open.
func (l *Log) Close() error {
	l.writing.Lock()
	if l.err == nil {
		l.err = os.ErrClosed
	}
	l.changed.Broadcast()
	l.writing.Unlock()
	l.movers.Wait()
	l.writing.Lock()
	defer l.writing.Unlock()
	return errors.Join(l.active.file.Close(), l.idle.file.Close())
}

// StoreLog stores one entry.
func (l *Log) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs stores entries, all or none of them, and returns when they are on the disk. It keeps
// the entries for a while: nobody may change them.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.makeRoom(aligned(bodySize(logs))); err != nil {
		return err
	}
	buf := appendEntries(l.buffer(), logs)
	if err := l.write(kindEntries, buf); err != nil {
		return err
	}
	if cap(buf) <= keptBuffer {
		l.buf = buf
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	for _, log := range logs {
		l.entries[log.Index] = held{log: log, segment: l.active.number}
	}
	return nil
}

// DeleteRange removes the entries lo to hi, as far as they exist.
func (l *Log) DeleteRange(lo, hi uint64) error {
	l.moving.Lock()
	defer l.moving.Unlock()
	if err := l.writeRemoval(lo, hi); err != nil {
		return err
	}
	return l.store.DeleteRange(lo, hi)
}

func (l *Log) writeRemoval(lo, hi uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	// A removal never waits for the other file to become free, since whoever frees it may wait for this one:
	// the file grows by it if it must.
	buf := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(l.buffer(), lo), hi)
	if err := l.write(kindRemoval, buf); err != nil {
		return err
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	maps.DeleteFunc(l.entries, func(i uint64, _ held) bool { return lo <= i && i <= hi })
	return nil
}

// GetLog reads the entry at index into log, or returns raft.ErrLogNotFound.
func (l *Log) GetLog(index uint64, log *raft.Log) error {
	l.reading.RLock()
	h, ok := l.entries[index]
	l.reading.RUnlock()
	if !ok {
		return l.store.GetLog(index, log)
	}
	*log = *h.log
	return nil
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (l *Log) FirstIndex() (uint64, error) {
	return l.outermost(l.store.FirstIndex, func(a, b uint64) bool { return a < b })
}

// LastIndex returns the index of the last entry, 0 if there is none.
func (l *Log) LastIndex() (uint64, error) {
	return l.outermost(l.store.LastIndex, func(a, b uint64) bool { return a > b })
}

func (l *Log) outermost(stored func() (uint64, error), further func(a, b uint64) bool) (uint64, error) {
	l.reading.RLock()
	defer l.reading.RUnlock()
	index, err := stored()
	for i := range l.entries {
		if index == 0 || further(i, index) {
			index = i
		}
	}
	return index, err
}

// buffer returns an empty body after room for its header.
func (l *Log) buffer() []byte {
	if l.buf == nil {
		l.buf = make([]byte, headerSize, 64<<10)
	}
	return l.buf[:headerSize]
}

// makeRoom makes the other file the active one if the active one has no room for n bytes.
func (l *Log) makeRoom(n int64) error {
	for l.err == nil && l.active.end > 0 && l.active.end+n+movedSize > l.active.size {
		if !l.idleFree {
			l.wanted = true
			l.changed.Broadcast()
			l.changed.Wait()
			continue
		}
		full := l.active
		l.active, l.idle = l.idle, full
		l.active.number, l.active.frames, l.active.end = full.number+1, 0, 0
		l.idleFree, l.wanted = false, false
		l.movers.Go(func() { l.move(full.number) })
	}
	return l.err
}

// write appends buf as a frame and syncs it.
func (l *Log) write(kind byte, buf []byte) error {
	if l.err != nil {
		return l.err
	}
	s := l.active
	h := header{segment: s.number, frame: s.frames, kind: kind, at: s.end}
	if s.frames == 0 && s.number > 1 {
		h.previous = l.idle.frames
	}
	body := len(buf) - headerSize
	_, err := s.file.WriteAt(seal(buf, h), s.end)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		l.err = fmt.Errorf("append to the log's tail: %w", err)
		l.changed.Broadcast()
		return l.err
	}
	s.frames++
	s.end += aligned(body)
	l.changed.Broadcast()
	return nil
}

// move brings the entries of a full segment to the store, and then gives its file free. It goes as the active
// segment fills, and is done before that is full: all at once it would hold up the appends that go on meanwhile.
func (l *Log) move(number uint64) {
	l.reading.RLock()
	var indexes []uint64
	for i, h := range l.entries {
		if h.segment == number {
			indexes = append(indexes, i)
		}
	}
	l.reading.RUnlock()
	slices.Sort(indexes)
	var err error
	for done := 0; done < len(indexes) && err == nil; done += moveAtOnce {
		if err = l.awaitFill(float64(done) / float64(len(indexes))); err == nil {
			err = l.movePart(number, indexes[done:min(done+moveAtOnce, len(indexes))])
		}
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err == nil && l.err == nil {
		err = l.markMoved(number)
	}
	if err != nil && l.err == nil {
		l.err = err
	}
	l.idleFree = true
	l.changed.Broadcast()
}

// awaitFill waits until the active segment is three quarters as full as part says or an append needs the other
// file, and fails when the log failed or closed.
func (l *Log) awaitFill(part float64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	for l.err == nil && !l.wanted && float64(l.active.end) < part*0.75*float64(l.active.size) {
		l.changed.Wait()
	}
	return l.err
}

// movePart moves those of the entries that still are what they were.
func (l *Log) movePart(number uint64, indexes []uint64) error {
	l.moving.Lock()
	defer l.moving.Unlock()
	logs := make([]*raft.Log, 0, len(indexes))
	l.reading.RLock()
	for _, i := range indexes {
		if h, ok := l.entries[i]; ok && h.segment == number {
			logs = append(logs, h.log)
		}
	}
	l.reading.RUnlock()
	if len(logs) == 0 {
		return nil
	}
	if err := l.store.StoreLogs(logs); err != nil {
		return fmt.Errorf("move entries to the store: %w", err)
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	for _, log := range logs {
		if l.entries[log.Index].segment == number {
			delete(l.entries, log.Index)
		}
	}
	return nil
}

// markMoved says in the active segment that the store has all of segment number.
func (l *Log) markMoved(number uint64) error {
	return l.write(kindMoved, binary.LittleEndian.AppendUint64(l.buffer(), number))
}
