package fsm_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/fsm/fsmtest"
	"github.com/sandbar-san/sandbar/san"
)

// model predicts what the machine may accept: who has which volume, and how much of each medium is
// taken. It knows nothing of tables.
type model struct {
	env  *fsmtest.Env
	free map[san.MediumID]uint32
	vols map[string]*modelVolume
}

type modelVolume struct {
	unit     san.UnitID
	size     int64
	ready    bool // made; growing or not
	taken    map[san.MediumID]uint32
	host     san.HostID // that has it, or is releasing it
	release  bool
	deleting bool
}

var modelMedia = map[san.UnitID][]san.MediumID{"u1": {"m1", "m2"}, "u2": {"m3"}}

func newModel(t *rapid.T) *model {
	m := &model{env: fsmtest.New(), free: map[san.MediumID]uint32{}, vols: map[string]*modelVolume{}}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.env.Bootstrap())
	for _, u := range []san.UnitID{"u1", "u2"} {
		var media []fsm.MediumInfo
		for _, id := range modelMedia[u] {
			media = append(media, fsm.MediumInfo{ID: id, CapacityExtents: 6})
			m.free[id] = 6
		}
		must(m.env.AddUnit(u, media...))
	}
	must(m.env.Do(&fsm.Enrol{Role: san.RoleHost, ID: "h1", CertSerial: "c", JoinToken: "hosts", Initiators: []string{"iqn.x:h1"}}))
	must(m.env.Do(&fsm.SetHostState{ID: "h1", CertSerial: "c", Incarnation: 1, State: fsm.HostOnline}))
	must(m.env.Do(&fsm.AddHost{ID: "h2", Initiators: []string{"iqn.x:h2"}}))
	return m
}

func (m *model) apply(t *rapid.T, c fsm.Command) error {
	r, err := m.env.Apply(c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	return r.Err
}

// expect compares what the machine said with what it should.
func expect(t *rapid.T, what string, ok bool, err error) {
	if ok != (err == nil) {
		t.Fatalf("%s: should work: %v; answer: %v", what, ok, err)
	}
}

func (m *model) id(name string) san.VolumeID {
	if v := m.env.Machine.View().VolumeByName(name); v != nil {
		return v.ID
	}
	return "gone"
}

func (m *model) create(t *rapid.T) {
	name, host := drawName(t), rapid.SampledFrom([]san.HostID{"", "h1", "h2"}).Draw(t, "host")
	unit := rapid.SampledFrom([]san.UnitID{"u1", "u2"}).Draw(t, "unit")
	taken := map[san.MediumID]uint32{}
	cp, sum, fits := fsm.Copy{Unit: unit, Role: fsm.RolePrimary}, uint32(0), true
	for _, id := range modelMedia[unit] {
		if n := rapid.Uint32Range(0, 5).Draw(t, "extents"); n > 0 {
			cp.Slices = append(cp.Slices, fsm.Slice{Medium: id, Extents: n})
			taken[id], sum, fits = n, sum+n, fits && n <= m.free[id]
		}
	}
	size := max(1, int64(sum)) * san.ExtentSizeBytes
	c := &fsm.CreateVolume{ID: san.VolumeID(fmt.Sprintf("%s-%d", name, len(m.env.Log))), Name: name, SizeBytes: size, BlockSizeBytes: 512,
		Copies: []fsm.Copy{cp}, Host: host, CHAPUser: "u", CHAPSecretSealed: []byte("s")}
	ok := fits && sum > 0 && m.vols[name] == nil
	expect(t, "create "+name, ok, m.apply(t, c))
	if ok {
		m.vols[name] = &modelVolume{unit: unit, size: size, taken: taken, host: host}
		for id, n := range taken {
			m.free[id] -= n
		}
	}
}

// grow asks for more, the same, or less room than the volume has, by a placement that may be wrong.
func (m *model) grow(t *rapid.T) {
	name := drawName(t)
	v := m.vols[name]
	unit := rapid.SampledFrom([]san.UnitID{"u1", "u2"}).Draw(t, "unit")
	add := fsm.CopyGrowth{Unit: unit}
	sum, fits := uint32(0), true
	for _, id := range modelMedia[unit] {
		if n := rapid.Uint32Range(0, 2).Draw(t, "extents"); n > 0 {
			add.Slices = append(add.Slices, fsm.Slice{Medium: id, Extents: n})
			sum, fits = sum+n, fits && n <= m.free[id]
		}
	}
	size, need := int64(san.ExtentSizeBytes), uint32(0)
	if v != nil {
		size = v.size + 512*rapid.Int64Range(-1, 2*san.ExtentSizeBytes/512).Draw(t, "blocks")
		if whole := rapid.Bool().Draw(t, "whole"); whole {
			size = int64(san.ExtentsFor(v.size)+sum) * san.ExtentSizeBytes
		}
		need = san.ExtentsFor(size) - min(san.ExtentsFor(size), san.ExtentsFor(v.size))
	}
	c := &fsm.GrowVolume{ID: m.id(name), SizeBytes: size}
	if sum > 0 {
		c.Copies = []fsm.CopyGrowth{add}
	}
	ok := v != nil && v.ready && !v.deleting && size >= v.size
	larger := ok && size > v.size
	ok = ok && (!larger || need == sum && fits && (sum == 0 || unit == v.unit))
	expect(t, fmt.Sprintf("grow %s to %d", name, size), ok, m.apply(t, c))
	if ok && larger {
		v.size = size
		for _, s := range add.Slices {
			v.taken[s.Medium] += s.Extents
			m.free[s.Medium] -= s.Extents
		}
	}
}

func drawName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name")
}

