package place

import (
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/fsm/fsmtest"
	"github.com/sandbar-san/sandbar/san"
)

// TestFromView fills a pool by what is planned on its views: each plan is accepted, spare, stopped and
// pending units get nothing, and the end is a refusal that says why of each.
func TestFromView(t *testing.T) {
	env := fsmtest.New()
	yes := true
	for _, err := range []error{
		env.Bootstrap(),
		env.AddUnit("u1", fsm.MediumInfo{ID: "m1", CapacityExtents: 10}, fsm.MediumInfo{ID: "m2", CapacityExtents: 10}),
		env.AddUnit("u2", fsm.MediumInfo{ID: "m3", CapacityExtents: 10}),
		env.AddUnit("u3", fsm.MediumInfo{ID: "m4", CapacityExtents: 1000}),
		env.AddUnit("u4", fsm.MediumInfo{ID: "m5", CapacityExtents: 1000}),
		env.Do(&fsm.CreateJoinToken{Token: fsm.JoinToken{ID: "pending", Name: "pending", Role: san.RoleUnit, SecretHash: []byte("h")}}),
		env.Do(&fsm.Enrol{Role: san.RoleUnit, ID: "u5", CertSerial: "c", JoinToken: "pending"}),
		env.Do(&fsm.SetUnit{ID: "u3", Spare: &yes}),
		env.Do(&fsm.SetUnitState{ID: "u4", Incarnation: 1, State: fsm.UnitStopped}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var units []string
	for i := range 9 {
		plan, err := FromView(env.Machine.View(), mib(12))
		if err != nil {
			t.Fatalf("volume %d: %v", i, err)
		}
		units = append(units, string(plan[0].Unit))
		id := "v" + string(rune('a'+i))
		if err := env.Do(&fsm.CreateVolume{ID: san.VolumeID(id), Name: id, SizeBytes: 12 << 20, BlockSizeBytes: 512, Copies: plan}); err != nil {
			t.Fatalf("volume %d: %v", i, err)
		}
	}
	if got, want := strings.Join(units, " "), "u1 u2 u1 u1 u2 u1 u1 u2 u1"; got != want {
		t.Errorf("placed on %s, want %s", got, want)
	}
	_, err := FromView(env.Machine.View(), mib(12))
	if san.KindOf(err) != san.KindNoSpace {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"u1: full, needs 12MiB, has 8MiB", "u2: full, needs 12MiB, has 4MiB", "u3: spare", "u4: not online (Stopped)", "u5: not approved"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}
