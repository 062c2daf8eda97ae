package fsm

import (
	"fmt"
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// MediumInfo is one medium in a unit's storage info.
type MediumInfo struct {
	ID              san.MediumID `cbor:"1,keyasint"`
	Path            string       `cbor:"2,keyasint"`
	CapacityExtents uint32       `cbor:"3,keyasint"`
	UsedExtents     uint32       `cbor:"4,keyasint"`
}

// ReplicaInfo is one replica in a unit's storage info.
type ReplicaInfo struct {
	Volume    san.VolumeID `cbor:"1,keyasint"`
	SizeBytes int64        `cbor:"2,keyasint"`
	StartLBA  san.LBA      `cbor:"3,keyasint"`
	EndLBA    san.LBA      `cbor:"4,keyasint"` // inclusive
	Extents   uint32       `cbor:"5,keyasint"`
}

// UnitStorage is Fig. 3d/e: the unit's media and replicas enter the pool and it becomes Online. A
// medium that another unit's row holds, or of an older incarnation, is refused. It is the whole
// truth about the unit: media that are not in it become Missing, copies that are not in it say so in
// their Error, replicas that no volume has on the unit become its Orphans.
type UnitStorage struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	Media       []MediumInfo    `cbor:"5,keyasint"`
	Replicas    []ReplicaInfo   `cbor:"6,keyasint"`
}

// Kind implements Command.
func (c *UnitStorage) Kind() Kind { return KindUnitStorage }

// Header implements Command.
func (c *UnitStorage) Header() *Header { return &c.H }

func (c *UnitStorage) action() string { return "" }

func (c *UnitStorage) apply(x *tx) (string, error) {
	u, err := x.member(c.ID)
	if err != nil {
		return "", err
	}
	if err := c.checkUnit(u); err != nil {
		return "", err
	}
	if err := c.putMedia(x); err != nil {
		return "", err
	}
	row := *u
	row.Orphans = c.putReplicas(x)
	if row.State != UnitOnline {
		row.State, row.Reason, row.StateAt = UnitOnline, "", x.at
	}
	x.put(&row)
	return string(u.ID), nil
}

func (c *UnitStorage) checkUnit(u *Unit) error {
	if err := u.holdsCert(c.CertSerial); err != nil {
		return err
	}
	switch {
	case !u.Approved:
		return refuse(san.KindDenied, "unit %q is not approved; let it in with: sandbar unit approve %s", u.ID, u.ID)
	case c.Incarnation != u.Incarnation:
		return refuse(san.KindConflict, "storage info is of start number %d of unit %q, which is at %d; announce the start first", c.Incarnation, u.ID, u.Incarnation)
	case u.State != UnitStarting && u.State != UnitOnline:
		return refuse(san.KindConflict, "unit %q is %s; announce the start before the storage info", u.ID, u.State)
	case len(c.Media) > maxMediaPerUnit:
		return refuse(san.KindInvalid, "unit %q has %d media, %d are allowed; join some of them into one", u.ID, len(c.Media), maxMediaPerUnit)
	case len(c.Replicas) > maxReplicas:
		return refuse(san.KindInvalid, "unit %q has %d replicas, %d are allowed", u.ID, len(c.Replicas), maxReplicas)
	}
	return nil
}

func (c *UnitStorage) putMedia(x *tx) error {
	seen := make(map[san.MediumID]bool, len(c.Media))
	for _, m := range c.Media {
		if err := checkID("medium", string(m.ID)); err != nil {
			return err
		}
		if seen[m.ID] {
			return refuse(san.KindConflict, "unit %q has medium %s twice, the second time at %s: one is a copy of the other; take one away", c.ID, m.ID, clip(m.Path))
		}
		seen[m.ID] = true
		if err := checkText("path of medium "+string(m.ID), m.Path, maxLongText); err != nil {
			return err
		}
		row := Medium{ID: m.ID, Unit: c.ID}
		if old := x.Medium(m.ID); old != nil {
			if old.Unit != c.ID {
				return refuse(san.KindConflict, "medium %s at %s of unit %q belongs to unit %q: it was moved or copied; give it back, or use another medium", m.ID, m.Path, c.ID, old.Unit)
			}
			row = *old
		}
		before := row
		row.Path, row.State, row.CapacityExtents, row.UsedExtents = m.Path, MediumOnline, m.CapacityExtents, m.UsedExtents
		if row != before || row.Meta.CreateIndex == 0 {
			x.put(&row)
		}
	}
	for _, old := range x.MediaOf(c.ID) {
		if !seen[old.ID] && old.State != MediumMissing {
			row := *old
			row.State = MediumMissing
			x.put(&row)
		}
	}
	return nil
}

// missingReplica is the Error of a copy that its unit came back without.
const missingReplica = "the unit came back without this replica; check that all of its media are there"

// putReplicas compares what the unit holds with what it should, and returns what nobody knows.
func (c *UnitStorage) putReplicas(x *tx) []san.VolumeID {
	held := make(map[san.VolumeID]*ReplicaInfo, len(c.Replicas))
	var orphans []san.VolumeID
	for i := range c.Replicas {
		r := &c.Replicas[i]
		if held[r.Volume] != nil {
			continue
		}
		held[r.Volume] = r
		if v := x.Volume(r.Volume); v == nil || v.copyOn(c.ID) < 0 {
			orphans = append(orphans, r.Volume)
		}
	}
	slices.Sort(orphans)
	for _, v := range x.VolumesOn(c.ID) {
		i := v.copyOn(c.ID)
		if say := replicaError(v, i, held[v.ID]); say != v.Copies[i].Error {
			row := v.clone()
			row.Copies[i].Error = say
			x.put(row)
		}
	}
	return orphans
}

// replicaError is the Error that copy i of v deserves when its unit holds r (nil: nothing).
func replicaError(v *Volume, i int, r *ReplicaInfo) string {
	have, due := v.Copies[i], v.SizeBytes
	if have.State == CopyGrowing {
		due = have.SizeBytes // it may have more, and will say so in a report
	}
	switch exists := have.State == CopyInSync || have.State == CopyGrowing; {
	case !exists:
		return have.Error // not made yet, or deleted already: its own report will say
	case r == nil:
		return missingReplica
	case r.SizeBytes < due || r.SizeBytes > due && have.State == CopyInSync:
		return fmt.Sprintf("the unit holds %d bytes of this volume, %d are due", r.SizeBytes, due)
	}
	return ""
}
