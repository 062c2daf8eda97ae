package extent

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// ErrFailed is a medium whose fdatasync failed once: what it acknowledged may be lost,
// and nothing may be taken for stable on it until it has been opened anew.
var ErrFailed = errors.New("the medium failed to make data stable")

// Expect says whose medium is expected; a zero field is not checked.
type Expect struct {
	Cluster san.ClusterID
	Unit    san.UnitID
	Medium  san.MediumID
}

// Medium is an open, formatted medium. It is safe for concurrent use.
type Medium struct {
	f      disk.File
	cached disk.Cacher // f, nil if it can't tell
	name   string
	sb     Superblock // as Open found it
	syncer syncer
	notes  []string

	// commitMu is held while pages are written and made stable; taken before mu.
	commitMu sync.Mutex

	super superCopies // under commitMu

	mu          sync.Mutex
	incarnation san.Incarnation
	table       *table
	volumes     map[uuid.UUID][]Extent // what is stable
	busy        map[uuid.UUID]bool     // volumes whose extents are being changed
	reserved    map[uint32]bool        // promised to a new owner, or being taken from one
	used        uint32                 // owned and promised extents
}

// Open reads a medium's metadata, repairs a damaged copy from the other one, and finds
// whose each extent is. The medium has f from then on, and Close closes it; after an
// error f is the caller's still.
func Open(f disk.File, want Expect) (*Medium, error) {
	if _, err := Inspect(f); err != nil {
		return nil, err // before the sync below, which a blank medium does not need
	}
	// A process that was killed may have left metadata in the cache only. From here on
	// what was read must be stable, because a later write goes to the other copy.
	if err := f.Datasync(); err != nil {
		return nil, err
	}
	m, err := read(f, want)
	if err != nil {
		return nil, err
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

// read reads the superblock of the medium that want says; who owns what is not read yet.
func read(f disk.File, want Expect) (*Medium, error) {
	super, err := readSuper(f)
	if err != nil {
		return nil, err
	}
	if super.slot < 0 {
		return nil, super.problem(f.Name())
	}
	sb := super.sb
	if err := errors.Join(checkOwner(f.Name(), sb, want), sb.fits(f)); err != nil {
		return nil, err
	}
	cached, _ := f.(disk.Cacher)
	m := &Medium{f: f, cached: cached, name: f.Name(), sb: sb, super: super, incarnation: sb.Incarnation, busy: map[uuid.UUID]bool{}, reserved: map[uint32]bool{}}
	m.syncer.do = f.Datasync
	return m, nil
}

// checkOwner refuses another cluster's, unit's or place's medium.
func checkOwner(name string, sb Superblock, want Expect) error {
	const advice = "; nothing on it was changed. Give this unit its own medium, or, to give up what is on this one, format it by force"
	switch {
	case want.Cluster != "" && want.Cluster != sb.Cluster:
		return san.Errorf(san.KindConflict, "medium %s belongs to cluster %s (unit %s), not to this cluster %s%s: %w", name, sb.Cluster, sb.Unit, want.Cluster, advice, ErrForeign)
	case want.Unit != "" && want.Unit != sb.Unit:
		return san.Errorf(san.KindConflict, "medium %s belongs to unit %s, not to this unit %s%s: %w", name, sb.Unit, want.Unit, advice, ErrForeign)
	case want.Medium != "" && want.Medium != sb.Medium:
		return san.Errorf(san.KindConflict, "medium %s is %s, but %s was expected there; the media may have been swapped%s: %w", name, sb.Medium, want.Medium, advice, ErrForeign)
	}
	return nil
}

// load reads the table and repairs copies that are damaged or behind.
func (m *Medium) load() error {
	stale, err := m.readOwners()
	if err != nil {
		return err
	}
	for _, extents := range m.volumes {
		m.used += uint32(len(extents))
	}
	return m.repair(stale)
}

// readOwners reads the table, and returns the numbers of the pages of which a copy is damaged or behind.
func (m *Medium) readOwners() (stale []uint32, err error) {
	if m.table, err = newTable(m.sb); err != nil {
		return nil, err
	}
	if stale, err = m.readTable(); err == nil {
		m.volumes, err = m.table.volumes()
	}
	if errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrBlank) {
		err = san.Errorf(san.KindInternal, "medium %s: %v; take it out of the unit so that its volumes are rebuilt from their other copies, or restore it from a backup: %w", m.name, err, disk.ErrDamaged)
	}
	return stale, err
}

// readTable reads both copies of every page, in batches, and returns the numbers of the
// pages whose other copy is to be written anew.
func (m *Medium) readTable() (stale []uint32, err error) {
	const batch = 256
	t := m.table
	for first := uint32(0); first < m.sb.geometry.pages; first += batch {
		n := min(batch, m.sb.geometry.pages-first)
		var bufs [2][]byte
		for slot := range bufs {
			bufs[slot] = make([]byte, n*pageBytes)
			if err := readFull(m.f, bufs[slot], t.pageAt(slot, first)); err != nil {
				return nil, err
			}
		}
		for i := range n {
			at := i * pageBytes
			behind, err := t.loadPage(first+i, [2][]byte{bufs[0][at : at+pageBytes], bufs[1][at : at+pageBytes]})
			if err != nil {
				return nil, err
			}
			if behind {
				stale = append(stale, first+i)
			}
		}
	}
	return stale, nil
}

func (m *Medium) repair(stale []uint32) error {
	if m.super.stale {
		if err := m.super.errs[1-m.super.slot]; err != nil {
			m.notes = append(m.notes, fmt.Sprintf("superblock copy %d was repaired from the other one: %v", 1-m.super.slot, err))
		}
		if err := writeSuper(m.f, m.sb, m.super.seq, 1-m.super.slot); err != nil {
			return err
		}
	}
	for _, number := range stale {
		p := m.table.pages[number]
		if err := writeFull(m.f, m.table.encodePage(number, p.seq), m.table.pageAt(1-p.slot, number)); err != nil {
			return err
		}
	}
	if len(stale) > 0 {
		m.notes = append(m.notes, fmt.Sprintf("%d pages of the extent table had one copy behind or damaged, as a power cut leaves them, and were repaired from the other", len(stale)))
	}
	if !m.super.stale && len(stale) == 0 {
		return nil
	}
	return m.f.Datasync()
}

// Notes says what Open found and repaired, for the log.
func (m *Medium) Notes() []string { return m.notes }

// Name is the medium's path, for messages.
func (m *Medium) Name() string { return m.name }

// ID is the medium's UUID.
func (m *Medium) ID() san.MediumID { return m.sb.Medium }

// Superblock returns the superblock as it stands.
func (m *Medium) Superblock() Superblock {
	m.mu.Lock()
	defer m.mu.Unlock()
	sb := m.sb
	sb.Incarnation = m.incarnation
	return sb
}

// ExtentSizeBytes is the size of each extent on this medium.
func (m *Medium) ExtentSizeBytes() int64 { return m.sb.ExtentSizeBytes }

// OffsetBytes is where on the medium extent index begins.
func (m *Medium) OffsetBytes(index uint32) int64 { return m.sb.OffsetBytes(index) }

// SetIncarnation stores, stably, that the unit opened the medium in incarnation inc. A
// lower one than is there is refused: this unit's own state is older than its medium.
func (m *Medium) SetIncarnation(inc san.Incarnation) error {
	m.commitMu.Lock()
	defer m.commitMu.Unlock()
	sb := m.Superblock()
	switch {
	case inc < sb.Incarnation:
		return san.Errorf(san.KindConflict, "medium %s was last opened in incarnation %d of unit %s, which now says it is in %d; the unit's data folder was restored from an old backup or belongs to another unit", m.name, sb.Incarnation, sb.Unit, inc)
	case inc == sb.Incarnation:
		return nil
	}
	sb.Incarnation = inc
	m.super.seq++
	slot := 1 - m.super.slot
	if err := writeSuper(m.f, sb, m.super.seq, slot); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		return err
	}
	m.super.slot = slot
	m.mu.Lock()
	m.incarnation = inc
	m.mu.Unlock()
	// Best effort, as with table pages: the other copy is stable.
	_ = writeSuper(m.f, sb, m.super.seq, 1-slot)
	return nil
}

