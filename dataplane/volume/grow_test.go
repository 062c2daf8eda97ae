package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

func on(i int, extents uint32) volume.Slice {
	return volume.Slice{Medium: mediumID(i), Extents: extents}
}

func TestGrow(t *testing.T) {
	u := startUnit(t)
	spec := specOf(1, 2, 1)
	r := mustCreate(t, u, spec)
	if err := r.WriteAt(ctx, filled(1, r.SizeBytes()), 0, true); err != nil {
		t.Fatal(err)
	}
	want := filled(1, r.SizeBytes())
	for _, step := range []struct {
		bytes int64
		more  []volume.Slice
	}{
		{512, nil}, // to the end of the last extent
		{512, []volume.Slice{on(1, 1)}},
		{extentBytes, []volume.Slice{on(0, 1)}}, // a medium that it was on before
		{3 * extentBytes, []volume.Slice{on(1, 2), on(0, 1)}},
		{extentBytes - 512, nil},
	} {
		spec = plus(spec, step.bytes, step.more...)
		grown, err := u.manager.Grow(ctx, spec)
		if !grown || err != nil {
			t.Fatalf("grow to %d: %v, %v", spec.SizeBytes, grown, err)
		}
		want = append(want, make([]byte, step.bytes)...)
		got, err := readAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d bytes: %d are read, %v", spec.SizeBytes, len(got), err)
		}
		// The end that it had is in the middle of something now, and can be written across.
		at := spec.SizeBytes - step.bytes - 512
		if err := r.WriteAt(ctx, filled(9, 1024), at, true); err != nil {
			t.Fatal(err)
		}
		copy(want[at:], filled(9, 1024))
		if grown, err := u.manager.Grow(ctx, spec); grown || err != nil {
			t.Errorf("once more to %d: %v, %v", spec.SizeBytes, grown, err)
		}
	}
	if again := mustCreate(t, u, spec); again != r {
		t.Error("it is not the replica that it was")
	}
	u.power.Kill()
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	r, err := u.manager.Lookup(spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after a restart %d bytes are read, %d are due; %v", len(got), len(want), err)
	}
	if u.used() != 8 {
		t.Errorf("%d extents are used, want 8", u.used())
	}
}

func TestGrowRefuses(t *testing.T) {
	u := startUnit(t)
	spec := specOf(1, 2, 1)
	r := mustCreate(t, u, spec)
	mustCreate(t, u, specOf(2, 4))
	with := func(change func(*volume.Spec)) volume.Spec {
		s := plus(spec, extentBytes, on(1, 1))
		change(&s)
		return s
	}
	for what, c := range map[string]struct {
		spec volume.Spec
		kind san.Kind
	}{
		"smaller":                 {specOf(1, 2), san.KindConflict},
		"another order":           {plus(specOf(1, 1), 3*extentBytes, on(1, 2), on(0, 1)), san.KindConflict},
		"another medium":          {with(func(s *volume.Spec) { s.Slices[0].Medium, s.Slices[1].Medium = mediumID(1), mediumID(0) }), san.KindConflict},
		"another block size":      {with(func(s *volume.Spec) { s.BlockSizeBytes, s.SizeBytes = 4096, s.SizeBytes+512 }), san.KindConflict},
		"half a block":            {with(func(s *volume.Spec) { s.SizeBytes++ }), san.KindInvalid},
		"too few extents":         {with(func(s *volume.Spec) { s.SizeBytes += extentBytes }), san.KindInvalid},
		"a volume that is away":   {specOf(7, 1), san.KindNotFound},
		"a medium that is away":   {plus(spec, extentBytes, on(7, 1)), san.KindUnavailable},
		"more than a medium has":  {plus(spec, 12*extentBytes, on(1, 12)), san.KindNoSpace},
		"more than the last has":  {plus(spec, 8*extentBytes, on(1, 1), on(0, 7)), san.KindNoSpace},
		"all that there is twice": {plus(spec, 34*extentBytes, on(0, 17), on(1, 17)), san.KindNoSpace},
	} {
		if grown, err := u.manager.Grow(ctx, c.spec); grown || err == nil || san.KindOf(err) != c.kind {
			t.Errorf("%s: %v, %v (kind %v)", what, grown, err, san.KindOf(err))
		}
		if r.SizeBytes() != spec.SizeBytes || u.used() != 7 {
			t.Fatalf("%s: it has %d bytes and %d extents are used", what, r.SizeBytes(), u.used())
		}
	}
	if list := u.manager.List(); len(list) != 2 {
		t.Errorf("there is %v", list)
	}
}

