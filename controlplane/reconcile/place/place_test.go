package place

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func unit(id string, media ...MediumRoom) UnitRoom { return UnitRoom{ID: san.UnitID(id), Media: media} }

func medium(id string, free, capacity uint32) MediumRoom {
	return MediumRoom{ID: san.MediumID(id), FreeExtents: free, CapacityExtents: capacity}
}

func unfitUnit(id, why string) UnitRoom {
	u := unit(id, medium(id+"-m1", 1000, 1000))
	u.Unfit = why
	return u
}

func mib(n int64) Request { return Request{SizeBytes: n << 20} }

// TestPlanGolden shows each rule by one case; the plans are in testdata/plans.txt.
func TestPlanGolden(t *testing.T) {
	many := make([]UnitRoom, 12)
	for i := range many {
		many[i] = unit(fmt.Sprintf("u%02d", i), medium(fmt.Sprintf("m%02d", i), uint32(i), 100))
	}
	cases := []struct {
		name  string
		req   Request
		units []UnitRoom
	}{
		{"greatest share wins, not greatest room", mib(80), []UnitRoom{unit("big", medium("b", 500, 1000)), unit("small", medium("s", 90, 100))}},
		{"ties go by id", mib(80), []UnitRoom{unit("u2", medium("m2", 50, 100)), unit("u1", medium("m1", 25, 50))}},
		{"a medium that holds it whole is better than an emptier one that does not", mib(80), []UnitRoom{unit("u1", medium("m1", 19, 19), medium("m2", 20, 100))}},
		{"of several that hold it, the one with the greatest share", mib(80), []UnitRoom{unit("u1", medium("m1", 40, 100), medium("m2", 30, 40))}},
		{"spread over as few media as will do", mib(400), []UnitRoom{unit("u1", medium("m1", 10, 10), medium("m2", 60, 100), medium("m3", 50, 100))}},
		{"exactly full", mib(80), []UnitRoom{unit("u1", medium("m1", 20, 100))}},
		{"part of an extent takes it whole", Request{SizeBytes: 80<<20 + 512}, []UnitRoom{unit("u1", medium("m1", 20, 100)), unit("u2", medium("m2", 21, 1000))}},
		{"spare, pending and stopped units are never used", mib(4), []UnitRoom{unfitUnit("u1", "spare"), unfitUnit("u2", "not approved"), unfitUnit("u3", "not online (Stopped)"), unit("u4", medium("m4", 1, 1000))}},
		{"excluded", Request{SizeBytes: 4 << 20, Exclude: []san.UnitID{"u1"}}, []UnitRoom{unit("u1", medium("m1", 9, 9)), unit("u2", medium("m2", 1, 9))}},
		{"no room says why per unit", mib(80), []UnitRoom{unit("u4"), unfitUnit("u1", "spare"), unfitUnit("u2", "not online (Unreachable)"), unit("u3", medium("m3", 12, 100))}},
		{"a long list of reasons is cut", mib(800), many},
		{"no units at all", mib(80), nil},
		{"no mirrors yet", Request{SizeBytes: 80 << 20, Copies: 2}, []UnitRoom{unit("u1", medium("m1", 100, 100)), unit("u2", medium("m2", 100, 100))}},
		{"bad size", Request{SizeBytes: 1000}, []UnitRoom{unit("u1", medium("m1", 100, 100))}},
		{"huge", Request{SizeBytes: san.MaxVolumeSizeBytes}, []UnitRoom{unit("u1", medium("m1", 1<<31, 1<<32-1), medium("m2", 1<<31, 1<<32-1)), unit("u2", medium("m3", 1<<31, 1<<32-1))}},
	}
	var b strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&b, "# %s\n", c.name)
		plan, err := Plan(c.req, c.units)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n\n", san.KindOf(err), err)
			continue
		}
		for _, p := range plan {
			fmt.Fprintf(&b, "%s %s %s:", p.Role, p.State, p.Unit)
			for _, s := range p.Slices {
				fmt.Fprintf(&b, " %s=%d", s.Medium, s.Extents)
			}
		}
		b.WriteString("\n\n")
	}
	golden(t, filepath.Join("testdata", "plans.txt"), b.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (-update rewrites it); got:\n%s", path, got)
	}
}

