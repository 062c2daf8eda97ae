package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/initiator"
)

// grow tells the unit that a volume that it has is to have so many bytes.
func (w *world) grow(volume string, sizeBytes int64) {
	w.t.Helper()
	r := w.replica(volume, sizeBytes)
	r[0].Grow = true
	w.station.forgetReports()
	w.station.want(r)
}

// wantGrown waits for the confirmation of a size.
func (w *world) wantGrown(volume string, sizeBytes int64) {
	w.t.Helper()
	if r := w.station.reported(pb.ReportKind_REPORT_KIND_REPLICA_READY, volume, "", 0); r.SizeBytes != sizeBytes {
		w.t.Errorf("the unit confirms %d bytes, want %d", r.SizeBytes, sizeBytes)
	}
}

// lastLBA reads the capacity by a bare READ CAPACITY (16).
func lastLBA(t *testing.T, s *initiator.Session) (uint64, error) {
	t.Helper()
	cmd := initiator.Command{LUN: 0, CDB: cdb.ReadCapacity16(cdb.Capacity16Length), In: make([]byte, cdb.Capacity16Length)}
	r, err := s.Execute(t.Context(), &cmd)
	if err == nil {
		err = r.Err("read capacity")
	}
	if err != nil {
		return 0, err
	}
	c, err := cdb.ParseCapacity16(cmd.In[:r.InBytes])
	return c.LastLBA, err
}

// Two sessions of one host are each told once, none is cut, and what was written stays.
func TestGrowOnline(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	var sessions []*initiator.Session
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := initiator.Dial(ctx, w.initiator(volumeA, "a", hostA))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if _, err := initiator.OpenDevice(t.Context(), s, 0); err != nil { // takes 29/00
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	dev := w.mustLogin(volumeA, "a", hostA)
	pattern := bytes.Repeat([]byte{0xa5}, mib)
	if err := dev.WriteAt(t.Context(), pattern, 3*mib); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{4*mib + 512, 64 * mib, 64*mib + 4*mib - 512} {
		w.grow(volumeA, size)
		w.wantGrown(volumeA, size)
		for i, s := range sessions {
			_, err := lastLBA(t, s)
			if sense := senseOf(err); sense.Key != cdb.KeyUnitAttention || sense.ASC != cdb.ASCCapacityChanged {
				t.Errorf("session %d at %d bytes: %v, want 06/2A/09", i, size, err)
			}
			if last, err := lastLBA(t, s); err != nil || last != uint64(size)/512-1 {
				t.Errorf("session %d at %d bytes: last LBA %d, %v", i, size, last, err)
			}
		}
		// The library's device meets the attention, and has the new size from then on.
		if err := dev.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		if err := dev.WriteAt(t.Context(), pattern[:512], size-512); err != nil {
			t.Errorf("the last block of %d bytes: %v", size, err)
		}
		if dev.SizeBytes() != size {
			t.Errorf("the device has %d bytes, want %d", dev.SizeBytes(), size)
		}
	}
	got := make([]byte, mib)
	if err := dev.ReadAt(t.Context(), got, 3*mib); err != nil || !bytes.Equal(got, pattern) {
		t.Errorf("what was written before is not there: %v", err)
	}
	if err := dev.ReadAt(t.Context(), got, 8*mib); err != nil || !bytes.Equal(got, make([]byte, mib)) {
		t.Errorf("new bytes are not zero: %v", err)
	}
	w.shutdown()
}

func senseOf(err error) cdb.Sense {
	var e *initiator.SenseError
	if errors.As(err, &e) {
		return e.Sense
	}
	return cdb.Sense{}
}

// A unit that was told to grow and stopped before it could say so says so at its next start, and
// serves the new size from the first login.
func TestGrowThenRestart(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.grow(volumeA, 12*mib)
	w.wantGrown(volumeA, 12*mib)
	w.shutdown()
	w.station.forgetReports()
	w.start()
	w.wantGrown(volumeA, 12*mib)
	if dev := w.mustLogin(volumeA, "a", hostA); dev.SizeBytes() != 12*mib {
		t.Errorf("it has %d bytes", dev.SizeBytes())
	}
	// More than the unit has: the former size is served on.
	w.grow(volumeA, 1024*mib)
	r := w.station.reported(pb.ReportKind_REPORT_KIND_REPLICA_FAILED, volumeA, "", 0)
	if r.Error == "" {
		t.Error("the failure has no reason")
	}
	if dev := w.mustLogin(volumeA, "a", hostA); dev.SizeBytes() != 12*mib {
		t.Errorf("after a growth that failed it has %d bytes", dev.SizeBytes())
	}
	w.shutdown()
}
