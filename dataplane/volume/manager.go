package volume

import (
	"context"
	"errors"
	"log/slog"
	"sort"
	"sync"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

// Config is what a Manager works on. It owns none of it: whoever opened a medium or the
// directory closes it, after the Manager.
type Config struct {
	Media   []*extent.Medium // all with the same extent size
	Records disk.Dir         // for the replicas' records and journals alone
	// JournalBytes is the size of a replica's journal, which it gets with its first atomic write; 4
	// MiB if zero.
	JournalBytes int64
	Log          *slog.Logger
}

// Manager keeps the replicas of one unit. It is safe for concurrent use; calls for
// different volumes run in parallel.
type Manager struct {
	media      map[san.MediumID]*extent.Medium
	order      []*extent.Medium
	extentSize int64
	records    disk.Dir
	// journalBytes is Config.JournalBytes.
	journalBytes int64
	log          *slog.Logger

	mu      sync.Mutex
	closed  bool
	entries map[san.VolumeID]*entry
}

// entry is what the manager knows of one volume. Its fields are changed by who holds
// both turn and the manager's mu, and read by who holds either.
type entry struct {
	turn    chan struct{} // holds a value while somebody changes the replica
	gone    bool          // no longer in the manager's map
	spec    Spec
	state   State // empty: there is no record
	problem error // why it is offline or damaged
	record  *disk.Record
	replica *Replica // when ready
	unsure  bool     // the record on disk may be of a growth that failed
}

// Open finds the replicas whose records are there, opens those that are ready, and
// finishes deletions that were cut short. A replica that is damaged or whose medium is
// absent does not keep the others from opening: List tells of it.
func Open(cfg Config) (*Manager, error) {
	m := &Manager{media: map[san.MediumID]*extent.Medium{}, order: cfg.Media, records: cfg.Records, log: cfg.Log,
		entries: map[san.VolumeID]*entry{}, extentSize: san.ExtentSizeBytes, journalBytes: cfg.JournalBytes}
	if m.journalBytes == 0 {
		m.journalBytes = journalBytes
	}
	if m.journalBytes < minJournalBytes || m.journalBytes > maxJournalBytes {
		return nil, san.Errorf(san.KindInvalid, "journals of %d bytes are not supported; use %d to %d", m.journalBytes, minJournalBytes, maxJournalBytes)
	}
	for i, md := range cfg.Media {
		if i == 0 {
			m.extentSize = md.ExtentSizeBytes()
		}
		if md.ExtentSizeBytes() != m.extentSize {
			return nil, san.Errorf(san.KindInvalid, "medium %s has extents of %d bytes, medium %s of %d; one unit's media must agree, so format one of them anew", md.Name(), md.ExtentSizeBytes(), cfg.Media[0].Name(), m.extentSize)
		}
		if other := m.media[md.ID()]; other != nil {
			return nil, san.Errorf(san.KindConflict, "media %s and %s have the same id %s; one is a copy of the other, so take one of them away", other.Name(), md.Name(), md.ID())
		}
		m.media[md.ID()] = md
	}
	names, err := disk.ListRecords(cfg.Records)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := m.load(san.VolumeID(name)); err != nil {
			return nil, err
		}
	}
	for v, where := range m.orphans() {
		m.log.Error("extents belong to a volume that has no record here; they stay in use until the volume is deleted or its record is restored", "volume", v, "medium", where)
	}
	return m, nil
}

func newEntry(spec Spec) *entry { return &entry{turn: make(chan struct{}, 1), spec: spec} }

