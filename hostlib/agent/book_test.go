package agent

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/san"
)

// TestJudgeFollowsTheTables: stations show the tables as they were at some moment, in any order. What the
// host keeps is always what the newest of them says.
func TestJudgeFollowsTheTables(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := []tables{{}} // the tables at each index
		for i := range rapid.IntRange(1, 12).Draw(rt, "changes") {
			history = append(history, history[i].change(rt, uint64(i+1)))
		}
		now, newest := state.State{Host: "host-1"}, 0
		for range rapid.IntRange(1, 20).Draw(rt, "messages") {
			index := rapid.IntRange(0, len(history)-1).Draw(rt, "index")
			v, err := judge(now, history[index].full(uint64(index)))
			if err != nil {
				if index >= newest {
					rt.Fatalf("state %d was refused after %d: %v", index, newest, err)
				}
				continue
			}
			now = v.next
			newest = max(newest, index)
			if len(now.Assignments) > len(history[newest]) {
				rt.Fatalf("more than there are: %+v, tables %v", now.Assignments, history[newest])
			}
			for id, row := range history[newest] {
				a := now.Find(id)
				if index == newest && (a == nil || uint64(a.Generation) != row.generation) {
					rt.Fatalf("%s is %+v, the tables at %d say generation %d", id, a, newest, row.generation)
				}
				if a != nil && uint64(a.Stamp.Index) > row.stamp {
					rt.Fatalf("%s has a stamp of nowhere", id)
				}
			}
			if index == newest && len(v.reports) != len(history[newest]) {
				rt.Fatalf("%d reports for %d assignments", len(v.reports), len(history[newest]))
			}
			// What is in the file was so at the floor: an older state can't have changed it.
			for _, a := range now.Assignments {
				if row, ok := history[now.Floor.Index][string(a.Volume)]; !ok || row.generation != uint64(a.Generation) {
					rt.Fatalf("%+v was not so at the floor %v", a, now.Floor)
				}
			}
		}
	})
}

type row struct{ generation, stamp uint64 }

// tables are the assignments of the host by volume.
type tables map[string]row

func (s tables) change(rt *rapid.T, index uint64) tables {
	next := tables{}
	for id, r := range s {
		next[id] = r
	}
	id := fmt.Sprintf("id-%d", rapid.IntRange(0, 3).Draw(rt, "volume"))
	if r, ok := next[id]; ok && rapid.Bool().Draw(rt, "remove") {
		delete(next, id)
	} else {
		next[id] = row{generation: max(r.generation, index), stamp: index}
	}
	return next
}

func (s tables) full(index uint64) *pb.DesiredState {
	m := &pb.DesiredState{Full: true, Stamp: &pb.Stamp{ClusterGeneration: 1, Index: index}}
	for id, r := range s {
		m.Assignments = append(m.Assignments, desired(id, r.generation, r.stamp))
	}
	return m
}

func desired(id string, generation, stamp uint64) *pb.DesiredAssignment {
	return &pb.DesiredAssignment{
		Stamp: &pb.Stamp{ClusterGeneration: 1, Index: stamp}, VolumeId: id, HostId: "host-1", Generation: generation, VolumeName: "data",
		SizeBytes: 1 << 20, BlockSizeBytes: 512, Paths: []*pb.DesiredPath{{UnitId: "unit-1", TargetIqn: "iqn.2026-11.io.sandbar:x", EndLba: 2047}},
	}
}

func TestJudgeRefusesByObject(t *testing.T) {
	at := func(index uint64, list ...*pb.DesiredAssignment) *pb.DesiredState {
		return &pb.DesiredState{Stamp: &pb.Stamp{ClusterGeneration: 1, Index: index}, Assignments: list}
	}
	start := func() state.State {
		v, err := judge(state.State{Host: "host-1"}, at(10, desired("a", 5, 10)))
		if err != nil || len(v.next.Assignments) != 1 {
			t.Fatal(v, err)
		}
		return v.next
	}
	edit := func(f func(*pb.DesiredAssignment)) *pb.DesiredAssignment {
		d := desired("a", 6, 11)
		f(d)
		return d
	}
	for name, c := range map[string]struct {
		d          *pb.DesiredAssignment
		kept       int
		generation san.Generation
		kind       pb.ReportKind // of the report, 0 for none
	}{
		"newer":            {edit(func(*pb.DesiredAssignment) {}), 1, 6, ready},
		"lower stamp":      {edit(func(d *pb.DesiredAssignment) { d.Stamp.Index = 9 }), 1, 5, 0},
		"lower generation": {edit(func(d *pb.DesiredAssignment) { d.Generation = 4 }), 1, 5, 0},
		"stale release":    {edit(func(d *pb.DesiredAssignment) { d.Release, d.Stamp.Index = true, 9 }), 1, 5, 0},
		"release":          {edit(func(d *pb.DesiredAssignment) { d.Release = true }), 0, 0, 0},
		"gone":             {edit(func(d *pb.DesiredAssignment) { d.Gone = true }), 0, 0, 0},
		"another host's":   {edit(func(d *pb.DesiredAssignment) { d.HostId = "host-2" }), 1, 5, failed},
		"no paths":         {edit(func(d *pb.DesiredAssignment) { d.Paths = nil }), 1, 5, failed},
		"no target":        {edit(func(d *pb.DesiredAssignment) { d.Paths[0].TargetIqn = "x" }), 1, 5, failed},
		"odd size":         {edit(func(d *pb.DesiredAssignment) { d.SizeBytes++ }), 1, 5, failed},
		"long name":        {edit(func(d *pb.DesiredAssignment) { d.VolumeName = string(make([]byte, 600)) }), 1, 5, failed},
		"LBAs backwards":   {edit(func(d *pb.DesiredAssignment) { d.Paths[0].StartLba = 9999 }), 1, 5, failed},
	} {
		v, err := judge(start(), at(11, c.d))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(v.next.Assignments) != c.kept || c.kept > 0 && v.next.Assignments[0].Generation != c.generation {
			t.Errorf("%s: kept %+v", name, v.next.Assignments)
		}
		if c.kind == 0 && len(v.reports) != 0 || c.kind != 0 && (len(v.reports) != 1 || v.reports[0].Kind != c.kind) {
			t.Errorf("%s: reports %v", name, v.reports)
		}
	}
}
