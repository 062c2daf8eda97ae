package fsm

import (
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// copyOn returns which copy of v is on unit, -1 if none is.
func (v *Volume) copyOn(unit san.UnitID) int {
	return slices.IndexFunc(v.Copies, func(c Copy) bool { return c.Unit == unit })
}

// clone copies v so that its fields and its copies' may be changed; slices of copies stay shared.
func (v *Volume) clone() *Volume {
	w := *v
	w.Copies = slices.Clone(v.Copies)
	return &w
}

// checkID reports whether s can be the id of a volume or medium: lower-case letters, digits and
// dashes, as a UUID has.
func checkID(what, s string) error {
	ok := s != "" && len(s) <= san.MaxNameLength
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return refuse(san.KindInvalid, "%s id %q is not usable; give a UUID in lower case", what, clip(s))
	}
	return nil
}

// CreateVolume makes a volume with its placement, and an assignment when Host is set.
// Apply re-checks names, units and room; it never places by itself. KindConflict and KindNoSpace about a
// unit or medium mean that the placement is out of date: plan again.
type CreateVolume struct {
	H                Header            `cbor:"1,keyasint"`
	ID               san.VolumeID      `cbor:"2,keyasint"`
	Name             string            `cbor:"3,keyasint"`
	SizeBytes        int64             `cbor:"4,keyasint"`
	BlockSizeBytes   uint32            `cbor:"5,keyasint"`
	Labels           map[string]string `cbor:"6,keyasint"`
	Owner            san.HostID        `cbor:"7,keyasint"`
	Copies           []Copy            `cbor:"8,keyasint"`
	Host             san.HostID        `cbor:"9,keyasint"`
	CHAPUser         string            `cbor:"10,keyasint"`
	CHAPSecretSealed []byte            `cbor:"11,keyasint"`
}

// Kind implements Command.
func (c *CreateVolume) Kind() Kind { return KindCreateVolume }

// Header implements Command.
func (c *CreateVolume) Header() *Header { return &c.H }

func (c *CreateVolume) action() string { return "volume.create" }

func (c *CreateVolume) apply(x *tx) (string, error) {
	if err := c.checkVolume(x); err != nil {
		return "", err
	}
	labels, err := mergeLabels(nil, c.Labels)
	if err != nil {
		return "", err
	}
	v := &Volume{ID: c.ID, Name: c.Name, SizeBytes: c.SizeBytes, BlockSizeBytes: c.BlockSizeBytes,
		Labels: labels, Owner: c.Owner, State: VolumeCreating, Epoch: 1, CreatedAt: x.at}
	for i := range c.Copies {
		if err := x.reserve(v, &c.Copies[i]); err != nil {
			return "", err
		}
	}
	if c.Host != "" {
		if err := x.grant(v, c.Host, c.CHAPUser, c.CHAPSecretSealed); err != nil {
			return "", err
		}
	}
	x.put(v)
	return string(v.ID), nil
}

func (c *CreateVolume) checkVolume(x *tx) error {
	if err := san.CheckName("volume", c.Name); err != nil {
		return err
	}
	if err := san.CheckVolumeSize(c.SizeBytes, c.BlockSizeBytes); err != nil {
		return err
	}
	if err := checkID("volume", string(c.ID)); err != nil {
		return err
	}
	if have := x.VolumeByName(c.Name); have != nil {
		if have.State == VolumeDeleting {
			return refuse(san.KindExists, "volume %q is still being deleted; wait until it is gone or choose another name", c.Name)
		}
		return refuse(san.KindExists, "there is a volume %q already; choose another name", c.Name)
	}
	if x.Volume(c.ID) != nil {
		return refuse(san.KindExists, "volume id %s is taken; repeat the request with a new id", c.ID)
	}
	if c.Owner != "" {
		if _, err := x.guest(c.Owner); err != nil {
			return err
		}
	}
	switch n := len(c.Copies); {
	case n == 0:
		return refuse(san.KindInvalid, "volume %q has no placement; give it a copy on a unit", c.Name)
	case n > 1:
		return refuse(san.KindInvalid, "volume %q is to have %d copies, but mirrored volumes are not available yet; ask for 1", c.Name, n)
	}
	return nil
}

// reserve takes the extents of want, checks that they hold v, and adds the copy to v.
func (x *tx) reserve(v *Volume, want *Copy) error {
	if err := x.canPlace(v, want); err != nil {
		return err
	}
	got, err := x.take(v, want.Unit, want.Slices)
	if err != nil {
		return err
	}
	if need := san.ExtentsFor(v.SizeBytes); got != uint64(need) {
		return refuse(san.KindInvalid, "placement of volume %q has %d extents, %d bytes need %d; plan it again", v.Name, got, v.SizeBytes, need)
	}
	v.Copies = append(v.Copies, Copy{Unit: want.Unit, Role: want.Role, State: CopyCreating, Slices: want.Slices})
	return nil
}