// TestPlanProperties: a plan fits, is exact, is on a fit unit, and does not depend on order; and
// there is one exactly if some fit unit has the room.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := make([]UnitRoom, rapid.IntRange(0, 6).Draw(t, "units"))
		for i := range units {
			units[i] = unit(fmt.Sprintf("u%d", i))
			units[i].Unfit = rapid.SampledFrom([]string{"", "", "spare"}).Draw(t, "unfit")
			for j := range rapid.IntRange(0, 4).Draw(t, "media") {
				capacity := rapid.Uint32Range(0, 50).Draw(t, "capacity")
				units[i].Media = append(units[i].Media, medium(fmt.Sprintf("m%d-%d", i, j), rapid.Uint32Range(0, capacity).Draw(t, "free"), capacity))
			}
		}
		need := rapid.Uint32Range(1, 80).Draw(t, "need")
		req := Request{SizeBytes: int64(need) * san.ExtentSizeBytes}
		plan, err := Plan(req, units)
		possible := false
		for i := range units {
			_, free := units[i].totals()
			possible = possible || units[i].Unfit == "" && free >= uint64(need)
		}
		if possible != (err == nil) {
			t.Fatalf("possible %v, error %v", possible, err)
		}
		if err == nil {
			checkFits(t, plan, need, units)
		}
		shuffled := append([]UnitRoom(nil), units...)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, err2 := Plan(req, shuffled)
		if fmt.Sprint(plan, err) != fmt.Sprint(again, err2) {
			t.Fatalf("order matters: %v %v, then %v %v", plan, err, again, err2)
		}
	})
}

func checkFits(t *rapid.T, plan []fsm.Copy, need uint32, units []UnitRoom) {
	if len(plan) != 1 {
		t.Fatalf("%d copies", len(plan))
	}
	free := map[san.MediumID]uint32{}
	for _, u := range units {
		if u.ID == plan[0].Unit {
			if u.Unfit != "" {
				t.Fatalf("placed on %s, which is %s", u.ID, u.Unfit)
			}
			for _, m := range u.Media {
				free[m.ID] = m.FreeExtents
			}
		}
	}
	sum := uint32(0)
	for _, s := range plan[0].Slices {
		if s.Extents == 0 || s.Extents > free[s.Medium] {
			t.Fatalf("slice %v, free %d", s, free[s.Medium])
		}
		free[s.Medium] = 0
		sum += s.Extents
	}
	if sum != need {
		t.Fatalf("%d extents planned, %d needed", sum, need)
	}
}

