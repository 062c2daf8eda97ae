package volume_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

func TestCreateAndDeleteCanBeRepeated(t *testing.T) {
	u := startUnit(t)
	spec := specOf(1, 2, 1)
	r := mustCreate(t, u, spec)
	if again := mustCreate(t, u, spec); again != r {
		t.Error("the second creation gave another replica")
	}
	for what, other := range map[string]volume.Spec{"size": specOf(1, 3, 1), "placement": specOf(1, 1, 2)} {
		if _, err := u.manager.Create(ctx, other); san.KindOf(err) != san.KindConflict {
			t.Errorf("created again with another %s: %v", what, err)
		}
	}
	for range 2 {
		if err := u.manager.Delete(ctx, spec.ID); err != nil {
			t.Error(err)
		}
		if _, err := u.manager.Lookup(spec.ID); san.KindOf(err) != san.KindNotFound {
			t.Errorf("after deletion: %v", err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	u := startUnit(t)
	with := func(change func(*volume.Spec)) volume.Spec {
		s := specOf(1, 2)
		change(&s)
		return s
	}
	for what, c := range map[string]struct {
		spec volume.Spec
		kind san.Kind
	}{
		"no UUID":           {with(func(s *volume.Spec) { s.ID = "v1" }), san.KindInvalid},
		"upper case":        {with(func(s *volume.Spec) { s.ID = "0000000A-0000-4000-8000-000000000000" }), san.KindInvalid},
		"a path":            {with(func(s *volume.Spec) { s.ID = "../../etc" }), san.KindInvalid},
		"zero size":         {with(func(s *volume.Spec) { s.SizeBytes = 0 }), san.KindInvalid},
		"negative size":     {with(func(s *volume.Spec) { s.SizeBytes = -512 }), san.KindInvalid},
		"half a block":      {with(func(s *volume.Spec) { s.SizeBytes = 600 }), san.KindInvalid},
		"block size":        {with(func(s *volume.Spec) { s.BlockSizeBytes = 520 }), san.KindInvalid},
		"too few extents":   {with(func(s *volume.Spec) { s.SizeBytes = 3 * extentBytes }), san.KindInvalid},
		"too many extents":  {with(func(s *volume.Spec) { s.SizeBytes = 512 }), san.KindInvalid},
		"no slices":         {with(func(s *volume.Spec) { s.Slices = nil }), san.KindInvalid},
		"an unknown medium": {with(func(s *volume.Spec) { s.Slices[0].Medium = mediumID(7) }), san.KindUnavailable},
		"more than is free": {specOf(1, mediumExtents+1), san.KindNoSpace},
	} {
		if _, err := u.manager.Create(ctx, c.spec); san.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: %v (kind %v)", what, err, san.KindOf(err))
		}
	}
	if len(u.manager.List()) != 0 || u.used() != 0 {
		t.Errorf("refused creations left %v and %d extents", u.manager.List(), u.used())
	}
}

func TestManyAtOnce(t *testing.T) {
	u := startUnit(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			id := byte(i/4 + 1) // four want the same one
			r, err := u.manager.Create(ctx, specOf(id, 2, 1))
			if err == nil {
				err = r.WriteAt(ctx, filled(id, r.SizeBytes()), 0, true)
			}
			if err != nil {
				t.Error(err)
			}
			u.manager.StorageInfo()
		})
	}
	wg.Wait()
	if u.used() != 18 || u.recorded() != 18 {
		t.Errorf("%d extents used, %d recorded, want 18", u.used(), u.recorded())
	}
	for i := range 24 {
		wg.Go(func() {
			if err := u.manager.Delete(ctx, volumeID(byte(i/4+1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if u.used() != 0 {
		t.Errorf("%d extents are left", u.used())
	}
}

func TestStorageInfo(t *testing.T) {
	u := startUnit(t)
	mustCreate(t, u, specOf(1, 1))
	mustCreate(t, u, specOf(2, 2))
	mustCreate(t, u, specOf(3, 1))
	if err := u.manager.Delete(ctx, volumeID(2)); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, u, specOf(4, 11-3, 1)) // the longest run
	mustCreate(t, u, specOf(5, 1, 0))
	info := u.manager.StorageInfo()
	data := san.LBA(2 << 20 / 512)
	const per = extentBytes / 512
	want := map[san.VolumeID][]volume.ExtentRun{
		volumeID(1): {{Medium: mediumID(0), StartLBA: data, LengthBlocks: per}},
		volumeID(3): {{Medium: mediumID(0), StartLBA: data + 3*per, LengthBlocks: per}},
		volumeID(4): {{Medium: mediumID(0), StartLBA: data + 4*per, LengthBlocks: 8 * per}, {Medium: mediumID(1), StartLBA: data, LengthBlocks: per}},
		volumeID(5): {{Medium: mediumID(0), StartLBA: data + per, LengthBlocks: per}},
	}
	for _, v := range info.Volumes {
		if !reflect.DeepEqual(v.Runs, want[v.ID]) {
			t.Errorf("volume %s is at %+v, want %+v", v.ID, v.Runs, want[v.ID])
		}
		if v.StartLBA != 0 || v.LengthBlocks != uint64(v.SizeBytes/512) || v.EndLBA != san.LBA(v.LengthBlocks-1) || v.State != volume.StateReady {
			t.Errorf("volume %+v", v)
		}
	}
	m := info.Media[0]
	if len(info.Volumes) != 4 || m.CapacityBytes != mediumExtents*extentBytes || m.UsedBytes != 11*extentBytes || m.UsedExtents != 11 || m.Failed != nil {
		t.Errorf("%d volumes; medium %+v", len(info.Volumes), m)
	}
}

func TestMediumAway(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 1, 1))
	if err := r.WriteAt(ctx, filled(5, r.SizeBytes()), 0, true); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, u, specOf(2, 1))
	mustCreate(t, u, specOf(3, 1, 1))
	disks := u.disks
	u.power.Kill()
	u.disks = disks[:1]
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	if _, err := u.manager.Lookup(volumeID(1)); !errors.Is(err, volume.ErrNoMedium) || !strings.Contains(err.Error(), string(mediumID(1))) {
		t.Errorf("a volume without its medium: %v", err)
	}
	if _, err := u.manager.Lookup(volumeID(2)); err != nil {
		t.Errorf("a volume that has all of its media: %v", err)
	}
	if err := u.manager.Delete(ctx, volumeID(3)); !errors.Is(err, volume.ErrNoMedium) {
		t.Errorf("deletion without the medium: %v", err)
	}
	u.power.Kill()
	u.disks = disks
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	if r, err := u.manager.Lookup(volumeID(1)); err != nil {
		t.Errorf("with the medium back: %v", err)
	} else if got, err := readAll(r); err != nil || string(got) != string(filled(5, r.SizeBytes())) {
		t.Errorf("with the medium back its bytes differ (%v)", err)
	}
	if u.used() != 3 || u.recorded() != 3 {
		t.Errorf("the deletion was not finished with the medium back: %d extents used", u.used())
	}
}

func TestLostAndDamagedRecords(t *testing.T) {
	u := startUnit(t)
	mustCreate(t, u, specOf(1, 2))
	mustCreate(t, u, specOf(2, 2))
	mustCreate(t, u, specOf(3, 2))
	u.power.Kill()
	d, err := u.dir.Open()
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Open(string(volumeID(2)) + ".rec")
	if err != nil {
		t.Fatal(err)
	}
	for slot := range int64(2) {
		if _, err := f.WriteAt([]byte("rot"), slot<<20+40); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Remove(string(volumeID(1))+".rec"), d.Close(), u.start()); err != nil {
		t.Fatal(err)
	}
	problems := map[san.VolumeID]error{}
	for _, v := range u.manager.StorageInfo().Volumes {
		problems[v.ID] = v.Problem
	}
	if len(problems) != 3 || problems[volumeID(1)] == nil || !errors.Is(problems[volumeID(2)], disk.ErrDamaged) || problems[volumeID(3)] != nil {
		t.Errorf("problems: %v", problems)
	}
	for n := byte(1); n <= 2; n++ {
		if _, err := u.manager.Create(ctx, specOf(n, 2)); err == nil {
			t.Errorf("volume %d was made over what is left of it", n)
		}
		if u.used() != 8-2*uint32(n) {
			t.Errorf("%d extents are used: the data of a volume was given up without being told to", u.used())
		}
		if err := u.manager.Delete(ctx, volumeID(n)); err != nil {
			t.Error(err)
		}
		mustCreate(t, u, specOf(n, 1))
		if err := u.manager.Delete(ctx, volumeID(n)); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseRefusesAndStabilises(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 2))
	if err := r.WriteAt(ctx, filled(9, r.SizeBytes()), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := u.manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(ctx); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("flush after Close: %v", err)
	}
	if _, err := u.manager.Create(ctx, specOf(2, 1)); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("creation after Close: %v", err)
	}
	u.power.Restore(disktest.KeepNothing)
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	r, err := u.manager.Lookup(volumeID(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); err != nil || string(got) != string(filled(9, r.SizeBytes())) {
		t.Errorf("a clean stop lost bytes (%v)", err)
	}
}

func TestCancelledCreationLeavesNothing(t *testing.T) {
	u := startUnit(t)
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := u.manager.Create(done, specOf(1, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("created with a context that had ended: %v", err)
	}
	if len(u.manager.List()) != 0 || u.used() != 0 {
		t.Errorf("%v and %d extents are left", u.manager.List(), u.used())
	}
}