// take reserves what want says on the media of unit for v, and returns how many extents that is.
func (x *tx) take(v *Volume, unit san.UnitID, want []Slice) (extents uint64, err error) {
	for i, s := range want {
		extents += uint64(s.Extents)
		if s.Extents == 0 || slices.ContainsFunc(want[:i], func(o Slice) bool { return o.Medium == s.Medium }) {
			return 0, refuse(san.KindInvalid, "placement of volume %q has an empty or double slice on medium %s; plan it again", v.Name, clip(string(s.Medium)))
		}
		m := x.Medium(s.Medium)
		switch {
		case m == nil || m.Unit != unit:
			return 0, refuse(san.KindConflict, "volume %q can't be placed on medium %s, which unit %q does not have; try again", v.Name, clip(string(s.Medium)), unit)
		case m.State != MediumOnline:
			return 0, refuse(san.KindConflict, "volume %q can't be placed on medium %s of unit %q, which is %s; try again", v.Name, m.ID, m.Unit, m.State)
		case s.Extents > m.FreeExtents():
			return 0, refuse(san.KindNoSpace, "volume %q needs %s on medium %s of unit %q, which has %s left; try again, free some volumes or add media",
				v.Name, extentsText(s.Extents), m.ID, m.Unit, extentsText(m.FreeExtents()))
		}
		row := *m
		row.ReservedExtents += s.Extents
		x.put(&row)
	}
	return extents, nil
}

// canPlace checks want's unit, part and number of slices.
func (x *tx) canPlace(v *Volume, want *Copy) error {
	u := x.Unit(want.Unit)
	switch {
	case u == nil:
		return refuse(san.KindConflict, "volume %q can't be placed on unit %q, which is not there; try again", v.Name, clip(string(want.Unit)))
	case !u.Approved || u.State != UnitOnline:
		return refuse(san.KindConflict, "volume %q can't be placed on unit %q, which is %s; try again", v.Name, u.ID, u.State)
	case u.Spare:
		return refuse(san.KindConflict, "volume %q can't be placed on unit %q, which is a spare; try again", v.Name, u.ID)
	case want.Role != RolePrimary:
		return refuse(san.KindInvalid, "the copy of volume %q on unit %q has the role %q; the only one is %s", v.Name, u.ID, clip(string(want.Role)), RolePrimary)
	case len(want.Slices) == 0 || len(want.Slices) > maxSlices:
		return refuse(san.KindInvalid, "volume %q is placed in %d slices on unit %q; 1 to %d are allowed", v.Name, len(want.Slices), u.ID, maxSlices)
	}
	return nil
}

// FreeExtents is the room left for new volumes.
func (m *Medium) FreeExtents() uint32 {
	// The medium may have come back smaller than what was promised of it.
	return m.CapacityExtents - min(m.ReservedExtents, m.CapacityExtents)
}

func extentsText(n uint32) string { return san.FormatSize(int64(n) * san.ExtentSizeBytes) }

// DeleteVolume starts a volume's deletion; refused while assigned. The row goes once every unit reported its copy
// deleted. Deleting a volume that is being deleted changes nothing.
type DeleteVolume struct {
	H  Header       `cbor:"1,keyasint"`
	ID san.VolumeID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *DeleteVolume) Kind() Kind { return KindDeleteVolume }

// Header implements Command.
func (c *DeleteVolume) Header() *Header { return &c.H }

func (c *DeleteVolume) action() string { return "volume.delete" }

func (c *DeleteVolume) apply(x *tx) (string, error) {
	v, err := x.disk(c.ID)
	if err != nil {
		return "", err
	}
	if has := x.AssignmentsOf(v.ID); len(has) > 0 {
		return "", refuse(san.KindConflict, "volume %q is assigned to host %q (%s); unassign it first: sandbar volume unassign %s --host %s",
			v.Name, has[0].Host, has[0].State, v.Name, has[0].Host)
	}
	if v.State == VolumeDeleting {
		return string(v.ID), nil
	}
	row := v.clone()
	row.State = VolumeDeleting
	for i := range row.Copies {
		row.Copies[i].State, row.Copies[i].Error, row.Copies[i].SizeBytes = CopyDeleting, "", 0
	}
	x.put(row)
	return string(v.ID), nil
}

// disk returns the volume with that id, a refusal if there is none.
func (x *tx) disk(id san.VolumeID) (*Volume, error) {
	v := x.Volume(id)
	if v == nil {
		return nil, refuse(san.KindNotFound, "there is no volume %q; see: sandbar volume list", clip(string(id)))
	}
	return v, nil
}

// copyMade notes that unit has copy i of v, stable, in a size.
func (x *tx) copyMade(v *Volume, i int, sizeBytes int64) {
	switch have := &v.Copies[i]; {
	case have.State == CopyDeleting || have.State == CopyInSync && have.Error == "":
		return
	case have.State == CopyGrowing:
		x.copyGrown(v, i, sizeBytes)
		return
	}
	row := v.clone()
	row.Copies[i].State, row.Copies[i].Error = CopyInSync, ""
	x.putMade(row)
}

// putMade puts row, Ready if no copy of it lacks anything.
func (x *tx) putMade(row *Volume) {
	if row.State != VolumeDeleting && !slices.ContainsFunc(row.Copies, func(c Copy) bool { return c.State != CopyInSync }) {
		row.State = VolumeReady
	}
	x.put(row)
}

// copyGone gives back the extents of a deleted copy; with the last one goes the volume.
func (x *tx) copyGone(v *Volume, i int) {
	if v.Copies[i].State != CopyDeleting {
		return
	}
	for _, s := range v.Copies[i].Slices {
		if m := x.Medium(s.Medium); m != nil {
			row := *m
			row.ReservedExtents -= min(s.Extents, row.ReservedExtents)
			x.put(&row)
		}
	}
	if len(v.Copies) == 1 {
		x.del(v)
		return
	}
	row := v.clone()
	row.Copies = slices.Delete(row.Copies, i, i+1)
	x.put(row)
}

// copyFailed notes why a unit could not do what it should with its copy.
func (x *tx) copyFailed(v *Volume, i int, why string) {
	if why = clip(why); v.Copies[i].Error != why {
		row := v.clone()
		row.Copies[i].Error = why
		x.put(row)
	}
}
