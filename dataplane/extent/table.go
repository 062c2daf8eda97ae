package extent

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

const (
	tableMagic = 0x54584253 // "SBXT"
	pageBytes  = 4096
	entryBytes = 24
	// entriesPerPage is how many extents one page of the table describes.
	entriesPerPage = (pageBytes - disk.CellHeaderBytes) / entryBytes

	// maxLogical bounds a logical index: the largest volume in the smallest extents.
	maxLogical = san.MaxVolumeSizeBytes/san.ExtentSizeBytes - 1
)

// Extent is one extent of a volume.
type Extent struct {
	Logical uint32 // its place in the volume, in extents
	Index   uint32 // its place on the medium, in extents
}

// entry says whose an extent is; the zero entry is a free one.
type entry struct {
	volume  uuid.UUID
	logical uint32
}

func (e entry) free() bool { return e.volume == uuid.Nil }

// page is what is known of one page's two slots.
type page struct {
	seq   uint64 // the highest number written, in vain or not
	slot  int    // the slot that is stable
	dirty bool   // a write that failed may have left something newer in the other slot
}

// table is the extent table in memory. It does no I/O and has no lock.
type table struct {
	sb      Superblock
	medium  uint32 // part of each page's tag, so that a former format's page is none
	entries []entry
	pages   []page
}

func newTable(sb Superblock) (*table, error) {
	id, err := parseUUID("medium", string(sb.Medium))
	if err != nil {
		return nil, err
	}
	t := &table{sb: sb, medium: disk.Checksum(id[:]), entries: make([]entry, sb.Extents), pages: make([]page, sb.geometry.pages)}
	return t, nil
}

func (t *table) tag(number uint32) uint64 { return uint64(t.medium)<<32 | uint64(number) }

func (t *table) pageAt(slot int, number uint32) int64 {
	return t.sb.geometry.tableAt[slot] + int64(number)*pageBytes
}

// entriesOf returns the part of the table that a page describes.
func (t *table) entriesOf(number uint32) []entry {
	first := int(number) * entriesPerPage
	return t.entries[first:min(first+entriesPerPage, len(t.entries))]
}

// encodePage renders a page as it is in memory.
func (t *table) encodePage(number uint32, seq uint64) []byte {
	payload := make([]byte, 0, pageBytes)
	for _, e := range t.entriesOf(number) {
		payload = append(payload, e.volume[:]...)
		payload = binary.LittleEndian.AppendUint32(payload, e.logical)
		payload = binary.LittleEndian.AppendUint32(payload, 0)
	}
	cell := disk.AppendCell(make([]byte, 0, pageBytes), tableMagic, t.tag(number), seq, payload)
	return append(cell, make([]byte, pageBytes-len(cell))...)
}

// parsePage checks one slot's bytes and returns the entries in them.
func (t *table) parsePage(b []byte, number uint32) (seq uint64, entries []entry, err error) {
	seq, payload, err := disk.ParseCell(b, tableMagic, t.tag(number))
	if err != nil {
		return 0, nil, err
	}
	want := len(t.entriesOf(number))
	if len(payload) != want*entryBytes {
		return 0, nil, fmt.Errorf("%w: %d bytes of entries, expected %d", disk.ErrDamaged, len(payload), want*entryBytes)
	}
	entries = make([]entry, want)
	for i := range entries {
		b := payload[i*entryBytes:]
		e := entry{volume: uuid.UUID(b[:16]), logical: binary.LittleEndian.Uint32(b[16:])}
		if flags := binary.LittleEndian.Uint32(b[20:]); flags != 0 || e.logical > maxLogical || e.free() && e.logical != 0 {
			return 0, nil, fmt.Errorf("%w: entry %d makes no sense", disk.ErrDamaged, i)
		}
		entries[i] = e
	}
	return seq, entries, nil
}

// loadPage takes the newer good slot of a page and reports whether the other one needs
// to be written anew.
func (t *table) loadPage(number uint32, slots [2][]byte) (stale bool, err error) {
	var errs [2]error
	var seqs [2]uint64
	chosen := -1
	for slot, b := range slots {
		seq, entries, err := t.parsePage(b, number)
		if errs[slot] = err; err != nil {
			continue
		}
		if seqs[slot] = seq; chosen < 0 || seq > seqs[chosen] {
			chosen = slot
			copy(t.entriesOf(number), entries)
		}
	}
	if chosen < 0 {
		first := number * entriesPerPage
		return false, fmt.Errorf("page %d of the extent table (extents %d to %d) can't be used in either copy (first: %w; second: %w)",
			number, first, int(first)+len(t.entriesOf(number))-1, errs[0], errs[1])
	}
	t.pages[number] = page{seq: seqs[chosen], slot: chosen}
	return errs[1-chosen] != nil || seqs[0] != seqs[1], nil
}

// volumes gathers who owns what, each volume's extents by logical index.
func (t *table) volumes() (map[uuid.UUID][]Extent, error) {
	all := map[uuid.UUID][]Extent{}
	for i, e := range t.entries {
		if !e.free() {
			all[e.volume] = append(all[e.volume], Extent{Logical: e.logical, Index: uint32(i)})
		}
	}
	for v, extents := range all {
		sortExtents(extents)
		for i := 1; i < len(extents); i++ {
			if a, b := extents[i-1], extents[i]; a.Logical == b.Logical {
				return nil, fmt.Errorf("%w: extents %d and %d both say that they are extent %d of volume %s", disk.ErrDamaged, a.Index, b.Index, a.Logical, v)
			}
		}
	}
	return all, nil
}

func sortExtents(e []Extent) {
	sort.Slice(e, func(i, j int) bool { return e[i].Logical < e[j].Logical })
}

// pick chooses count free extents, as few and as long runs as it can find in one pass:
// the first run that holds all, else the longest ones. taken marks those promised to
// somebody else. It returns nil when there are not enough.
func (t *table) pick(count int, taken map[uint32]bool) []uint32 {
	type run struct{ first, length int }
	var runs []run
	start := -1
	for i := 0; i <= len(t.entries); i++ {
		free := i < len(t.entries) && t.entries[i].free() && !taken[uint32(i)]
		switch {
		case free && start < 0:
			start = i
		case !free && start >= 0:
			runs = append(runs, run{start, i - start})
			start = -1
		}
		if start >= 0 && i-start+1 == count {
			runs = []run{{start, count}}
			break
		}
	}
	sort.SliceStable(runs, func(i, j int) bool { return runs[i].length > runs[j].length })
	var picked []uint32
	for _, r := range runs {
		for i := 0; i < r.length && len(picked) < count; i++ {
			picked = append(picked, uint32(r.first+i))
		}
	}
	if len(picked) < count {
		return nil
	}
	return picked
}
