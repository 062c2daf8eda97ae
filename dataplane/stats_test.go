package dataplane_test

import (
	"bytes"
	"testing"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/iostats"
)

func TestAUnitTellsWhatItCounted(t *testing.T) {
	w := newWorld(t)
	if st := w.station.stats(volumeA); st != nil {
		t.Errorf("of a volume that is not there: %v", st)
	}
	w.give(volumeA, "a", hostA, 8*mib)
	w.give(volumeB, "b", hostB, 8*mib)
	d, other := w.mustLogin(volumeA, "a", hostA), w.mustLogin(volumeB, "b", hostB)
	before := w.station.stats(volumeA)
	data := bytes.Repeat([]byte("sandbar!"), 512)
	for i := range 3 {
		if err := d.WriteAt(t.Context(), data, int64(i)*mib); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if err := d.ReadAt(t.Context(), data, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.ReadAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	st := w.station.stats(volumeA)
	did := iostats.Between(before, st).Io
	if r, wr, o := did.Reads, did.Writes, did.Other; r.Commands != 5 || r.Bytes != 5*4096 || wr.Commands != 3 || wr.Bytes != 3*4096 || o.Commands != 1 || r.Errors+wr.Errors+o.Errors != 0 {
		t.Errorf("counted %v", did)
	}
	if st.Io.Reads.Latency.GetMaxMicros() == 0 || iostats.Counts(st.Io.Writes.Histogram).N() != 3 || st.Io.QueueDepth != 0 || st.Io.QueueDepthMax == 0 {
		t.Errorf("latencies and depth: %v", st.Io)
	}
	if !st.At.AsTime().After(st.Since.AsTime()) || len(st.Sessions) != 1 {
		t.Fatalf("figures %v", st)
	}
	if s := st.Sessions[0]; s.HostId != "a" || s.Initiator != hostA || s.UnitId != "u1" || s.Address == "" || s.Since == nil || s.Io.Reads.Commands < 5 {
		t.Errorf("session %v", s)
	}
	unit := w.station.ask(&pb.Question{Question: &pb.Question_UnitStats{UnitStats: &pb.UnitStatsQuestion{}}}).GetUnitStats().GetStats()
	if b := w.station.stats(volumeB); unit.UnitId != "u1" || len(unit.Volumes) != 2 || unit.Io.Reads.Commands != st.Io.Reads.Commands+b.Io.Reads.Commands || unit.Io.Writes.Commands != 3 ||
		unit.Io.Reads.Latency.GetMaxMicros() == 0 || unit.Volumes[0].SessionCount+unit.Volumes[1].SessionCount != 2 {
		t.Errorf("the unit as a whole: %v", unit)
	}
	// What a session did stays counted when it is over, and the rates come once an interval has been whole.
	release := access(volumeA, "a", 2, hostA)
	release.Release = true
	w.station.want(nil, release)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeA, "a", 2)
	after := w.station.stats(volumeA)
	if after.Io.Writes.Commands != 3 || len(after.Sessions) != 0 || !after.Since.AsTime().Equal(st.Since.AsTime()) {
		t.Errorf("after the release: %v", after)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); after.Io.IntervalMillis == 0; after = w.station.stats(volumeA) {
		if <-tick.C; time.Now().After(end) {
			t.Fatal("there are no rates")
		}
	}
	if n := after.Io.IntervalMillis; n < 500 || n > 5000 {
		t.Errorf("the rates are over %d ms", n)
	}
}