// Volumes returns the volumes that own extents here, each with its extents by logical
// index. Whether they are whole is for the replica's record to say.
func (m *Medium) Volumes() map[san.VolumeID][]Extent {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[san.VolumeID][]Extent, len(m.volumes))
	for v, extents := range m.volumes {
		all[san.VolumeID(v.String())] = append([]Extent(nil), extents...)
	}
	return all
}

// Extents returns the extents of one volume by logical index, nil if it has none here.
func (m *Medium) Extents(v san.VolumeID) []Extent {
	id, err := uuid.Parse(string(v))
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Extent(nil), m.volumes[id]...)
}

// Usage is how full a medium is.
type Usage struct {
	ExtentSizeBytes int64
	Extents         uint32 // in all
	Used            uint32 // owned by volumes, or promised to one being made
}

// CapacityBytes is what the extents hold together.
func (u Usage) CapacityBytes() int64 { return int64(u.Extents) * u.ExtentSizeBytes }

// UsedBytes is what the used extents hold together.
func (u Usage) UsedBytes() int64 { return int64(u.Used) * u.ExtentSizeBytes }

// Usage returns how full the medium is.
func (m *Medium) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Usage{ExtentSizeBytes: m.sb.ExtentSizeBytes, Extents: m.sb.Extents, Used: m.used}
}

