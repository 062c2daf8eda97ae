package extent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

const (
	testExtentBytes = 4096
	// testExtents needs three table pages.
	testExtents   = 400
	testDiskBytes = 2<<20 + testExtents*testExtentBytes
	mediumID      = san.MediumID("11111111-1111-4111-8111-111111111111")
	clusterID     = san.ClusterID("22222222-2222-4222-8222-222222222222")
)

var owner = extent.Expect{Cluster: clusterID, Unit: "unit-1"}

func params() extent.Params {
	return extent.Params{Medium: mediumID, Cluster: clusterID, Unit: "unit-1", Incarnation: 1,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ExtentSizeBytes: testExtentBytes}
}

func volumeID(n byte) san.VolumeID {
	return san.VolumeID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n))
}

// pattern is what volume n writes into each of its extents.
func pattern(n byte) []byte { return bytes.Repeat([]byte{n}, testExtentBytes) }

// world is a medium under a scripted load, with what was acknowledged so far.
type world struct {
	power     *disktest.Power
	disk      *disktest.Disk
	m         *extent.Medium
	formatted bool
	owned     map[byte]uint32 // acknowledged extents per volume
	written   map[byte]bool   // acknowledged and made stable data
	inFlight  byte            // the volume that the present step changes, 0 for none
	noHoles   bool            // the medium can't punch holes: freed bytes stay
}

func newWorld() *world {
	p := disktest.NewPower()
	return &world{power: p, disk: p.NewDisk("m", testDiskBytes), owned: map[byte]uint32{}, written: map[byte]bool{}}
}

func (w *world) open() error {
	f, err := w.disk.Open()
	if err != nil {
		return err
	}
	w.m, err = extent.Open(disktest.WithFaults(f, func(op disktest.Op) error {
		if w.noHoles && op.Kind == disktest.OpPunch {
			return syscall.EIO
		}
		return nil
	}), owner)
	return err
}

func (w *world) format() error {
	f, err := w.disk.Open()
	if err != nil {
		return err
	}
	if err := extent.Format(f, params()); err != nil {
		return err
	}
	w.formatted = true
	return f.Close()
}

func (w *world) allocate(n byte, upTo uint32) error {
	w.inFlight = n
	first := w.owned[n]
	if _, err := w.m.Allocate(context.Background(), volumeID(n), first, upTo-first); err != nil {
		return err
	}
	w.owned[n], w.inFlight = upTo, 0
	return nil
}

func (w *world) write(n byte) error {
	extents := w.m.Extents(volumeID(n))
	for len(extents) > 0 { // one write for each run: each is a place to cut
		run := 1
		for run < len(extents) && extents[run].Index == extents[0].Index+uint32(run) {
			run++
		}
		if err := w.m.WriteAt(bytes.Repeat(pattern(n), run), w.m.OffsetBytes(extents[0].Index)); err != nil {
			return err
		}
		extents = extents[run:]
	}
	if err := w.m.Sync(); err != nil {
		return err
	}
	w.written[n] = true
	return nil
}

func (w *world) free(n byte) error {
	w.inFlight = n
	if err := w.m.Free(volumeID(n)); err != nil {
		return err
	}
	w.inFlight = 0
	delete(w.owned, n)
	delete(w.written, n)
	return nil
}