// load takes up one record. Only a failure to read the directory is an error.
func (m *Manager) load(id san.VolumeID) error {
	e := newEntry(Spec{ID: id})
	m.entries[id] = e
	rec, err := disk.OpenRecord(m.records, string(id))
	var payload []byte
	if err == nil {
		e.record = rec
		payload, err = rec.Load()
	}
	if err != nil && !errors.Is(err, disk.ErrDamaged) {
		return err
	}
	var spec Spec
	var state State
	if err == nil {
		spec, state, err = parseRecord(payload, m.extentSize)
	}
	if err == nil && spec.ID != id {
		err = san.Errorf(san.KindInternal, "the record of volume %s says that it is volume %s: %w", id, spec.ID, disk.ErrDamaged)
	}
	if err != nil {
		e.state, e.problem = StateDamaged, err
		m.log.Error("a volume's record can't be used; the volume stays closed", "volume", id, "error", err)
		return nil
	}
	e.spec, e.state = spec, state
	switch state {
	case StateReady:
		m.openReplica(e)
	case StateDeleting:
		if err := m.finishDelete(e); err != nil {
			m.log.Error("a deletion that was cut short can't be finished yet", "volume", id, "error", err)
			return nil
		}
		delete(m.entries, id)
	}
	return nil
}

// openReplica opens what the record calls ready, or says why it can't be.
func (m *Manager) openReplica(e *entry) {
	r, err := m.newReplica(e.spec)
	if err == nil {
		err = r.recover()
	}
	switch {
	case err == nil:
		e.state, e.replica, e.problem = StateReady, r, nil
		return
	case errors.Is(err, ErrNoMedium):
		e.state = StateOffline
	default:
		e.state = StateDamaged
	}
	e.problem = err
	m.log.Error("a volume can't be opened", "volume", e.spec.ID, "state", e.state, "error", err)
}

// orphans returns the volumes that own extents but have no record.
func (m *Manager) orphans() map[san.VolumeID]san.MediumID {
	found := map[san.VolumeID]san.MediumID{}
	for _, md := range m.order {
		for v := range md.Volumes() {
			if m.entries[v] == nil {
				found[v] = md.ID()
			}
		}
	}
	return found
}

// acquire waits for the right to change a volume, and makes its entry if there is none.
func (m *Manager) acquire(ctx context.Context, id san.VolumeID) (*entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err // before an entry is made that nobody would forget again
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, san.Errorf(san.KindUnavailable, "volume %s: the unit is shutting down: %w", id, ErrClosed)
		}
		e := m.entries[id]
		if e == nil {
			e = newEntry(Spec{ID: id})
			m.entries[id] = e
		}
		m.mu.Unlock()
		select {
		case e.turn <- struct{}{}:
			m.mu.Lock()
			current := !e.gone && !m.closed
			m.mu.Unlock()
			if current {
				return e, nil
			}
			<-e.turn // deleted or closed while we waited: look again
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// release ends a change; a volume without a record is forgotten.
func (m *Manager) release(e *entry) {
	m.mu.Lock()
	if e.state == "" {
		e.gone = true
		delete(m.entries, e.spec.ID)
	}
	m.mu.Unlock()
	<-e.turn
}

// set changes what is known of a volume.
func (m *Manager) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// Lookup returns the replica of a volume that is ready.
func (m *Manager) Lookup(id san.VolumeID) (*Replica, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[id]
	switch {
	case e == nil || e.state == "":
		return nil, san.Errorf(san.KindNotFound, "volume %s is not on this unit", id)
	case e.problem != nil:
		return nil, e.problem
	case e.replica == nil:
		return nil, san.Errorf(san.KindUnavailable, "volume %s is %s on this unit", id, e.state)
	}
	return e.replica, nil
}

// Info is a replica at a glance.
type Info struct {
	Spec    Spec // only the ID if the record is damaged
	State   State
	Problem error // why it is offline or damaged
}

// List returns all replicas by id, whatever their state.
func (m *Manager) List() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Info
	for _, e := range m.entries {
		if e.state != "" {
			all = append(all, Info{Spec: e.spec, State: e.state, Problem: e.problem})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Spec.ID < all[j].Spec.ID })
	return all
}

// Close waits for changes and I/O in progress, refuses all that comes later, and makes
// what was written stable.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	entries := make([]*entry, 0, len(m.entries))
	for _, e := range m.entries {
		entries = append(entries, e)
	}
	m.mu.Unlock()
	var errs []error
	for _, e := range entries {
		e.turn <- struct{}{}
		if e.replica != nil {
			errs = append(errs, e.replica.close())
		}
		<-e.turn
	}
	for _, md := range m.order {
		errs = append(errs, md.Sync())
	}
	return errors.Join(errs...)
}