// Writers fill the volume to the end that they see while it grows to the last extent of the unit.
func TestGrowUnderLoad(t *testing.T) {
	u := startUnit(t)
	spec := specOf(1, 1)
	r := mustCreate(t, u, spec)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for off := int64(w) * 512; ; off += 3 * 512 {
				select {
				case <-stop:
					return
				default:
				}
				off %= r.SizeBytes() / 512 * 512
				if err := r.WriteAt(ctx, filled(byte(w+1), 512), off, off%1024 == 0); err != nil {
					t.Error(err)
					return
				}
				if err := r.Flush(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 2*mediumExtents - 1 {
		spec = plus(spec, extentBytes, on((i+1)%2, 1))
		if grown, err := u.manager.Grow(ctx, spec); !grown || err != nil {
			t.Fatalf("growth %d: %v, %v", i, grown, err)
		}
	}
	close(stop)
	writers.Wait()
	if free := 2*mediumExtents - u.used(); free != 0 || r.SizeBytes() != spec.SizeBytes {
		t.Errorf("%d extents are free, the volume has %d bytes", free, r.SizeBytes())
	}
}

// Whatever fails on the way, the replica is served in its former size, and the next attempt does it.
func TestGrowFailsAndGoesOn(t *testing.T) {
	spec := plus(specOf(1, 2), 2*extentBytes, on(0, 1), on(1, 1))
	for k, met := 2, true; met; k++ { // an operation of the growth fails, then what was not stable is there or not
		u := newUnit(t)
		left := -1
		u.rule = func(op disktest.Op) error {
			if op.Kind == disktest.OpRead || left < 0 {
				return nil
			}
			if left--; left == 0 {
				return disk.ErrIO
			}
			return nil
		}
		if err := u.start(); err != nil {
			t.Fatal(err)
		}
		r := mustCreate(t, u, specOf(1, 2))
		if err := r.WriteAt(ctx, filled(1, r.SizeBytes()), 0, true); err != nil {
			t.Fatal(err)
		}
		left = k / 2
		grown, err := u.manager.Grow(ctx, spec)
		met = left <= 0
		left = -1
		if err == nil {
			if !grown || r.SizeBytes() != spec.SizeBytes {
				t.Fatalf("fault %d: grown %v to %d without an error", k, grown, r.SizeBytes())
			}
		} else if r.SizeBytes() != specOf(1, 2).SizeBytes {
			t.Fatalf("fault %d: %v, and it has %d bytes", k, err, r.SizeBytes())
		}
		restart := u.power.Kill
		if k%2 == 0 {
			restart = func() { u.power.Restore(disktest.KeepNothing) }
		}
		restart()
		checkGrows(t, fmt.Sprintf("fault %d", k), u, spec)
	}
}

// checkGrows starts u and repeats the growth.
func checkGrows(t *testing.T, when string, u *unit, spec volume.Spec) {
	t.Helper()
	if err := u.start(); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if _, err := u.manager.Grow(context.Background(), spec); err != nil {
		t.Fatalf("%s: the next attempt: %v", when, err)
	}
	r, err := u.manager.Lookup(spec.ID)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	got, err := readAll(r)
	old := int(specOf(1, 2).SizeBytes)
	if err != nil || int64(len(got)) != spec.SizeBytes || bytes.Count(got[:old], []byte{1}) != old || bytes.Count(got[old:], []byte{0}) != len(got)-old {
		t.Fatalf("%s: %d bytes are read, not those that are due; %v", when, len(got), err)
	}
	if u.used() != 4 {
		t.Fatalf("%s: %d extents are used, want 4", when, u.used())
	}
	if err := u.manager.Close(); err != nil && !errors.Is(err, disk.ErrIO) {
		t.Fatal(err)
	}
}
