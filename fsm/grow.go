package fsm

import (
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// CopyGrowth is the room that one copy gets beside what it has.
type CopyGrowth struct {
	Unit   san.UnitID `cbor:"1,keyasint"`
	Slices []Slice    `cbor:"2,keyasint"`
}

// GrowVolume makes a volume larger while it is in use. Its copies are Growing, and hosts are told the former size,
// until every unit has confirmed the new one; sizes only ever rise, so that a report of a size
// says which of several growths it confirms. A volume that has the size already, or is growing to it, stays as it
// is. Apply never places by itself: KindConflict and KindNoSpace about a unit or medium mean that
// the placement is out of date, as with CreateVolume.
type GrowVolume struct {
	H         Header       `cbor:"1,keyasint"`
	ID        san.VolumeID `cbor:"2,keyasint"`
	SizeBytes int64        `cbor:"3,keyasint"`
	// Copies are those that need extents for it: none if their last one has room.
	Copies []CopyGrowth `cbor:"4,keyasint"`
}

// Kind implements Command.
func (c *GrowVolume) Kind() Kind { return KindGrowVolume }

// Header implements Command.
func (c *GrowVolume) Header() *Header { return &c.H }

func (c *GrowVolume) action() string { return "volume.grow" }

func (c *GrowVolume) apply(x *tx) (string, error) {
	v, err := x.disk(c.ID)
	if err != nil {
		return "", err
	}
	if err := CheckGrow(v, c.SizeBytes); err != nil {
		return "", err
	}
	if c.SizeBytes == v.SizeBytes {
		return string(v.ID), nil
	}
	for i := range c.Copies {
		if u := c.Copies[i].Unit; v.copyOn(u) < 0 || slices.ContainsFunc(c.Copies[:i], func(o CopyGrowth) bool { return o.Unit == u }) {
			return "", refuse(san.KindConflict, "volume %q can't grow on unit %q, which holds no copy of it or is named twice; try again", v.Name, clip(string(u)))
		}
	}
	row := v.clone()
	row.SizeBytes, row.State = c.SizeBytes, VolumeGrowing
	for i := range row.Copies {
		if err := x.growCopy(v, c, &row.Copies[i]); err != nil {
			return "", err
		}
	}
	x.put(row)
	return string(v.ID), nil
}

// CheckGrow refuses a growth of v to sizeBytes that no placement could make possible.
func CheckGrow(v *Volume, sizeBytes int64) error {
	switch {
	case v.State == VolumeDeleting:
		return refuse(san.KindConflict, "volume %q is being deleted and can't grow; create another", v.Name)
	case v.State == VolumeCreating:
		return refuse(san.KindConflict, "volume %q is still being made; let it grow once it is %s", v.Name, VolumeReady)
	}
	if err := san.CheckVolumeSize(sizeBytes, v.BlockSizeBytes); err != nil {
		return err
	}
	if sizeBytes < v.SizeBytes {
		return refuse(san.KindConflict, "volume %q has %s (%d bytes) and never shrinks, so it can't get %s (%d bytes); give a larger size, or copy its data to a smaller volume",
			v.Name, san.FormatSize(v.SizeBytes), v.SizeBytes, san.FormatSize(sizeBytes), sizeBytes)
	}
	return nil
}

// growCopy takes the room that c has for the copy of v, and makes the copy Growing.
func (x *tx) growCopy(v *Volume, c *GrowVolume, cp *Copy) error {
	u := x.Unit(cp.Unit)
	if u == nil || !u.Approved || u.State != UnitOnline {
		state := UnitUnreachable
		if u != nil {
			state = u.State
		}
		return refuse(san.KindConflict, "volume %q can't grow on unit %q, which is %s; try again once it is %s", v.Name, cp.Unit, state, UnitOnline)
	}
	var add []Slice
	if i := slices.IndexFunc(c.Copies, func(g CopyGrowth) bool { return g.Unit == cp.Unit }); i >= 0 {
		add = c.Copies[i].Slices
	}
	got, err := x.take(v, cp.Unit, add)
	if err != nil {
		return err
	}
	if need := uint64(san.ExtentsFor(c.SizeBytes) - san.ExtentsFor(v.SizeBytes)); got != need {
		// Another growth may have come first.
		return refuse(san.KindConflict, "placement of the growth of volume %q has %d extents on unit %q, %d are needed; try again", v.Name, got, cp.Unit, need)
	}
	if cp.Slices = appendSlices(cp.Slices, add); len(cp.Slices) > maxSlices {
		return refuse(san.KindNoSpace, "volume %q would be in %d pieces on unit %q, %d are allowed; add a larger medium", v.Name, len(cp.Slices), cp.Unit, maxSlices)
	}
	if cp.State != CopyGrowing {
		cp.State, cp.SizeBytes = CopyGrowing, v.SizeBytes
	}
	return nil
}

// appendSlices returns have continued by add; what goes on on the same medium stays one slice.
func appendSlices(have, add []Slice) []Slice {
	out := slices.Clone(have)
	for _, s := range add {
		if n := len(out); n > 0 && out[n-1].Medium == s.Medium {
			out[n-1].Extents += s.Extents
			continue
		}
		out = append(out, s)
	}
	return out
}

// copyGrown notes that copy i of v, which is Growing, has sizeBytes, stable.
func (x *tx) copyGrown(v *Volume, i int, sizeBytes int64) {
	if sizeBytes <= v.Copies[i].SizeBytes {
		return // said before the unit was told to grow it, or of an earlier growth
	}
	row := v.clone()
	c := &row.Copies[i]
	c.Error = ""
	if sizeBytes >= v.SizeBytes {
		c.State, c.SizeBytes = CopyInSync, 0
	} else {
		c.SizeBytes = sizeBytes
	}
	x.putMade(row)
}

// ServedBytes is the size that hosts may use: what all copies of v have.
func (v *Volume) ServedBytes() int64 {
	size := v.SizeBytes
	for i := range v.Copies {
		if v.Copies[i].State == CopyGrowing {
			size = min(size, v.Copies[i].SizeBytes)
		}
	}
	return size
}