func (m *model) assign(t *rapid.T) {
	name, host := drawName(t), rapid.SampledFrom([]san.HostID{"h1", "h2"}).Draw(t, "host")
	v := m.vols[name]
	ok := v != nil && v.host == "" && !v.deleting
	expect(t, "assign "+name, ok, m.apply(t, &fsm.Assign{Volume: m.id(name), Host: host, CHAPUser: "u", CHAPSecretSealed: []byte("s")}))
	if ok {
		v.host = host
	}
}

func (m *model) unassign(t *rapid.T) {
	name, host := drawName(t), rapid.SampledFrom([]san.HostID{"h1", "h2"}).Draw(t, "host")
	v := m.vols[name]
	ok := v != nil && v.host == host
	expect(t, "unassign "+name, ok, m.apply(t, &fsm.Unassign{Volume: m.id(name), Host: host}))
	if ok {
		v.release = true
	}
}

func (m *model) delete(t *rapid.T) {
	name := drawName(t)
	v := m.vols[name]
	ok := v != nil && v.host == ""
	expect(t, "delete "+name, ok, m.apply(t, &fsm.DeleteVolume{ID: m.id(name)}))
	if ok {
		v.deleting = true
	}
}

// report commits some of what the agents have to say, sometimes twice, sometimes spoilt so that none of it may count.
func (m *model) report(t *rapid.T) {
	all := fsmtest.Agents(m.env.Machine.View())
	if len(all) == 0 {
		return
	}
	var some []fsm.Report
	for range rapid.IntRange(1, 3).Draw(t, "reports") {
		some = append(some, rapid.SampledFrom(all).Draw(t, "report"))
	}
	spoil := rapid.SampledFrom([]string{"", "", "", "cert", "generation", "agent"}).Draw(t, "spoil")
	before := m.env.Machine.View()
	for i := range some {
		switch spoil {
		case "cert":
			some[i].CertSerial = "stolen"
		case "generation":
			if some[i].Generation == 0 {
				some[i].CertSerial = "stolen" // of a copy: it has no generation
			}
			some[i].Generation--
		case "agent":
			some[i].Agent = "u9"
		}
	}
	if err := m.apply(t, &fsm.Reports{Reports: some}); err != nil {
		t.Fatalf("reports: %v", err)
	}
	if spoil != "" {
		if a, b := rowsText(before), rowsText(m.env.Machine.View()); a != b {
			t.Fatalf("reports with a wrong %s changed\n%s\ninto\n%s", spoil, a, b)
		}
		return
	}
	for _, r := range some {
		m.heard(before, r)
	}
}

// heard brings the model to what a true report means.
func (m *model) heard(before fsm.View, r fsm.Report) {
	name := before.Volume(r.Volume).Name
	v := m.vols[name]
	switch {
	case v == nil: // reported twice
	case r.Kind == fsm.ReportReplicaReady:
		v.ready = true
	case r.Kind == fsm.ReportReleased:
		v.host, v.release = "", false
	case r.Kind == fsm.ReportReplicaDeleted:
		for id, n := range v.taken {
			m.free[id] += n
		}
		delete(m.vols, name)
	}
}

