package volume

import (
	"context"

	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

// Grow makes a replica that is ready larger while it is in use, and reports whether it did: what has
// spec's size already stays as it is. spec must continue what the replica is; the bytes that it gains
// read as zeros. It can be made again after any failure or crash. When it fails for want of
// space the replica is as it was.
//
// Order on disk: extents, zeroed and stable → record "ready" with the new size. Until the
// record is stable nobody sees the new size; extents beyond it, which a crash may leave, are
// never read and are taken up by the next attempt or given back with the volume.
func (m *Manager) Grow(ctx context.Context, spec Spec) (bool, error) {
	if err := spec.check(m.extentSize); err != nil {
		return false, err
	}
	e, err := m.acquire(ctx, spec.ID)
	if err != nil {
		return false, err
	}
	defer m.release(e)
	switch {
	case e.problem != nil:
		return false, e.problem
	case e.state == "":
		return false, san.Errorf(san.KindNotFound, "volume %s is to grow but is not on this unit; check that all of the unit's media and its data folder are its own", spec.ID)
	case e.state != StateReady:
		return false, san.Errorf(san.KindConflict, "volume %s is %s on this unit and can't grow", spec.ID, e.state)
	case e.spec.equal(spec):
		return false, nil
	case !spec.continues(e.spec):
		return false, san.Errorf(san.KindConflict, "volume %s has %d bytes on this unit and can't become what was told, of %d bytes; it is left as it is", spec.ID, e.spec.SizeBytes, spec.SizeBytes)
	}
	if err := m.extend(ctx, e, spec); err != nil {
		return false, san.Wrap("grow volume "+string(spec.ID), err)
	}
	return true, nil
}

// extend allocates what spec has beyond e's, declares it the volume's, and serves it.
func (m *Manager) extend(ctx context.Context, e *entry, spec Spec) error {
	if err := m.allocateBeyond(ctx, e.spec.extents(), spec); err != nil {
		m.giveBack(e)
		return err
	}
	pl, err := m.place(spec, e.replica.where.Load().media)
	if err != nil {
		return err
	}
	payload, err := encodeRecord(spec, StateReady)
	if err != nil {
		return err
	}
	if err := e.record.Save(payload); err != nil {
		// A restart may find the new record: the extents that it names must stay.
		m.set(func() { e.unsure = true })
		return err
	}
	m.set(func() { e.spec, e.unsure = spec, false })
	e.replica.where.Store(pl)
	return nil
}

// allocateBeyond allocates spec's extents from the logical index have on.
func (m *Manager) allocateBeyond(ctx context.Context, have uint32, spec Spec) error {
	for i, sl := range spec.Slices {
		first := max(spec.firstLogical(i), have)
		end := spec.firstLogical(i) + sl.Extents
		if end <= first {
			continue
		}
		md := m.media[sl.Medium]
		if md == nil {
			return missingMedium(spec.ID, sl.Medium)
		}
		if _, err := md.Allocate(ctx, spec.ID, first, end-first); err != nil {
			return err
		}
	}
	return nil
}

// giveBack frees what a growth that failed has allocated.
func (m *Manager) giveBack(e *entry) {
	if e.unsure {
		return
	}
	for _, md := range m.order {
		if err := freeBeyond(md, e.spec); err != nil {
			m.log.Warn("room that a failed growth took can't be given back yet; growing or deleting the volume again sees to it", "volume", e.spec.ID, "medium", md.ID(), "error", err)
		}
	}
}

func freeBeyond(md *extent.Medium, spec Spec) error {
	all := md.Extents(spec.ID)
	if len(all) == 0 || all[len(all)-1].Logical < spec.extents() {
		return nil
	}
	return md.FreeFrom(spec.ID, spec.extents())
}
