package controlplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// answer says that every host that a volume is assigned to has read seven blocks.
func (u *testUnit) answer(q *pb.Question) *pb.Answer {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mute {
		return nil
	}
	if q.GetUnitStats() != nil {
		st := &pb.UnitStats{UnitId: u.id, Io: &pb.IOStats{Reads: &pb.IOFigures{Commands: 9}}}
		for _, a := range u.assignments {
			st.Volumes = append(st.Volumes, &pb.UnitVolumeStats{VolumeId: a.VolumeId, SessionCount: 1})
		}
		return &pb.Answer{Id: q.Id, Answer: &pb.Answer_UnitStats{UnitStats: &pb.UnitStatsAnswer{Stats: st}}}
	}
	volume := q.GetVolumeStats().GetVolumeId()
	var st *pb.VolumeStats
	for _, a := range u.assignments {
		if a.VolumeId != volume {
			continue
		}
		reads := func() *pb.IOStats {
			return &pb.IOStats{Reads: &pb.IOFigures{Commands: 7, Bytes: 7 * 512}}
		}
		st = &pb.VolumeStats{VolumeId: volume, At: timestamppb.Now(), Since: timestamppb.Now(), Io: reads(), Sessions: []*pb.SessionStats{{UnitId: u.id, HostId: a.HostId, Io: reads()}}}
		st.Io.Reads.Histogram = &pb.Histogram{Buckets: []uint32{10}, Counts: []uint64{7}, MaxNanos: 10}
	}
	return &pb.Answer{Id: q.Id, Answer: &pb.Answer_VolumeStats{VolumeStats: &pb.VolumeStatsAnswer{Stats: st}}}
}

// testStats: every station tells what a unit has counted, wherever the unit's stream is.
func testStats(t *testing.T, c *cluster) {
	admin := c.admin()
	addHost(t, admin, "hstats", "iqn.2004-10.com.example:hstats")
	u := c.unit("ustats", 1, 2000) // alone has room for what follows
	c.awaitUnit(admin, "ustats", "Online")
	vol, err := once(volumes(admin).CreateVolume, &pb.CreateVolumeRequest{Name: "measured", SizeBytes: 500 * extent, HostId: "hstats"})
	if err != nil || vol.Volume.Copies[0].UnitId != "ustats" {
		t.Fatalf("volume: %v, %v", vol, err)
	}
	if _, err := once(volumes(admin).CreateVolume, &pb.CreateVolumeRequest{Name: "unused", SizeBytes: 500 * extent}); err != nil {
		t.Fatal(err)
	}
	c.await("the assignment", func() error {
		v, err := show(admin, "measured")
		if err == nil && v.Assignments[0].State != "Assigned" {
			err = fmt.Errorf("%v", v.Assignments)
		}
		return err
	})
	eye, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "stats-eye", Role: "viewer"})
	other, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "stats-h2", Role: "provisioner", HostId: "h2"})
	for i := range c.stations {
		cl := c.at(i, eye)
		got, err := once(volumes(cl).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: "measured", Histograms: true})
		if err != nil {
			t.Fatalf("station %d: %v", i+1, err)
		}
		st := got.Stats
		if st.VolumeId != vol.Volume.Id || st.VolumeName != "measured" || st.Io.Reads.Commands != 7 || st.Io.Reads.Latency.GetP99Micros() != 1 || st.Io.Reads.Histogram.GetMaxNanos() != 10 ||
			st.Since == nil || len(st.Sessions) != 1 || st.Sessions[0].HostId != "hstats" || st.Sessions[0].UnitId != "ustats" || st.Io.Writes == nil {
			t.Errorf("station %d: %v", i+1, st)
		}
		got, err = once(volumes(cl).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: vol.Volume.Id})
		if err != nil || got.Stats.Io.Reads.Histogram != nil || got.Stats.Io.Reads.Latency == nil {
			t.Errorf("station %d, without histograms: %v, %v", i+1, got, err)
		}
		got, err = once(volumes(cl).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: "unused"})
		if err != nil || len(got.Stats.Sessions) != 0 || got.Stats.Since != nil || got.Stats.Io.Reads.Commands != 0 {
			t.Errorf("station %d, a volume that no host has: %v, %v", i+1, got, err)
		}
		if _, err := once(volumes(cl).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: "none"}); san.KindOf(err) != san.KindNotFound {
			t.Errorf("station %d, no such volume: %v", i+1, err)
		}
		if _, err := once(volumes(c.at(i, other)).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: "measured"}); san.KindOf(err) != san.KindNotFound {
			t.Errorf("station %d, another host's volume: %v", i+1, err)
		}
		whole, err := once(units(cl).GetUnitStats, &pb.GetUnitStatsRequest{Id: "ustats"})
		if err != nil || whole.Stats.Io.Reads.Commands != 9 || len(whole.Stats.Volumes) != 1 || whole.Stats.Volumes[0].VolumeName != "measured" {
			t.Errorf("station %d, the unit: %v, %v", i+1, whole, err)
		}
		if _, err := once(units(cl).GetUnitStats, &pb.GetUnitStatsRequest{Id: "none"}); san.KindOf(err) != san.KindNotFound {
			t.Errorf("station %d, no such unit: %v", i+1, err)
		}
		if _, err := once(units(c.at(i, other)).GetUnitStats, &pb.GetUnitStatsRequest{Id: "ustats"}); san.KindOf(err) != san.KindDenied {
			t.Errorf("station %d, a unit asked for by a provisioner: %v", i+1, err)
		}
	}
	testUnitAway(t, c, u)
}

// testUnitAway: a unit that can't be asked is named, soon.
func testUnitAway(t *testing.T, c *cluster, u *testUnit) {
	refused := func(i int, says string) error {
		began := time.Now()
		_, err := once(volumes(c.at(i, c.read("admin.token"))).GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: "measured"})
		if san.KindOf(err) != san.KindUnavailable || !strings.Contains(err.Error(), says) || time.Since(began) > 10*time.Second {
			return fmt.Errorf("%v after %v, want %q", err, time.Since(began), says)
		}
		return nil
	}
	u.mu.Lock()
	u.mute = true
	u.mu.Unlock()
	if err := refused(0, "unit ustats did not answer"); err != nil {
		t.Errorf("a mute unit: %v", err)
	}
	u.end()
	c.awaitUnit(c.admin(), "ustats", "Stopped")
	for i := range c.stations { // those that follow may hear of it later
		c.await("a refusal", func() error { return refused(i, "unit ustats is Stopped") })
		if _, err := once(units(c.at(i, c.read("admin.token"))).GetUnitStats, &pb.GetUnitStatsRequest{Id: "ustats"}); san.KindOf(err) != san.KindUnavailable {
			t.Errorf("a stopped unit, station %d: %v", i+1, err)
		}
	}
}
