package volume

import (
	"context"
	"errors"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// Create makes a replica whose bytes are all zeros and opens it. It can be made again
// after any failure or crash: the same spec goes on where it was cut, or finds the
// replica made. When it fails for want of space nothing is left of it.
//
// Order on disk: record "creating" → extents, zeroed and stable → record "ready".
func (m *Manager) Create(ctx context.Context, spec Spec) (*Replica, error) {
	if err := spec.check(m.extentSize); err != nil {
		return nil, err
	}
	for _, sl := range spec.Slices {
		if m.media[sl.Medium] == nil {
			return nil, missingMedium(spec.ID, sl.Medium)
		}
	}
	e, err := m.acquire(ctx, spec.ID)
	if err != nil {
		return nil, err
	}
	defer m.release(e)
	switch {
	case e.problem != nil:
		return nil, e.problem
	case e.state == StateDeleting:
		return nil, san.Errorf(san.KindConflict, "volume %s is being deleted on this unit; repeat the deletion, then create it again", spec.ID)
	case e.state != "" && !e.spec.equal(spec):
		return nil, san.Errorf(san.KindConflict, "volume %s is on this unit already with another size or placement; delete it first", spec.ID)
	case e.state == StateReady:
		return e.replica, nil
	case e.state == "":
		if err := m.begin(e, spec); err != nil {
			return nil, err
		}
	}
	if err := m.build(ctx, e); err != nil {
		if undoErr := m.undo(e); undoErr != nil {
			m.log.Warn("a creation that failed can't be undone yet; creating or deleting the volume again finishes it", "volume", spec.ID, "error", undoErr)
		}
		return nil, san.Wrap("create volume "+string(spec.ID), err)
	}
	return e.replica, nil
}

// begin takes up a volume that is not here yet.
func (m *Manager) begin(e *entry, spec Spec) error {
	for _, md := range m.order {
		if len(md.Extents(spec.ID)) > 0 {
			return san.Errorf(san.KindConflict, "volume %s has extents on medium %s but no record on this unit; restore the record, or delete the volume here to give its data up", spec.ID, md.ID())
		}
	}
	// Of a former volume with this id whose record was lost.
	if err := removeJournal(m.records, spec.ID); err != nil {
		return err
	}
	rec, err := disk.OpenRecord(m.records, string(spec.ID))
	if err != nil {
		return err
	}
	m.set(func() { e.record, e.spec, e.state = rec, spec, StateCreating })
	return nil
}

// build writes the record, unless an earlier attempt did, allocates the extents and
// declares the replica ready.
func (m *Manager) build(ctx context.Context, e *entry) error {
	if _, err := e.record.Load(); err != nil {
		payload, err := encodeRecord(e.spec, StateCreating)
		if err != nil {
			return err
		}
		if err := e.record.Save(payload); err != nil {
			return err
		}
	}
	for i, sl := range e.spec.Slices {
		if _, err := m.media[sl.Medium].Allocate(ctx, e.spec.ID, e.spec.firstLogical(i), sl.Extents); err != nil {
			return err
		}
	}
	replica, err := m.newReplica(e.spec)
	if err != nil {
		return err
	}
	payload, err := encodeRecord(e.spec, StateReady)
	if err != nil {
		return err
	}
	if err := e.record.Save(payload); err != nil {
		return err
	}
	m.set(func() { e.state, e.replica = StateReady, replica })
	return nil
}

// undo takes a creation back: the extents first, so that the record outlives them.
func (m *Manager) undo(e *entry) error {
	if err := m.freeExtents(e); err != nil {
		return err
	}
	if err := e.record.Remove(); err != nil {
		return err
	}
	m.set(func() { e.record, e.state = nil, "" })
	return nil
}

// Delete closes a replica, gives its extents back, and forgets it. It can be made again
// after any failure or crash; a volume that is not here is no error. Extents without a
// record, and a record that is damaged, are removed too.
//
// Order on disk: record "deleting" → no journal → extents free → no record.
func (m *Manager) Delete(ctx context.Context, id san.VolumeID) error {
	if err := checkID(id); err != nil {
		return err
	}
	e, err := m.acquire(ctx, id)
	if err != nil {
		return err
	}
	defer m.release(e)
	switch e.state {
	case "":
		return m.freeAll(e)
	case StateReady, StateOffline, StateCreating:
		payload, err := encodeRecord(e.spec, StateDeleting)
		if err != nil {
			return err
		}
		if err := e.record.Save(payload); err != nil {
			return san.Wrap("delete volume "+string(id), err)
		}
	}
	replica := e.replica
	m.set(func() {
		e.replica = nil
		if e.state != StateDamaged {
			e.state, e.problem = StateDeleting, nil
		}
	})
	var closed error
	if replica != nil {
		closed = replica.close()
	}
	if err := errors.Join(closed, m.finishDelete(e)); err != nil {
		return san.Wrap("delete volume "+string(id), err)
	}
	return nil
}

// finishDelete does what comes after the record says "deleting".
func (m *Manager) finishDelete(e *entry) error {
	if err := m.freeAll(e); err != nil {
		return err
	}
	// A medium that is away still says that its extents are this volume's: the record
	// stays, so that they are freed when it is back.
	for _, sl := range e.spec.Slices {
		if m.media[sl.Medium] == nil {
			return missingMedium(e.spec.ID, sl.Medium)
		}
	}
	if err := disk.RemoveRecord(m.records, string(e.spec.ID)); err != nil {
		return err
	}
	m.set(func() { e.record, e.state, e.problem = nil, "", nil })
	return nil
}

// freeAll removes the volume's journal and frees its extents. The journal first: it must never be
// carried out on somebody else's extents.
func (m *Manager) freeAll(e *entry) error {
	if err := removeJournal(m.records, e.spec.ID); err != nil {
		return err
	}
	return m.freeExtents(e)
}

// freeExtents frees the volume's extents on every medium that is present.
func (m *Manager) freeExtents(e *entry) error {
	for _, md := range m.order {
		if err := md.Free(e.spec.ID); err != nil {
			return err
		}
	}
	return nil
}