// TestGrowGolden shows each rule of a growth by one case; the plans are in testdata/growths.txt.
func TestGrowGolden(t *testing.T) {
	volume := func(state fsm.VolumeState, extents int64, slices ...fsm.Slice) *fsm.Volume {
		return &fsm.Volume{ID: "v", Name: "db1", State: state, SizeBytes: extents * san.ExtentSizeBytes, BlockSizeBytes: 512,
			Copies: []fsm.Copy{{Unit: "u1", Role: fsm.RolePrimary, State: fsm.CopyInSync, Slices: slices}}}
	}
	on := func(medium string, n uint32) fsm.Slice { return fsm.Slice{Medium: san.MediumID(medium), Extents: n} }
	away := unit("u1", medium("m1", 100, 100))
	away.Away = "not online (Stopped)"
	two := volume(fsm.VolumeReady, 20, on("m1", 15), on("m2", 5))
	cases := []struct {
		name    string
		vol     *fsm.Volume
		extents int64
		units   []UnitRoom
	}{
		{"the medium that it ends on, however full", two, 30, []UnitRoom{unit("u1", medium("m1", 90, 100), medium("m2", 10, 100), medium("m3", 100, 100))}},
		{"else one that it is on", two, 31, []UnitRoom{unit("u1", medium("m1", 12, 100), medium("m2", 10, 100), medium("m3", 100, 100))}},
		{"else any one, the greatest share first", two, 33, []UnitRoom{unit("u1", medium("m1", 12, 100), medium("m2", 10, 100), medium("m3", 50, 100), medium("m4", 40, 50))}},
		{"else as few as will do", two, 120, []UnitRoom{unit("u1", medium("m1", 12, 100), medium("m2", 10, 100), medium("m3", 50, 100), medium("m4", 40, 50))}},
		{"the same size again, whatever its unit does", two, 20, []UnitRoom{away}},
		{"only on its own unit", two, 200, []UnitRoom{unit("u1", medium("m1", 12, 100)), unit("u2", medium("m9", 1000, 1000))}},
		{"to the size that it has", two, 20, []UnitRoom{unit("u1", medium("m1", 0, 100))}},
		{"a unit that is away", two, 21, []UnitRoom{away}},
		{"a unit that is gone", two, 21, nil},
		{"smaller", two, 19, []UnitRoom{unit("u1", medium("m1", 90, 100))}},
		{"once more, before it is confirmed", volume(fsm.VolumeGrowing, 20, on("m1", 20)), 21, []UnitRoom{unit("u1", medium("m1", 90, 100))}},
		{"while it is made", volume(fsm.VolumeCreating, 20, on("m1", 20)), 21, []UnitRoom{unit("u1", medium("m1", 90, 100))}},
		{"while it is deleted", volume(fsm.VolumeDeleting, 20, on("m1", 20)), 21, []UnitRoom{unit("u1", medium("m1", 90, 100))}},
	}
	var b strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&b, "# %s\n", c.name)
		plan, err := Grow(c.vol, c.extents*san.ExtentSizeBytes, c.units)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n\n", san.KindOf(err), err)
			continue
		}
		for _, g := range plan {
			fmt.Fprintf(&b, "%s:", g.Unit)
			for _, s := range g.Slices {
				fmt.Fprintf(&b, " %s=%d", s.Medium, s.Extents)
			}
		}
		b.WriteString("\n\n")
	}
	// What is left of the last extent is used before another is taken.
	odd := volume(fsm.VolumeReady, 20, on("m1", 20))
	odd.SizeBytes -= 1024
	for _, size := range []int64{odd.SizeBytes + 512, odd.SizeBytes + 1024, odd.SizeBytes + 1536} {
		plan, err := Grow(odd, size, []UnitRoom{unit("u1", medium("m1", 1, 100))})
		fmt.Fprintf(&b, "# by %d bytes, 1024 are left\n%v %v\n\n", size-odd.SizeBytes, plan, err)
	}
	golden(t, filepath.Join("testdata", "growths.txt"), b.String())
}

// TestGrowProperties: a growth fits, is exact, names no medium twice, and there is one exactly if
// the unit has the room.
func TestGrowProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := unit("u1")
		free := map[san.MediumID]uint32{}
		total := uint32(0)
		for i := range rapid.IntRange(1, 5).Draw(t, "media") {
			m := medium(fmt.Sprintf("m%d", i), rapid.Uint32Range(0, 40).Draw(t, "free"), 60)
			u.Media, free[m.ID], total = append(u.Media, m), m.FreeExtents, total+m.FreeExtents
		}
		vol := &fsm.Volume{Name: "v", State: fsm.VolumeReady, SizeBytes: san.ExtentSizeBytes, BlockSizeBytes: 512,
			Copies: []fsm.Copy{{Unit: "u1", Slices: []fsm.Slice{{Medium: u.Media[0].ID, Extents: 1}}}}}
		need := rapid.Uint32Range(1, 120).Draw(t, "need")
		plan, err := Grow(vol, int64(1+need)*san.ExtentSizeBytes, []UnitRoom{u})
		if (err == nil) != (need <= total) {
			t.Fatalf("%d of %d extents: %v", need, total, err)
		}
		if err != nil {
			return
		}
		sum := uint32(0)
		for _, s := range plan[0].Slices {
			if s.Extents == 0 || s.Extents > free[s.Medium] {
				t.Fatalf("slice %v of %v", s, free)
			}
			delete(free, s.Medium)
			sum += s.Extents
		}
		if sum != need || len(plan) != 1 {
			t.Fatalf("%v for %d extents", plan, need)
		}
	})
}