func rowsText(v fsm.View) string {
	var b strings.Builder
	for _, vol := range v.Volumes() {
		fmt.Fprintf(&b, "%+v\n", *vol)
	}
	for _, a := range v.Assignments() {
		fmt.Fprintf(&b, "%+v\n", *a)
	}
	return b.String()
}

// agrees compares the model with the tables.
func (m *model) agrees(t *rapid.T) {
	v := m.env.Machine.View()
	if got := len(v.Volumes()); got != len(m.vols) {
		t.Fatalf("%d volumes, %d in the model", got, len(m.vols))
	}
	for _, md := range v.Media() {
		if md.FreeExtents() != m.free[md.ID] {
			t.Fatalf("medium %s has %d free, %d in the model", md.ID, md.FreeExtents(), m.free[md.ID])
		}
	}
	for name, mv := range m.vols {
		vol := v.VolumeByName(name)
		if vol.SizeBytes != mv.size || vol.ServedBytes() > mv.size || vol.State == fsm.VolumeReady && vol.ServedBytes() != mv.size {
			t.Fatalf("volume %s has %d bytes, serves %d, is %s; %d in the model", name, vol.SizeBytes, vol.ServedBytes(), vol.State, mv.size)
		}
		if (vol.State == fsm.VolumeDeleting) != mv.deleting {
			t.Fatalf("volume %s is %s, deleting in the model: %v", name, vol.State, mv.deleting)
		}
		var host san.HostID
		release := false
		for _, a := range v.AssignmentsOf(vol.ID) {
			host, release = a.Host, a.State == fsm.AssignmentReleasing
		}
		if host != mv.host || release != mv.release {
			t.Fatalf("volume %s is with %q (releasing %v), in the model with %q (%v)", name, host, release, mv.host, mv.release)
		}
	}
}

// step makes one random command.
func (m *model) step(t *rapid.T) {
	op := rapid.SampledFrom([]func(*rapid.T){m.create, m.create, m.grow, m.grow, m.assign, m.unassign, m.delete, m.report, m.report, m.report}).Draw(t, "op")
	op(t)
}

// TestModel: whatever comes in whatever order, room is never given twice, a volume never has two
// hosts, and what the machine accepts is what the model says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step(t)
			m.agrees(t)
		}
		if err := m.env.Settle(); err != nil {
			t.Fatal(err)
		}
		for _, a := range m.env.Machine.View().Assignments() {
			if a.State != fsm.AssignmentAssigned {
				t.Fatalf("all agents have reported and %s is %s", a.Volume, a.State)
			}
		}
	})
}

// TestReplay: the same log gives the same snapshot, byte for byte, with or without a restore somewhere on the
// way; and the changes that a watcher sees add up to the tables.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		_, sub, err := m.env.Machine.Watch()
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		tables := volumesOf(m.env.Machine.View())
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			m.step(t)
		}
		want, err := m.env.SnapshotBytes()
		if err != nil {
			t.Fatal(err)
		}
		follow(t, sub, tables, m.env.Machine.AppliedIndex())
		if got, want := fmt.Sprint(tables), fmt.Sprint(volumesOf(m.env.Machine.View())); got != want {
			t.Fatalf("the changes add up to\n%s\nthe tables have\n%s", got, want)
		}
		other := fsm.New()
		restoreAt := rapid.IntRange(0, len(m.env.Log)).Draw(t, "restore after")
		for i, entry := range m.env.Log {
			if i == restoreAt {
				other = throughSnapshot(t, other)
			}
			if _, err := other.Apply(san.Index(i+1), entry); err != nil {
				t.Fatal(err)
			}
		}
		var got bytes.Buffer
		if _, err := other.Snapshot().WriteTo(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, got.Bytes()) {
			t.Fatal("the same log gave two states")
		}
	})
}

func throughSnapshot(t *rapid.T, m *fsm.Machine) *fsm.Machine {
	var b bytes.Buffer
	if _, err := m.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	fresh := fsm.New()
	if err := fresh.Restore(&b); err != nil {
		t.Fatal(err)
	}
	return fresh
}

func volumesOf(v fsm.View) map[string]string {
	out := map[string]string{}
	for _, vol := range v.Volumes() {
		out[string(vol.ID)] = fmt.Sprintf("%+v", *vol)
	}
	return out
}