// ReadAt fills p from byte off of the medium. The caller keeps to extents that it owns.
func (m *Medium) ReadAt(p []byte, off int64) error { return readFull(m.f, p, off) }

// ReadCached is ReadAt if all of it is in memory; else it reports false, and p holds anything.
func (m *Medium) ReadCached(p []byte, off int64) bool {
	return m.cached != nil && m.cached.ReadCached(p, off)
}

// WriteAt stores p at byte off of the medium. The caller keeps to extents that it owns.
func (m *Medium) WriteAt(p []byte, off int64) error { return writeFull(m.f, p, off) }

// PunchHole makes a range of the medium read as zeros and gives its space back where
// the medium can. The caller keeps to extents that it owns.
func (m *Medium) PunchHole(off, length int64) error { return m.f.PunchHole(off, length) }

// Mapped says whether the medium holds space for the byte at off, and for how many of the length bytes
// from there on that is so. What is not mapped reads as zeros.
func (m *Medium) Mapped(off, length int64) (run int64, mapped bool, err error) {
	return m.f.Mapped(off, length)
}

// Sync makes everything that was written before the call stable. Callers at the same
// time share one fdatasync. Once one has failed all later ones fail (ErrFailed).
func (m *Medium) Sync() error {
	if err := m.syncer.sync(); err != nil {
		return m.failure(err)
	}
	return nil
}

// Failed returns the failure that Sync remembers, nil if there was none.
func (m *Medium) Failed() error {
	if err := m.syncer.err(); err != nil {
		return m.failure(err)
	}
	return nil
}

func (m *Medium) failure(err error) error {
	return san.Errorf(san.KindUnavailable, "medium %s lost writes that it had taken: %w; check or replace it, then restart the unit, which takes only what is on it: %w", m.name, err, ErrFailed)
}

// Syncs returns how many fdatasync calls Sync has made, for measurements.
func (m *Medium) Syncs() uint64 {
	m.syncer.mu.Lock()
	defer m.syncer.mu.Unlock()
	return m.syncer.count
}

// Close closes the medium's file, making nothing stable. No call may be in progress.
func (m *Medium) Close() error { return m.f.Close() }
