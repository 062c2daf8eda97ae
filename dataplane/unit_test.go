package dataplane_test

import (
	"bytes"
	"testing"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
)

func TestLifeOfAVolume(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 8*mib)
	d := w.mustLogin(volumeA, "a", hostA)
	if d.SizeBytes() != 8*mib {
		t.Errorf("the volume has %d bytes", d.SizeBytes())
	}
	data := bytes.Repeat([]byte("sandbar!"), 512)
	if err := d.WriteAt(t.Context(), data, 4*mib); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := d.ReadAt(t.Context(), got, 4*mib); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read back: %v, equal: %v", err, bytes.Equal(got, data))
	}

	release := access(volumeA, "a", 2, hostA)
	release.Release = true
	w.station.want(nil, release)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeA, "a", 2)
	if err := d.WriteAt(t.Context(), data, 0); err == nil {
		t.Error("a session outlived the release")
	}
	if _, err := w.login(volumeA, "a", hostA); err == nil {
		t.Error("a login after the release was let in")
	}

	gone := w.replica(volumeA, 8*mib)
	gone[0].Deleted = true
	w.station.want(gone)
	w.station.reported(pb.ReportKind_REPORT_KIND_REPLICA_DELETED, volumeA, "", 0)

	w.give(volumeB, "a", hostA, 8*mib)
	d = w.mustLogin(volumeB, "a", hostA)
	if err := d.ReadAt(t.Context(), got, 4*mib); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Fatalf("a new volume shows what was there before (%v)", err)
	}
	w.shutdown()
	w.station.wait("goodbye", func() bool { return len(w.station.goodbyes) == 1 })
}