// follow applies the changes of volumes up to index to tables, checking that each begins where the last ended.
func follow(t *rapid.T, sub *fsm.Subscription, tables map[string]string, index san.Index) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what is there comes at once; nothing is waited for
	seen := san.Index(0)
	for {
		changes, err := sub.Next(ctx)
		if err != nil {
			return
		}
		for _, c := range changes {
			if c.Index < seen || c.Index > index {
				t.Fatalf("change of %d after %d, applied %d", c.Index, seen, index)
			}
			seen = c.Index
			if c.Table != fsm.TableVolumes {
				continue
			}
			if old, ok := c.Old.(*fsm.Volume); ok != (tables[c.ID] != "") || ok && fmt.Sprintf("%+v", *old) != tables[c.ID] {
				t.Fatalf("change of %s begins with %+v, not %s", c.ID, c.Old, tables[c.ID])
			}
			if now, ok := c.New.(*fsm.Volume); ok {
				tables[c.ID] = fmt.Sprintf("%+v", *now)
			} else {
				delete(tables, c.ID)
			}
		}
	}
}

// TestManyCreatorsNeverOverAllocate: many requests planned on one old view are all judged by what is
// left when their turn comes.
func TestManyCreatorsNeverOverAllocate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := fsmtest.New()
		capacity := rapid.Uint32Range(1, 50).Draw(t, "capacity")
		for _, err := range []error{env.Bootstrap(), env.AddUnit("u1", fsm.MediumInfo{ID: "m1", CapacityExtents: capacity})} {
			if err != nil {
				t.Fatal(err)
			}
		}
		sizes := rapid.SliceOfN(rapid.Uint32Range(1, 20), 1, 40).Draw(t, "sizes")
		given := uint32(0)
		for i, n := range sizes {
			err := env.Do(&fsm.CreateVolume{ID: san.VolumeID(fmt.Sprintf("v%d", i)), Name: fmt.Sprintf("v%d", i), SizeBytes: int64(n) * san.ExtentSizeBytes,
				BlockSizeBytes: 512, Copies: []fsm.Copy{{Unit: "u1", Role: fsm.RolePrimary, Slices: []fsm.Slice{{Medium: "m1", Extents: n}}}}})
			if fits := given+n <= capacity; fits != (err == nil) {
				t.Fatalf("%d of %d given, %d asked for: %v", given, capacity, n, err)
			} else if fits {
				given += n
			} else if san.KindOf(err) != san.KindNoSpace {
				t.Fatalf("refused as %v: %v", san.KindOf(err), err)
			}
		}
		if got := env.Machine.View().Medium("m1").ReservedExtents; got != given {
			t.Fatalf("%d reserved, %d given", got, given)
		}
	})
}

// TestViewsNeverChange: a view taken before a change still shows the state of then.
func TestViewsNeverChange(t *testing.T) {
	env := fsmtest.New()
	for _, err := range []error{env.Bootstrap(), env.AddUnit("u1", fsm.MediumInfo{ID: "m1", CapacityExtents: 100})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := env.Machine.View()
	audits := len(before.Audit(0, 1000))
	err := env.Do(&fsm.CreateVolume{H: fsm.Header{Principal: "p", RequestID: "r"}, ID: "v1", Name: "v1", SizeBytes: san.ExtentSizeBytes, BlockSizeBytes: 512,
		Copies: []fsm.Copy{{Unit: "u1", Role: fsm.RolePrimary, Slices: []fsm.Slice{{Medium: "m1", Extents: 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	after := env.Machine.View()
	if before.Volume("v1") != nil || len(before.Volumes()) != 0 || before.Medium("m1").ReservedExtents != 0 ||
		before.Request("p", "r") != nil || len(before.Audit(0, 1000)) != audits {
		t.Error("the old view changed")
	}
	if after.Volume("v1") == nil || after.Medium("m1").ReservedExtents != 1 || after.Request("p", "r") == nil ||
		len(after.Audit(0, 1000)) != audits+1 || len(after.Audit(after.Index(), 1000)) != 1 || len(after.Audit(0, 1)) != 1 {
		t.Error("the new view lacks the change")
	}
	if got := after.Stamp(7); got != (san.Stamp{ClusterGeneration: 1, Index: 7}) {
		t.Errorf("stamp %v", got)
	}
	if (fsm.View{}).Volume("v1") != nil || (fsm.View{}).Volumes() != nil || (fsm.View{}).Request("p", "r") != nil {
		t.Error("the zero view is not empty")
	}
	ids := []string{}
	for _, vol := range after.VolumesOn("u1") {
		ids = append(ids, string(vol.ID))
	}
	if !slices.Equal(ids, []string{"v1"}) {
		t.Errorf("volumes on u1: %v", ids)
	}
}
