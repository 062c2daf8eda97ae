package place

import (
	"cmp"
	"fmt"
	"math/bits"
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
	// Copies is how many copies the volume has; 0 counts as 1, more are refused at present.
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
	// Away says why what is here can't change now, "" if it can.
	Away string
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

// Plan returns the volume's copies: on the unit with the greatest share of room left, ties by id. There
// it takes one medium that holds the whole copy if there is one (of several, the one with the greatest
// share left), or else as few as will do. The answer does not depend on the order of units or media.
// Errors: KindNoSpace that says why per unit; KindInvalid.
func Plan(req Request, units []UnitRoom) ([]fsm.Copy, error) {
	if err := san.CheckVolumeSize(req.SizeBytes, san.DefaultBlockSizeBytes); err != nil {
		return nil, err
	}
	if req.Copies > 1 {
		return nil, san.Errorf(san.KindInvalid, "%d copies asked for, but mirrored volumes are not available yet; ask for 1", req.Copies)
	}
	need := san.ExtentsFor(req.SizeBytes)
	var best *fsm.Copy
	var bestCapacity, bestFree uint64
	var why []string
	for i := range units {
		u := &units[i]
		taken, reason := u.take(need, req.Exclude)
		if reason != "" {
			why = append(why, fmt.Sprintf("%s: %s", u.ID, reason))
			continue
		}
		capacity, free := u.totals()
		if best == nil || cmp.Or(byShare(free, capacity, bestFree, bestCapacity), cmp.Compare(u.ID, best.Unit)) < 0 {
			best = &fsm.Copy{Unit: u.ID, Role: fsm.RolePrimary, State: fsm.CopyCreating, Slices: taken}
			bestCapacity, bestFree = capacity, free
		}
	}
	if best == nil {
		return nil, noSpace(need, len(units), why)
	}
	return []fsm.Copy{*best}, nil
}

// take returns the slices that a copy would have on u, or why it can't.
func (u *UnitRoom) take(need uint32, exclude []san.UnitID) ([]fsm.Slice, string) {
	switch _, free := u.totals(); {
	case slices.Contains(exclude, u.ID):
		return nil, "not wanted for this"
	case u.Unfit != "":
		return nil, u.Unfit
	case free < uint64(need):
		return nil, fmt.Sprintf("full, needs %s, has %s", text(uint64(need)), text(free))
	}
	taken := slice(need, u.Media)
	if len(taken) > maxSlices {
		return nil, fmt.Sprintf("its room is in more than %d pieces", maxSlices)
	}
	return taken, ""
}

// byShare orders the greater share of room first: aFree/aCap against bFree/bCap, exactly.
func byShare(aFree, aCap, bFree, bCap uint64) int {
	aHi, aLo := bits.Mul64(aFree, max(bCap, 1))
	bHi, bLo := bits.Mul64(bFree, max(aCap, 1))
	return cmp.Or(cmp.Compare(bHi, aHi), cmp.Compare(bLo, aLo))
}

// slice takes need extents off media; nil if they don't have as many.
func slice(need uint32, media []MediumRoom) []fsm.Slice {
	order := slices.Clone(media)
	slices.SortFunc(order, func(a, b MediumRoom) int {
		return a.compareShare(&b)
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
func noSpace(need uint32, units int, why []string) error {
	what := fmt.Sprintf("no unit has room for %s", text(uint64(need)))
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
		out = append(out, UnitRoom{ID: u.ID, Unfit: unfit(u), Away: away(u)})
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
	if u.Spare {
		return cmp.Or(away(u), "spare")
	}
	return away(u)
}

// FromView plans on the room that a view shows.
func FromView(v fsm.View, req Request) ([]fsm.Copy, error) { return Plan(req, Room(v)) }
