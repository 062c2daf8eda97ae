package extent

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// zeroStepBytes is how much is zeroed between two looks at the context.
const zeroStepBytes = 64 << 20

// ErrBusy is a volume whose extents another call is changing.
var ErrBusy = errors.New("its extents are being changed by another call")

// Allocate gives volume v extents for its logical indexes first to first+count-1 and
// returns all of those. Indexes that have one keep it, so that a call that was cut short
// can be made again. New extents read as zeros. They were zeroed and made stable before
// the table named an owner, and the table is stable when Allocate returns. After an
// error (disk.ErrNoSpace, a medium that failed, a context that ended) v has what it had
// before, except that a restart may find extents of an unfinished call.
func (m *Medium) Allocate(ctx context.Context, v san.VolumeID, first, count uint32) ([]Extent, error) {
	id, err := parseUUID("volume", string(v))
	if err != nil {
		return nil, err
	}
	if count == 0 || uint64(first)+uint64(count)-1 > maxLogical {
		return nil, san.Errorf(san.KindInvalid, "volume %s: extents %d to %d are out of range", v, first, uint64(first)+uint64(count)-1)
	}
	if err := m.Failed(); err != nil {
		return nil, err
	}
	changes, err := m.reserve(id, first, count)
	if err != nil {
		return nil, err
	}
	defer m.release(id, changes)
	if len(changes) > 0 {
		if err := m.prepare(ctx, changes); err != nil {
			return nil, err
		}
		if err := m.commit(changes); err != nil {
			return nil, err
		}
	}
	all := m.Extents(v)
	return slices.DeleteFunc(all, func(e Extent) bool { return e.Logical < first || e.Logical >= first+count }), nil
}

// change is what becomes of one extent.
type change struct {
	index uint32
	to    entry
}

// reserve promises v an extent for each index that has none and makes v busy.
func (m *Medium) reserve(id uuid.UUID, first, count uint32) ([]change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[id] {
		return nil, san.Errorf(san.KindConflict, "volume %s on medium %s: %w; try again", id, m.name, ErrBusy)
	}
	missing, err := m.missing(id, first, count)
	if err != nil {
		return nil, err
	}
	var picked []uint32
	if len(missing) > 0 {
		picked = m.table.pick(len(missing), m.reserved)
	}
	if len(picked) < len(missing) {
		return nil, m.full(id, len(missing)) // used counts more than the table has
	}
	changes := make([]change, len(missing))
	for i, l := range missing {
		changes[i] = change{index: picked[i], to: entry{volume: id, logical: l}}
		m.reserved[picked[i]] = true
	}
	m.used += uint32(len(changes))
	m.busy[id] = true
	return changes, nil
}

// missing lists the logical indexes that have no extent. It counts them before it lists them: more
// than there is room for must cost nothing, since all who look up an extent wait for m.mu.
func (m *Medium) missing(id uuid.UUID, first, count uint32) ([]uint32, error) {
	have := make(map[uint32]bool)
	for _, e := range m.volumes[id] {
		if e.Logical >= first && e.Logical < first+count {
			have[e.Logical] = true
		}
	}
	n := int(count) - len(have)
	if n > int(m.sb.Extents-m.used) {
		return nil, m.full(id, n)
	}
	missing := make([]uint32, 0, n)
	for l := first; l < first+count; l++ {
		if !have[l] {
			missing = append(missing, l)
		}
	}
	return missing, nil
}

func (m *Medium) full(id uuid.UUID, need int) error {
	return san.Errorf(san.KindNoSpace, "medium %s has %d of %d extents free, %d are needed for volume %s; add a medium or delete a volume: %w",
		m.name, m.sb.Extents-m.used, m.sb.Extents, need, id, disk.ErrNoSpace)
}

// release ends a reservation, whatever came of it: extents that are free now are not
// used any more.
func (m *Medium) release(id uuid.UUID, changes []change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, id)
	for _, c := range changes {
		delete(m.reserved, c.index)
		if m.table.entries[c.index].free() {
			m.used--
		}
	}
}

// prepare zeroes the extents and makes that stable; on failure it gives the space back.
func (m *Medium) prepare(ctx context.Context, changes []change) error {
	var done []change
	err := m.eachRun(changes, func(off, length int64, part []change) error {
		done = append(done, part...)
		for length > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(length, zeroStepBytes)
			if err := m.f.Zero(off, n); err != nil {
				return err
			}
			off, length = off+n, length-n
		}
		return nil
	})
	if err == nil {
		return m.Sync()
	}
	m.punch(done)
	return err
}

// punch gives the space of extents that nobody uses back, where it can. A failure is
// left alone: the space is only not given back, and whoever gets the extents next has
// them zeroed before.
func (m *Medium) punch(changes []change) {
	_ = m.eachRun(changes, func(off, length int64, _ []change) error {
		_ = m.f.PunchHole(off, length)
		return nil
	})
}

