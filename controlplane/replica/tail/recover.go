package tail

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/raft"
)

// found is the segment that a file holds. Its number is 0 when the file holds none.
type found struct {
	number   uint64
	previous uint32
	frames   uint32
	end      int64
	moved    []uint64
	changes  []change
}

// change is what one frame did: it stored entries or removed the range lo to hi.
type change struct {
	stored []*raft.Log
	lo, hi uint64
}

// scan reads the segment that image, the content of a file, begins with.
func scan(image []byte) (found, error) {
	var s found
	for {
		h, body, ok := unseal(image, s.end)
		if !ok || s.number != 0 && (h.segment != s.number || h.frame != s.frames) || s.number == 0 && h.frame != 0 {
			return s, nil
		}
		if s.number == 0 {
			s.number, s.previous = h.segment, h.previous
		}
		if err := s.take(h.kind, body); err != nil {
			return s, fmt.Errorf("frame %d of segment %d: %w", h.frame, h.segment, err)
		}
		s.frames++
		s.end += aligned(len(body))
	}
}

func (s *found) take(kind byte, body []byte) error {
	switch kind {
	case kindEntries:
		logs, err := readEntries(body)
		s.changes = append(s.changes, change{stored: logs})
		return err
	case kindRemoval:
		v, err := numbers(body, 2)
		if err == nil {
			s.changes = append(s.changes, change{lo: v[0], hi: v[1]})
		}
		return err
	case kindMoved:
		v, err := numbers(body, 1)
		s.moved = append(s.moved, v...)
		return err
	}
	return fmt.Errorf("kind %d is unknown: a newer program wrote it", kind)
}

func holdsFrame(image []byte) bool {
	_, _, ok := unseal(image, 0)
	return ok
}

// later reports whether image has a frame of that segment, or of any if it is 0, with at least that number:
// then what is missing before it had been on the disk.
func later(image []byte, segment uint64, frame uint32) bool {
	for at := int64(0); at+headerSize <= int64(len(image)); at += alignment {
		if h, _, ok := unseal(image, at); ok && (segment == 0 || h.segment == segment) && h.frame >= frame {
			return true
		}
	}
	return false
}

// judge finds out which of two scanned files is the active one, which segments the store may lack, oldest
// first, and refuses files that lack something that was answered. The active one of empty files is the first.
func judge(images [2][]byte, files [2]found) (active int, lacking []found, err error) {
	if files[1].number > files[0].number {
		active = 1
	}
	last, other := files[active], files[1-active]
	if last.number == 0 {
		if later(images[0], 0, 1) || later(images[1], 0, 1) {
			err = errors.New("the beginning of both files is damaged")
		}
		return active, nil, err
	}
	if later(images[active], last.number, last.frames+1) {
		return active, nil, fmt.Errorf("frame %d of segment %d is damaged", last.frames, last.number)
	}
	// A use of the other file that has just begun may have overwritten any part of what it held before.
	if later(images[1-active], last.number+1, 1) {
		return active, nil, fmt.Errorf("frame 0 of segment %d is damaged", last.number+1)
	}
	if last.previous == 0 || slices.Contains(last.moved, last.number-1) {
		return active, []found{last}, nil
	}
	if other.number != last.number-1 || other.frames != last.previous {
		return active, nil, fmt.Errorf("of the %d frames of segment %d some are missing or damaged", last.previous, last.number-1)
	}
	return active, []found{other, last}, nil
}

// redo brings the store to where the segments, oldest first, left the log.
func redo(store raft.LogStore, segments []found) error {
	entries := make(map[uint64]*raft.Log)
	for _, s := range segments {
		for _, c := range s.changes {
			for _, l := range c.stored {
				entries[l.Index] = l
			}
			if c.stored != nil {
				continue
			}
			if err := store.DeleteRange(c.lo, c.hi); err != nil {
				return fmt.Errorf("remove %d to %d from the store: %w", c.lo, c.hi, err)
			}
			maps.DeleteFunc(entries, func(i uint64, _ *raft.Log) bool { return c.lo <= i && i <= c.hi })
		}
	}
	for indexes := range slices.Chunk(slices.Sorted(maps.Keys(entries)), moveAtOnce) {
		if err := store.StoreLogs(pick(entries, indexes)); err != nil {
			return fmt.Errorf("move entries to the store: %w", err)
		}
	}
	return nil
}

func pick(entries map[uint64]*raft.Log, indexes []uint64) []*raft.Log {
	logs := make([]*raft.Log, len(indexes))
	for i, index := range indexes {
		logs[i] = entries[index]
	}
	return logs
}
