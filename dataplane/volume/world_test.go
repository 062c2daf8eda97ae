package volume_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	extentBytes = 4096
	mediaCount  = 2
	// mediumExtents is small, so that freed extents are soon used again.
	mediumExtents = 12
)

func mediumID(i int) san.MediumID {
	return san.MediumID(fmt.Sprintf("%08x-1111-4111-8111-111111111111", i+1))
}

func volumeID(n byte) san.VolumeID {
	return san.VolumeID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n))
}

// specOf is a volume with so many extents on each medium; its last extent is not full.
func specOf(n byte, extents ...uint32) volume.Spec {
	s := volume.Spec{ID: volumeID(n), BlockSizeBytes: 512, SizeBytes: -512}
	for i, count := range extents {
		if count > 0 {
			s.Slices = append(s.Slices, volume.Slice{Medium: mediumID(i), Extents: count})
			s.SizeBytes += int64(count) * extentBytes
		}
	}
	return s
}

// plus is a spec that continues s by the slices; a slice on s's last medium makes its last slice longer. size says by
// how many bytes.
func plus(s volume.Spec, sizeBytes int64, more ...volume.Slice) volume.Spec {
	s.Slices, s.SizeBytes = slices.Clone(s.Slices), s.SizeBytes+sizeBytes
	for _, sl := range more {
		if last := &s.Slices[len(s.Slices)-1]; last.Medium == sl.Medium {
			last.Extents += sl.Extents
			continue
		}
		s.Slices = append(s.Slices, sl)
	}
	return s
}

// unit is the storage of one unit in memory.
type unit struct {
	power   *disktest.Power
	disks   []*disktest.Disk
	dir     *disktest.Dir
	rule    disktest.Rule // nil: no faults
	media   []*extent.Medium
	manager *volume.Manager
	// journal is the size of a replica's journal, 0 for the default.
	journal int64
}

// newUnit returns one with formatted media and nothing on them.
func newUnit(t testing.TB) *unit {
	t.Helper()
	p := disktest.NewPower()
	u := &unit{power: p, dir: p.NewDir("records")}
	for i := range mediaCount {
		d := p.NewDisk(fmt.Sprint("medium", i), 2<<20+mediumExtents*extentBytes)
		f, err := d.Open()
		if err != nil {
			t.Fatal(err)
		}
		err = extent.Format(f, extent.Params{Medium: mediumID(i), Cluster: "c", Unit: "u", Created: time.Unix(0, 0), ExtentSizeBytes: extentBytes})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		u.disks = append(u.disks, d)
	}
	return u
}

// start opens everything, as a unit does when it boots.
func (u *unit) start() error {
	u.media = nil
	for _, d := range u.disks {
		f, err := d.Open()
		if err != nil {
			return err
		}
		if u.rule != nil {
			f = disktest.WithFaults(f, func(op disktest.Op) error { return u.rule(op) })
		}
		m, err := extent.Open(f, extent.Expect{Cluster: "c", Unit: "u"})
		if err != nil {
			return err
		}
		u.media = append(u.media, m)
	}
	d, err := u.dir.Open()
	if err != nil {
		return err
	}
	if u.rule != nil {
		d = disktest.DirWithFaults(d, func(op disktest.Op) error { return u.rule(op) })
	}
	u.manager, err = volume.Open(volume.Config{Media: u.media, Records: d, JournalBytes: u.journal, Log: slog.New(slog.DiscardHandler)})
	return err
}

func startUnit(t testing.TB) *unit {
	t.Helper()
	u := newUnit(t)
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	return u
}

// used returns the extents in use on all media.
func (u *unit) used() (n uint32) {
	for _, m := range u.media {
		n += m.Usage().Used
	}
	return n
}

// recorded returns the extents that the volumes on the unit have by StorageInfo.
func (u *unit) recorded() (n uint32) {
	for _, v := range u.manager.StorageInfo().Volumes {
		for _, r := range v.Runs {
			n += uint32(r.LengthBlocks * extent.BlockSizeBytes / extentBytes)
		}
	}
	return n
}

func mustCreate(t testing.TB, u *unit, s volume.Spec) *volume.Replica {
	t.Helper()
	r, err := u.manager.Create(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(r *volume.Replica) ([]byte, error) {
	b := make([]byte, r.SizeBytes())
	return b, r.ReadAt(context.Background(), b, 0)
}

func filled(n byte, size int64) []byte { return bytes.Repeat([]byte{n}, int(size)) }