// eachRun calls do for every run of neighbouring extents among the changes.
func (m *Medium) eachRun(changes []change, do func(off, length int64, part []change) error) error {
	sorted := slices.Clone(changes)
	slices.SortFunc(sorted, func(a, b change) int { return int(a.index) - int(b.index) })
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n].index == sorted[0].index+uint32(n) {
			n++
		}
		if err := do(m.sb.OffsetBytes(sorted[0].index), int64(n)*m.sb.ExtentSizeBytes, sorted[:n]); err != nil {
			return err
		}
		sorted = sorted[n:]
	}
	return nil
}

// Free takes all extents from volume v, stably, and gives their space back where the
// medium can. A volume that has none is no error. No I/O to v may be in progress.
func (m *Medium) Free(v san.VolumeID) error { return m.FreeFrom(v, 0) }

// FreeFrom is Free for the extents with logical index first and above.
func (m *Medium) FreeFrom(v san.VolumeID, first uint32) error {
	id, err := parseUUID("volume", string(v))
	if err != nil {
		return err
	}
	if err := m.Failed(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.busy[id] {
		m.mu.Unlock()
		return san.Errorf(san.KindConflict, "volume %s on medium %s: %w; try again", v, m.name, ErrBusy)
	}
	var changes []change
	for _, e := range m.volumes[id] {
		if e.Logical >= first {
			changes = append(changes, change{index: e.Index})
			m.reserved[e.Index] = true // nobody gets it before the table says so, stably
		}
	}
	// A page that a failed call may have left half written is put right even if there is
	// nothing to free: it may name v as an owner after a restart.
	nothing := len(changes) == 0 && !slices.ContainsFunc(m.table.pages, func(p page) bool { return p.dirty })
	m.busy[id] = true
	m.mu.Unlock()
	defer m.release(id, changes)
	if nothing {
		return nil
	}
	// While they are still owned: once they are free, the hole could hit a new owner's data.
	m.punch(changes)
	return m.commit(changes)
}

// commit puts the changes into the table, stably. Each page that they touch goes to its
// slot that is not the stable one; after the sync the other slot is brought up to date
// without waiting, and the next commit of that page goes there first. On failure the
// table in memory is as it was, and its pages are written again with the next commit,
// because the medium may hold some of what failed.
func (m *Medium) commit(changes []change) error {
	m.commitMu.Lock()
	defer m.commitMu.Unlock()
	undo, numbers, cells := m.stage(changes)
	for i, number := range numbers {
		p := m.table.pages[number] // changed under commitMu only
		if err := writeFull(m.f, cells[i], m.table.pageAt(1-p.slot, number)); err != nil {
			m.unstage(undo)
			return err
		}
	}
	if err := m.Sync(); err != nil {
		m.unstage(undo)
		return err
	}
	m.adopt(changes, undo, numbers)
	for i, number := range numbers {
		// Best effort: a failure leaves this copy older or torn, which the other makes good.
		_ = writeFull(m.f, cells[i], m.table.pageAt(1-m.table.pages[number].slot, number))
	}
	return nil
}

// stage applies the changes in memory and renders the pages to be written.
func (m *Medium) stage(changes []change) (undo []change, numbers []uint32, cells [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table
	for _, c := range changes {
		undo = append(undo, change{index: c.index, to: t.entries[c.index]})
		t.entries[c.index] = c.to
		t.pages[c.index/entriesPerPage].dirty = true
	}
	for number := range t.pages {
		if p := &t.pages[number]; p.dirty {
			p.seq++
			numbers = append(numbers, uint32(number))
			cells = append(cells, t.encodePage(uint32(number), p.seq))
		}
	}
	return undo, numbers, cells
}

// unstage takes the changes back; their pages stay dirty.
func (m *Medium) unstage(undo []change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range undo {
		m.table.entries[c.index] = c.to
	}
}

// adopt makes stable what the medium has stable, and who owns what visible.
func (m *Medium) adopt(changes, undo []change, numbers []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, number := range numbers {
		p := &m.table.pages[number]
		p.slot, p.dirty = 1-p.slot, false
	}
	touched := map[uuid.UUID][]Extent{}
	lost := map[uint32]bool{}
	for i, c := range changes {
		if old := undo[i].to; !old.free() {
			lost[c.index] = true
			touched[old.volume] = append(touched[old.volume], []Extent{}...)
		}
		if !c.to.free() {
			touched[c.to.volume] = append(touched[c.to.volume], Extent{Logical: c.to.logical, Index: c.index})
		}
	}
	for v, gained := range touched {
		all := slices.DeleteFunc(slices.Clone(m.volumes[v]), func(e Extent) bool { return lost[e.Index] })
		all = append(all, gained...)
		sortExtents(all)
		if len(all) == 0 {
			delete(m.volumes, v)
			continue
		}
		m.volumes[v] = all
	}
}
