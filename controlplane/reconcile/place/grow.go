package place

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Grow returns where the room comes from that vol needs beside what it has in order to have sizeBytes: for each
// copy, on its own unit. Of the unit's media it takes the one that the copy ends on if that has
// all the room, else one that the copy is on already, else any one, else as few as will do: each medium more
// is one more whose loss is the volume's. None if the copies' last extents have room. Errors: those of
// fsm.CheckGrow; KindConflict for a unit that is not online; KindNoSpace that says what is missing where.
func Grow(vol *fsm.Volume, sizeBytes int64, units []UnitRoom) ([]fsm.CopyGrowth, error) {
	if err := fsm.CheckGrow(vol, sizeBytes); err != nil {
		return nil, err
	}
	if sizeBytes == vol.SizeBytes {
		return nil, nil // asked for again: what is under way goes on, wherever its units are
	}
	need := san.ExtentsFor(sizeBytes) - san.ExtentsFor(vol.SizeBytes)
	var out []fsm.CopyGrowth
	for _, c := range vol.Copies {
		i := slices.IndexFunc(units, func(u UnitRoom) bool { return u.ID == c.Unit })
		if i < 0 || units[i].Away != "" {
			return nil, san.Errorf(san.KindConflict, "volume %q can't grow on unit %s, which is %s; try again once it is online",
				vol.Name, c.Unit, awayText(units, i))
		}
		if need == 0 {
			continue
		}
		_, free := units[i].totals()
		taken := extend(need, c.Slices, units[i].Media)
		switch {
		case free < uint64(need):
			return nil, san.Errorf(san.KindNoSpace, "volume %q needs %s more on unit %s, which has %s left; free some volumes there or add media to it",
				vol.Name, text(uint64(need)), c.Unit, text(free))
		case len(taken)+len(c.Slices) > maxSlices:
			return nil, san.Errorf(san.KindNoSpace, "volume %q would be in more than %d pieces on unit %s; add a larger medium to it", vol.Name, maxSlices, c.Unit)
		}
		out = append(out, fsm.CopyGrowth{Unit: c.Unit, Slices: taken})
	}
	return out, nil
}

func awayText(units []UnitRoom, i int) string {
	if i < 0 {
		return "not there"
	}
	return units[i].Away
}

// extend takes need extents off media for a copy that has some already; nil if they don't have as many.
func extend(need uint32, have []fsm.Slice, media []MediumRoom) []fsm.Slice {
	rank := func(m MediumRoom) int {
		switch i := slices.IndexFunc(have, func(s fsm.Slice) bool { return s.Medium == m.ID }); {
		case m.ID == have[len(have)-1].Medium:
			return 0
		case i >= 0:
			return 1
		}
		return 2
	}
	var best *MediumRoom
	for i := range media {
		m := &media[i]
		if m.FreeExtents < need {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(rank(*m), rank(*best)), m.compareShare(best)) < 0 {
			best = m
		}
	}
	if best != nil {
		return []fsm.Slice{{Medium: best.ID, Extents: need}}
	}
	return slice(need, media)
}

// compareShare orders the medium with the greater share of room first, ties by id.
func (m *MediumRoom) compareShare(o *MediumRoom) int {
	return cmp.Or(byShare(uint64(m.FreeExtents), uint64(m.CapacityExtents), uint64(o.FreeExtents), uint64(o.CapacityExtents)), cmp.Compare(m.ID, o.ID))
}

// GrowFromView plans on the room that a view shows.
func GrowFromView(v fsm.View, vol *fsm.Volume, sizeBytes int64) ([]fsm.CopyGrowth, error) {
	return Grow(vol, sizeBytes, Room(v))
}

// away says why nothing of a unit's can change now, "" if it can.
func away(u *fsm.Unit) string {
	switch {
	case !u.Approved:
		return "not approved"
	case u.State != fsm.UnitOnline:
		return fmt.Sprintf("not online (%s)", u.State)
	}
	return ""
}