// script is a life that reuses freed extents, spans pages and touches pages repeatedly.
func (w *world) script() error {
	steps := []func() error{
		w.format, w.open,
		func() error { return w.allocate(1, 5) },
		func() error { return w.write(1) },
		func() error { return w.m.SetIncarnation(2) },
		func() error { return w.allocate(2, 300) },
		func() error { return w.write(2) },
		func() error { return w.free(1) },
		func() error { return w.allocate(3, 60) },
		func() error { return w.write(3) },
		func() error { return w.free(2) },
		func() error { return w.allocate(3, 340) },
		func() error { return w.m.SetIncarnation(3) },
		func() error { return w.allocate(4, 2) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// check opens the medium after a crash and holds it to the invariants.
func (w *world) check() error {
	err := w.open()
	if !w.formatted && errors.Is(err, extent.ErrNotFormatted) {
		w.power.Kill() // closes the file
		if err := w.format(); err != nil {
			return fmt.Errorf("a medium whose format was cut can't be formatted again: %w", err)
		}
		err = w.open()
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	total := uint32(0)
	seen := map[uint32]bool{}
	for n := byte(1); n <= 4; n++ {
		extents := w.m.Extents(volumeID(n))
		total += uint32(len(extents))
		if err := w.checkVolume(n, extents, seen); err != nil {
			return err
		}
	}
	if u := w.m.Usage(); u.Used != total || u.Extents != testExtents {
		return fmt.Errorf("usage %+v, but %d extents are owned", u, total)
	}
	return nil
}

func (w *world) checkVolume(n byte, extents []extent.Extent, seen map[uint32]bool) error {
	if got, want := uint32(len(extents)), w.owned[n]; n != w.inFlight && got != want {
		return fmt.Errorf("volume %d has %d extents, %d were acknowledged", n, got, want)
	}
	logicals := map[uint32]bool{}
	for _, e := range extents {
		if seen[e.Index] || logicals[e.Logical] {
			return fmt.Errorf("extent %d of volume %d at %d is owned twice", e.Logical, n, e.Index)
		}
		seen[e.Index], logicals[e.Logical] = true, true
		got := make([]byte, testExtentBytes)
		if err := w.m.ReadAt(got, w.m.OffsetBytes(e.Index)); err != nil {
			return err
		}
		if own := bytes.Count(got, []byte{0}) + bytes.Count(got, []byte{n}); own != len(got) {
			return fmt.Errorf("volume %d reads %d bytes that it never wrote", n, len(got)-own)
		}
		mustHave := w.written[n] && n != w.inFlight && e.Logical < 60
		if mustHave && !bytes.Equal(got, pattern(n)) {
			return fmt.Errorf("volume %d lost stable data in extent %d", n, e.Logical)
		}
	}
	for l := range w.owned[n] {
		if !logicals[l] && n != w.inFlight {
			return fmt.Errorf("volume %d lost extent %d", n, l)
		}
	}
	return nil
}

// goOn takes up life again: the cut call is made again or undone, and what is free can
// all be had and reads as zeros.
func (w *world) goOn() error {
	if n := w.inFlight; n != 0 {
		if err := w.free(n); err != nil {
			return err
		}
	}
	u := w.m.Usage()
	got, err := w.m.Allocate(context.Background(), volumeID(9), 0, u.Extents-u.Used)
	if err != nil {
		return err
	}
	for _, e := range got {
		b := make([]byte, testExtentBytes)
		if err := w.m.ReadAt(b, w.m.OffsetBytes(e.Index)); err != nil {
			return err
		}
		if !bytes.Equal(b, make([]byte, testExtentBytes)) {
			return fmt.Errorf("extent %d is given out with bytes in it", e.Index)
		}
	}
	if _, err := w.m.Allocate(context.Background(), volumeID(10), 0, 1); !errors.Is(err, disk.ErrNoSpace) {
		return fmt.Errorf("a full medium said %w", err)
	}
	return nil
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 3
	}
	for k, done := 1, false; !done; k++ {
		for seed := range seeds {
			w := newWorld()
			w.noHoles = seed%2 == 0
			w.power.CutAt(k)
			err := w.script()
			if done = err == nil; !done && !errors.Is(err, disktest.ErrPowerCut) {
				t.Fatalf("cut at %d: %v", k, err)
			}
			w.power.Restore(seed)
			if err := w.check(); err != nil {
				t.Fatalf("cut at %d, seed %d: %v", k, seed, err)
			}
			if err := w.goOn(); err != nil {
				t.Fatalf("cut at %d, seed %d, going on: %v", k, seed, err)
			}
		}
	}
}

// A killed process leaves half-made changes in the cache; then the power goes while its
// successor opens the medium or makes its first change.
func TestKillThenPowerCut(t *testing.T) {
	for k, done := 1, false; !done; k += 3 {
		for cut := 1; cut <= 10; cut += 3 {
			w := newWorld()
			w.power.CutAt(k)
			done = w.script() == nil
			w.power.Kill()
			if err := w.check(); err != nil {
				t.Fatalf("kill at %d: %v", k, err)
			}
			w.power.CutAt(w.power.Ops() + cut)
			if w.inFlight == 0 {
				_ = w.allocate(4, 7)
			} else {
				_ = w.free(w.inFlight)
			}
			w.power.Restore(uint64(k*100 + cut))
			if err := w.check(); err != nil {
				t.Fatalf("kill at %d, then cut at +%d: %v", k, cut, err)
			}
		}
	}
}
