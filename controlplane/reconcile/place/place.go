package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// maxReasons bounds how many units an error tells about.
const maxReasons = 8

// maxSlices is how many media one copy may be spread over; fsm refuses more.
const maxSlices = 1024

// Request is what to find room for.
type Request struct {
	// SizeBytes is the volume's size; whole extents are taken.
	SizeBytes int64
	// Copies is on how many different units; 0 counts as 1.
	Copies int
	// Exclude lists units that must not be used.
	Exclude []san.UnitID
}

// MediumRoom is one medium of a unit and what is left on it.
type MediumRoom struct {
	ID              san.MediumID
	CapacityExtents uint32
	FreeExtents     uint32
}

// UnitRoom is one unit as planning sees it.
type UnitRoom struct {
	ID san.UnitID
	// Unfit says why nothing may be placed here, "" if it may.
	Unfit string
	// Media are those that take part in allocation.
	Media []MediumRoom
}

func (u *UnitRoom) totals() (capacity, free uint64) {
	for _, m := range u.Media {
		capacity += uint64(m.CapacityExtents)
		free += uint64(m.FreeExtents)
	}
	return capacity, free
}

// candidate is a unit that a copy may go to.
type candidate struct {
	unit     *UnitRoom
	capacity uint64
	free     uint64
}

// Plan returns one copy for each unit chosen, the first being the primary: the units with the
// greatest share of room left, ties by id. On a unit it takes one medium that holds the whole copy if
// there is one (the one with the greatest share left), or else as few as will do. The answer
// does not depend on the order of units or media. Errors: KindNoSpace that says why per unit; KindInvalid.
func Plan(req Request, units []UnitRoom) ([]fsm.Copy, error) {
	if err := san.CheckVolumeSize(req.SizeBytes, san.DefaultBlockSizeBytes); err != nil {
		return nil, err
	}
	copies := max(req.Copies, 1)
	need := san.ExtentsFor(req.SizeBytes)
	var fit []candidate
	var why []string
	for i := range units {
		u := &units[i]
		c := candidate{unit: u}
		c.capacity, c.free = u.totals()
		switch {
		case slices.Contains(req.Exclude, u.ID):
			why = append(why, fmt.Sprintf("%s: not wanted for this", u.ID))
		case u.Unfit != "":
			why = append(why, fmt.Sprintf("%s: %s", u.ID, u.Unfit))
		case c.free < uint64(need):
			why = append(why, fmt.Sprintf("%s: full, needs %s, has %s", u.ID, text(uint64(need)), text(c.free)))
		default:
			fit = append(fit, c)
		}
	}
	slices.SortFunc(fit, func(a, b candidate) int {
		return cmp.Or(byShare(a.free, a.capacity, b.free, b.capacity), cmp.Compare(a.unit.ID, b.unit.ID))
	})
	var out []fsm.Copy
	for _, c := range fit {
		if len(out) == copies {
			break
		}
		if s := slice(need, c.unit.Media); len(s) > 0 && len(s) <= maxSlices {
			out = append(out, fsm.Copy{Unit: c.unit.ID, Role: fsm.RolePrimary, State: fsm.CopyCreating, Slices: s})
			continue
		}
		why = append(why, fmt.Sprintf("%s: its room is in more than %d pieces", c.unit.ID, maxSlices))
	}
	if len(out) < copies {
		return nil, noSpace(need, copies, len(units), why)
	}
	return out, nil
}

// byShare orders the greater share of room first: aFree/aCap against bFree/bCap, without rounding. The
// factors are sums of 32-bit numbers of at most some thousand media: the products fit.
func byShare(aFree, aCap, bFree, bCap uint64) int {
	return cmp.Compare(bFree*max(aCap, 1), aFree*max(bCap, 1))
}

// slice takes need extents off media; nil if they don't have as many.
func slice(need uint32, media []MediumRoom) []fsm.Slice {
	order := slices.Clone(media)
	slices.SortFunc(order, func(a, b MediumRoom) int {
		return cmp.Or(byShare(uint64(a.FreeExtents), uint64(a.CapacityExtents), uint64(b.FreeExtents), uint64(b.CapacityExtents)), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range order {
		if m.FreeExtents >= need {
			return []fsm.Slice{{Medium: m.ID, Extents: need}}
		}
	}
	// None holds it whole: the roomiest first makes the fewest pieces.
	slices.SortStableFunc(order, func(a, b MediumRoom) int { return cmp.Compare(b.FreeExtents, a.FreeExtents) })
	var out []fsm.Slice
	for _, m := range order {
		n := min(need, m.FreeExtents)
		if n == 0 {
			break
		}
		out = append(out, fsm.Slice{Medium: m.ID, Extents: n})
		if need -= n; need == 0 {
			return out
		}
	}
	return nil
}

func text(extents uint64) string { return san.FormatSize(int64(extents) * san.ExtentSizeBytes) }

// noSpace makes the error that names each unit's reason, as far as fits.
func noSpace(need uint32, copies, units int, why []string) error {
	what := fmt.Sprintf("no unit has room for %s", text(uint64(need)))
	if copies > 1 {
		what = fmt.Sprintf("no %d units have room for %s each", copies, text(uint64(need)))
	}
	if units == 0 {
		return san.Errorf(san.KindNoSpace, "%s: there are no units; start one and approve it (sandbar unit approve)", what)
	}
	slices.Sort(why)
	if more := len(why) - maxReasons; more > 0 {
		why = append(why[:maxReasons:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return san.Errorf(san.KindNoSpace, "%s (%s); free some volumes, add media, or bring a unit online", what, strings.Join(why, "; "))
}

// Room gathers what Plan needs to know of every unit.
func Room(v fsm.View) []UnitRoom {
	units := v.Units()
	out := make([]UnitRoom, 0, len(units))
	where := make(map[san.UnitID]int, len(units))
	for i, u := range units {
		out = append(out, UnitRoom{ID: u.ID, Unfit: unfit(u)})
		where[u.ID] = i
	}
	for _, m := range v.Media() {
		if i, ok := where[m.Unit]; ok && m.State == fsm.MediumOnline {
			out[i].Media = append(out[i].Media, MediumRoom{ID: m.ID, CapacityExtents: m.CapacityExtents, FreeExtents: m.FreeExtents()})
		}
	}
	return out
}

func unfit(u *fsm.Unit) string {
	switch {
	case !u.Approved:
		return "not approved"
	case u.State != fsm.UnitOnline:
		return fmt.Sprintf("not online (%s)", u.State)
	case u.Spare:
		return "spare"
	}
	return ""
}

// FromView plans on the room that a view shows.
func FromView(v fsm.View, req Request) ([]fsm.Copy, error) { return Plan(req, Room(v)) }
